"""64-bin log-mel of "Audio Tagging Done Right" (ATDR, Li et al. 2022), and its mean and std."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from asjax.config import AsjaxError
from asjax.frontends import stft

_FLOOR = 1e-10  # smallest mel power

# (mel bins, widest frequency mask, widest time mask, mixup rate) -> (mean, std). These are averages
# over training batches of the balanced set. The batches include padding, masks and mixtures, so the
# values depend on the augmentation. 128 bins are Kaldi's natural-log energies, cut or padded to
# 1024 frames; 64 bins are `atdr_logmel64` with db_multiplier=20.
CONSTANTS = {
    (128, 24, 192, 0.5): (-4.2677393, 4.5689974),  # AST; the mask widths are those in ATDR's notes
    (128, 36, 192, 0.3): (-3.6788461, 4.3739743),  # the paper's procedures A1 and A2
    (128, 36, 192, 0.5): (-3.5172966, 4.1748486),
    (128, 48, 192, 0.5): (-3.3458831, 4.1563106),  # ResNet50
    (64, 12, 75, 0.3): (-29.072655, 40.71728),  # A3 and A4
    (64, 12, 60, 0.3): (-29.686901, 40.898224),  # best CNN+Transformer
    (64, 12, 75, 0.5): (-27.248297, 37.681698),  # best AST of A3
    (64, 24, 75, 0.5): (-24.584522, 37.10214),
    (64, 12, 60, 0.5): (-27.712713, 37.934616),
    (64, 12, 60, 0.2): (-30.733978, 42.267876),
    (64, 12, 56, 0.4): (-28.799559, 39.34941),
    (64, 12, 56, 0.25): (-30.333525, 41.43794),
    (64, 10, 50, 0.3): (-30.68206, 41.202892),
    (64, 10, 50, 0.2): (-31.451344, 42.354965),
    (64, 6, 25, 0.5): (-30.446014, 38.751587),
    (64, 6, 25, 0.3): (-32.60682, 41.53026),
    (64, 6, 25, 0.2): (-33.632145, 42.845398),
    (64, 6, 25, 0.1): (-34.673824, 44.153343),
    (64, 0, 0, 0.0): (-38.193954, 45.802143),
}

# Arguments for `kaldi_fbank128`: the constants of AST's recipes and of PSLA. PSLA divides by one
# standard deviation, not two.
RECIPES = {
    "ast_audioset": dict(frames=1024, mean=-4.2677393, std=4.5689974, divide=2),
    "ast_esc50": dict(frames=512, mean=-6.6268077, std=5.358466, divide=2),
    "ast_speechcommands": dict(frames=128, mean=-6.845978, std=5.5654526, divide=2),
    "psla_audioset": dict(frames=1056, mean=-4.6476, std=4.5699, divide=1),
}


def constants(n_mels: int, freq_mask: int, time_mask: int, mixup: float) -> tuple[float, float]:
    """(mean, std) measured with this augmentation; AsjaxError lists the known settings."""
    key = (n_mels, freq_mask, time_mask, mixup)
    if key not in CONSTANTS:
        known = ", ".join(str(k) for k in CONSTANTS if k[0] == n_mels) or ", ".join(
            map(str, CONSTANTS)
        )
        raise AsjaxError(
            f"no constants are published for (n_mels, freq_mask, time_mask, mixup)={key}; give the "
            f"frontend your own mean and std, or those of one of {known}"
        )
    return CONSTANTS[key]


@dataclasses.dataclass(frozen=True)
class AtdrLogmel:
    """Log-mel in dB, normalised by constants. See `atdr_logmel`."""

    sample_rate: int
    n_mels: int
    n_fft: int
    hop: int
    window: int
    fmin: float
    fmax: float
    db_multiplier: float
    frames: int | None
    mean: float
    std: float
    divide: float
    remove_mean: bool

    @property
    def mel_filters(self) -> np.ndarray:
        """float32 [n_fft // 2 + 1, n_mels]."""
        return stft.torchaudio_slaney_filters(
            self.sample_rate, self.n_fft, self.n_mels, self.fmin, self.fmax
        )

    @property
    def padding(self) -> float:
        """The value of padded frames: zero in the log domain before normalisation."""
        return -self.mean / (self.divide * self.std)

    def mel_power(self, wave):
        """wave [B, S] -> float32 [B, 1 + S // hop, n_mels]."""
        return _mel_power(stft.checked(wave), self)

    def logmel(self, wave):
        """wave [B, S] -> float32 [B, 1 + S // hop, n_mels], neither padded nor normalised."""
        return _logmel(stft.checked(wave), self)

    def __call__(self, wave):
        """wave [B, S], float in [-1, 1] or signed integer -> float32 [B, frames, n_mels].

        Raises:
          AsjaxError: the wave does not have two axes, or its dtype is unsigned.
        """
        return _features(stft.checked(wave), self)


@functools.partial(jax.jit, static_argnums=1)
def _mel_power(wave, cfg: AtdrLogmel):
    if cfg.remove_mean and wave.shape[1]:
        wave = wave - wave.mean(1, keepdims=True)
    window = stft.hann(cfg.window, cfg.n_fft)
    return stft.centred_mel(wave, window, cfg.hop, cfg.mel_filters, pad="constant")


@functools.partial(jax.jit, static_argnums=1)
def _logmel(wave, cfg: AtdrLogmel):
    return cfg.db_multiplier * jnp.log10(jnp.maximum(_mel_power(wave, cfg), _FLOOR))


@functools.partial(jax.jit, static_argnums=1)
def _features(wave, cfg: AtdrLogmel):
    logmel = stft.fit_frames(_logmel(wave, cfg), cfg.frames)
    return (logmel - cfg.mean) / (cfg.divide * cfg.std)


def atdr_logmel(
    *,
    sample_rate: int = 16000,
    n_mels: int = 64,
    n_fft: int = 4096,
    hop: int = 400,
    window: int = 1024,
    fmin: float = 0,
    fmax: float | None = None,
    db_multiplier: float = 20,
    frames: int | None = 400,
    mean: float = CONSTANTS[64, 12, 75, 0.3][0],
    std: float = CONSTANTS[64, 12, 75, 0.3][1],
    divide: float = 2,
    remove_mean: bool = True,
) -> AtdrLogmel:
    """Slaney log-mel of centred frames with zero padding, then `(x - mean) / (divide * std)`.

    Steps: subtract the wave's mean, periodic Hann window, power, Slaney filters,
    `db_multiplier * log10(max(power, 1e-10))`.

    Args:
      sample_rate: Hz.
      n_mels: number of mel bands.
      n_fft, hop, window: FFT length, samples between frames, and window length (at most n_fft).
      fmin, fmax: lowest and highest frequency in Hz (0, and the Nyquist frequency).
      db_multiplier: 10 gives decibels. The authors' code uses 20 although the input is a power,
        because it passes a wrong argument to torchaudio's AmplitudeToDB. Their constants fit 20.
      frames: number of output frames. The dB values are cut, or padded with zeros at the end,
        before normalisation. None gives 1 + S // hop frames.
      mean, std, divide: by default those of the paper's procedures A3 and A4, see `constants`.
        `mean=0, std=0.5` does not change the dB values.
      remove_mean: subtract each wave's mean.

    Raises:
      AsjaxError: a value is out of range.
    """
    rate = stft.integer("sample_rate", sample_rate, 100, 10**7)
    n_fft = stft.integer("n_fft", n_fft, 2, 2**20)
    fmax = stft.real("fmax", rate / 2 if fmax is None else fmax, 0, rate / 2)
    fmin = stft.real("fmin", fmin, 0, fmax)
    if fmin >= fmax:
        raise AsjaxError(f"fmin must be below fmax, got fmin={fmin:g}, fmax={fmax:g}")
    return AtdrLogmel(
        sample_rate=rate,
        n_mels=stft.integer("n_mels", n_mels, 1, 2**16),
        n_fft=n_fft,
        hop=stft.integer("hop", hop, 1, 2**24),
        window=stft.integer("window", window, 2, n_fft),
        fmin=fmin,
        fmax=fmax,
        db_multiplier=stft.real("db_multiplier", db_multiplier, 1e-3, 1e3, "(10 or 20)"),
        frames=None if frames is None else stft.integer("frames", frames, 1, 2**24),
        **stft.constants(mean, std, divide),
        remove_mean=stft.boolean("remove_mean", remove_mean),
    )


VARIANTS = {
    "atdr_logmel": (atdr_logmel, {}),
    "atdr_logmel64": (atdr_logmel, {"n_mels": 64}),
}

"""Kaldi's log-mel filter bank (torchaudio.compliance.kaldi), for AST, BEATs and ASiT."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from asjax.config import AsjaxError, unknown
from asjax.frontends import stft

_FLOOR = float(np.finfo(np.float32).eps)  # smallest mel energy: silence is ln(2^-23) = -15.94
_EMPHASIS = 0.97


@dataclasses.dataclass(frozen=True)
class KaldiFbank:
    """Natural-log mel energies of 25 ms frames, normalised by constants. See `kaldi_fbank`."""

    sample_rate: int
    n_mels: int
    hop: int
    window: int
    window_type: str
    fmin: float
    fmax: float
    frames: int | None
    mean: float
    std: float
    divide: float
    remove_mean: bool
    scale_int16: bool

    @property
    def n_fft(self) -> int:
        """FFT length: the smallest power of two that is at least `window`."""
        return 1 << (self.window - 1).bit_length()

    @property
    def mel_filters(self) -> np.ndarray:
        """float32 [n_fft // 2 + 1, n_mels]."""
        return stft.kaldi_filters(self.sample_rate, self.n_fft, self.n_mels, self.fmin, self.fmax)

    @property
    def taper(self) -> np.ndarray:
        """The window, float32 [window]: symmetric Hann; Povey's is its power of 0.85."""
        phase = np.arange(self.window) / (self.window - 1)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * phase)
        return (hann if self.window_type == "hann" else hann**0.85).astype(np.float32)

    @property
    def padding(self) -> float:
        """The value of padded frames: zero in the log domain before normalisation."""
        return -self.mean / (self.divide * self.std)

    def logmel(self, wave):
        """wave [B, S] -> float32 [B, T, n_mels], neither padded nor normalised."""
        return _logmel(stft.checked(wave), self)

    def __call__(self, wave):
        """wave [B, S], float in [-1, 1] or signed integer -> float32 [B, T, n_mels].

        T is `frames`. If that is None, T is 1 + (S - window) // hop, but at least 1.

        Raises:
          AsjaxError: the wave does not have two axes, or its dtype is unsigned.
        """
        return _features(stft.checked(wave), self)


@functools.partial(jax.jit, static_argnums=1)
def _logmel(wave, cfg: KaldiFbank):
    samples = wave.shape[1]
    if cfg.scale_int16:
        wave = wave * 32768
    if cfg.remove_mean and samples:
        wave = wave - wave.mean(1, keepdims=True)
    wave = jnp.pad(wave, ((0, 0), (0, max(0, cfg.window - samples))))
    frames = stft.frame(wave, cfg.window, cfg.hop, 1 + (wave.shape[1] - cfg.window) // cfg.hop)
    frames = frames - frames.mean(2, keepdims=True)
    before = jnp.concatenate([frames[..., :1], frames[..., :-1]], 2)  # sample 0 precedes itself
    frames = (frames - _EMPHASIS * before) * cfg.taper[None, None]
    mel = stft.mel_of_frames(frames, cfg.n_fft, cfg.mel_filters)
    return jnp.log(jnp.maximum(mel, _FLOOR))


@functools.partial(jax.jit, static_argnums=1)
def _features(wave, cfg: KaldiFbank):
    logmel = stft.fit_frames(_logmel(wave, cfg), cfg.frames)
    return (logmel - cfg.mean) / (cfg.divide * cfg.std)


def kaldi_fbank(
    *,
    sample_rate: int = 16000,
    n_mels: int = 128,
    hop: int | None = None,
    window: int | None = None,
    window_type: str = "hann",
    fmin: float = 20,
    fmax: float | None = None,
    frames: int | None = 1024,
    mean: float = -4.2677393,
    std: float = 4.5689974,
    divide: float = 2,
    remove_mean: bool = True,
    scale_int16: bool = False,
) -> KaldiFbank:
    """Kaldi's filter bank without dither, then `(x - mean) / (divide * std)`.

    Steps: subtract the wave's mean; cut it into frames without padding ("snip edges"). Then for
    each frame: subtract its mean, pre-emphasis with 0.97, window, zero padding to a power of two,
    power spectrum, mel filters, `ln(max(x, 2^-23))`. Pre-emphasis takes sample 0 as its own
    predecessor. A wave shorter than one frame is first extended with zeros. The defaults are AST's
    (Gong et al. 2021).

    Args:
      sample_rate: Hz.
      n_mels: number of mel bands.
      hop, window: samples between frames and per frame (default 10 and 25 ms).
      window_type: "hann" (symmetric) or "povey" (Hann to the power 0.85).
      fmin, fmax: lowest and highest frequency in Hz (default 20 and the Nyquist frequency).
      frames: number of output frames. The log energies are cut, or padded with zeros at the end,
        before normalisation, so padding becomes -mean / (divide * std). None keeps all frames of
        the wave.
      mean, std, divide: `mean=0, std=0.5` does not change the log energies.
        `asjax.frontends.atdr.constants` has the values for other augmentations.
      remove_mean: subtract each wave's mean, as AST does; Hugging Face's extractor does not. The
        effect is small, because each frame's mean is subtracted anyway.
      scale_int16: multiply the wave by 2^15 (BEATs).

    Raises:
      AsjaxError: a value is out of range.
    """
    rate = stft.integer("sample_rate", sample_rate, 100, 10**7)
    hop = stft.integer("hop", max(1, rate // 100) if hop is None else hop, 1, 2**24)
    window = stft.integer("window", rate // 40 if window is None else window, 2, 2**20)
    if window_type not in ("hann", "povey"):
        raise unknown("frontend window_type", window_type, ("hann", "povey"))
    fmax = stft.real("fmax", rate / 2 if fmax is None else fmax, 0, rate / 2)
    fmin = stft.real("fmin", fmin, 0, fmax)
    if fmin >= fmax:
        raise AsjaxError(f"fmin must be below fmax, got fmin={fmin:g}, fmax={fmax:g}")
    return KaldiFbank(
        sample_rate=rate,
        n_mels=stft.integer("n_mels", n_mels, 1, 2**16),
        hop=hop,
        window=window,
        window_type=window_type,
        fmin=fmin,
        fmax=fmax,
        frames=None if frames is None else stft.integer("frames", frames, 1, 2**24),
        **stft.constants(mean, std, divide),
        remove_mean=stft.boolean("remove_mean", remove_mean),
        scale_int16=stft.boolean("scale_int16", scale_int16),
    )


VARIANTS = {
    "kaldi_fbank": (kaldi_fbank, {}),
    "kaldi_fbank128": (kaldi_fbank, {"n_mels": 128}),
    # transformers' ASTFeatureExtractor
    "kaldi_fbank128_hf": (kaldi_fbank, {"remove_mean": False}),
    # Chen et al. 2022
    "beats_fbank128": (
        kaldi_fbank,
        {
            "window_type": "povey",
            "frames": None,
            "mean": 15.41663,
            "std": 6.55582,
            "remove_mean": False,
            "scale_int16": True,
        },
    ),
    # Atito et al. 2022: as AST, but without a fixed length
    "asit_fbank128": (kaldi_fbank, {"frames": None}),
}

"""Log-mel of M2D (nnAudio's MelSpectrogram): natural logarithm of Slaney mel power."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from asjax.config import AsjaxError
from asjax.frontends import stft


@dataclasses.dataclass(frozen=True)
class M2dLogmel:
    """(ln(mel + 2^-23) - mean) / std of a centred power spectrogram. See `m2d_logmel`."""

    sample_rate: int
    n_mels: int
    n_fft: int
    hop: int
    window: int
    fmin: float
    fmax: float
    mean: float
    std: float
    divide: float

    @property
    def mel_filters(self) -> np.ndarray:
        """float32 [n_fft // 2 + 1, n_mels]."""
        return stft.slaney_filters(self.sample_rate, self.n_fft, self.n_mels, self.fmin, self.fmax)

    def __call__(self, wave):
        """wave [B, S], float in [-1, 1] or signed integer -> float32 [B, 1 + S // hop, n_mels].

        Raises:
          AsjaxError: the wave does not have two axes, or its dtype is unsigned.
        """
        return _logmel(stft.checked(wave), self)


@functools.partial(jax.jit, static_argnums=1)
def _logmel(wave, cfg: M2dLogmel):
    mel = stft.centred_mel(wave, stft.hann(cfg.window, cfg.n_fft), cfg.hop, cfg.mel_filters)
    x = jnp.log(mel + float(np.finfo(np.float32).eps))
    return (x - cfg.mean) / (cfg.divide * cfg.std)


def m2d_logmel(
    *,
    sample_rate: int = 16000,
    n_mels: int = 80,
    n_fft: int | None = None,
    hop: int | None = None,
    window: int | None = None,
    fmin: float = 50,
    fmax: float | None = None,
    mean: float = -7.1,
    std: float = 4.2,
    divide: float = 1,
) -> M2dLogmel:
    """Centred STFT with reflected ends, periodic Hann, power, Slaney filters of unit area.

    Args:
      sample_rate: Hz.
      n_mels: number of mel bands.
      n_fft, hop, window: FFT length, samples between frames, and window length, which is at most
        n_fft (default 25, 10 and 25 ms).
      fmin, fmax: lowest and highest frequency in Hz (default 50 and the Nyquist frequency).
      mean, std, divide: `(x - mean) / (divide * std)`. A checkpoint has its mean and std in
        `norm_stats`. PretrainedSED's models use the defaults here and ignore `norm_stats`.

    Raises:
      AsjaxError: a value is out of range.
    """
    rate = stft.integer("sample_rate", sample_rate, 100, 10**7)
    n_fft = stft.integer("n_fft", rate // 40 if n_fft is None else n_fft, 2, 2**20)
    hop = stft.integer("hop", max(1, rate // 100) if hop is None else hop, 1, 2**24)
    fmax = stft.real("fmax", rate / 2 if fmax is None else fmax, 0, rate / 2)
    fmin = stft.real("fmin", fmin, 0, fmax)
    if fmin >= fmax:
        raise AsjaxError(f"frontend fmin must be below fmax, got fmin={fmin:g}, fmax={fmax:g}")
    return M2dLogmel(
        sample_rate=rate,
        n_mels=stft.integer("n_mels", n_mels, 1, 2**16),
        n_fft=n_fft,
        hop=hop,
        window=stft.integer("window", n_fft if window is None else window, 2, n_fft),
        fmin=fmin,
        fmax=fmax,
        **stft.constants(mean, std, divide),
    )


VARIANTS = {"m2d_logmel": (m2d_logmel, {}), "m2d_logmel80": (m2d_logmel, {"n_mels": 80})}

"""Log-mel of PANNs and audio ConvNeXt (torchlibrosa)."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from asjax.config import AsjaxError
from asjax.frontends import stft

_FLOOR = 1e-10  # smallest mel power: silence is -100 dB


@dataclasses.dataclass(frozen=True)
class PannsLogmel:
    """Log-mel spectrogram of PANNs and audio ConvNeXt, in dB with floor -100.

    Centred STFT with reflected ends, periodic Hann window, power, Slaney mel filters,
    `10 log10(max(mel, 1e-10))`; no clipping at the top. Make it with `panns_logmel`. If not
    `centred`, a frame ends with its last hop and the number of frames is `S // hop`: no frame looks
    at a later sample, and before the wave there are zeros.

    A wave with fewer than `n_fft // 2 + 1` samples cannot be reflected, so zeros are first appended
    up to that length. The number of frames is `1 + S // hop` for the original length S.
    """

    sample_rate: int
    n_mels: int
    n_fft: int
    hop: int
    window: int
    fmin: float
    fmax: float
    centred: bool = True

    @property
    def mel_filters(self) -> np.ndarray:
        """float32 [n_fft // 2 + 1, n_mels]."""
        return stft.slaney_filters(self.sample_rate, self.n_fft, self.n_mels, self.fmin, self.fmax)

    def power(self, wave):
        """Power spectrogram: wave [B, S] -> float32 [B, T, n_fft // 2 + 1]."""
        return _power(stft.checked(wave), self)

    def __call__(self, wave):
        """wave [B, S], float in [-1, 1] or signed integer -> float32 [B, T, n_mels] in dB.

        Raises:
          AsjaxError: the wave does not have two axes, or its dtype is unsigned.
        """
        return _logmel(stft.checked(wave), self)


@functools.partial(jax.jit, static_argnums=1)
def _power(wave, cfg: PannsLogmel):
    window = stft.hann(cfg.window, cfg.n_fft)
    if cfg.centred:
        return stft.centred_power(wave, window, cfg.hop)
    return stft.power(stft.trailing(wave, window, cfg.hop), cfg.n_fft)


@functools.partial(jax.jit, static_argnums=1)
def _logmel(wave, cfg: PannsLogmel):
    window = stft.hann(cfg.window, cfg.n_fft)
    if cfg.centred:
        mel = stft.centred_mel(wave, window, cfg.hop, cfg.mel_filters)
    else:
        frames = stft.trailing(wave, window, cfg.hop)
        mel = stft.mel_of_frames(frames, cfg.n_fft, cfg.mel_filters)
    return 10 * jnp.log10(jnp.maximum(mel, _FLOOR))


def panns_logmel(
    *,
    sample_rate: int = 32000,
    n_mels: int = 64,
    n_fft: int | None = None,
    hop: int | None = None,
    window: int | None = None,
    fmin: float = 50,
    fmax: float | None = None,
    centred: bool = True,
) -> PannsLogmel:
    """Log-mel of PANNs; the defaults follow from the sample rate as in the published variants.

    Args:
      sample_rate: Hz. The rates 32000, 16000 and 8000 give PANNs' 1024/320/14000, 512/160/8000 and
        256/80/4000 (n_fft / hop / fmax). Other rates give the same durations.
      n_mels: number of mel bands.
      n_fft: FFT length in samples (default: the power of two nearest to 32 ms).
      hop: samples between frames (default 10 ms).
      window: Hann window length in samples, at most n_fft (default n_fft).
      fmin, fmax: lowest and highest frequency in Hz (default 50, and 14000 or the Nyquist frequency
        if that is lower).
      centred: False: for streams, see `PannsLogmel`.

    Raises:
      AsjaxError: a value is out of range.

    Warns if some bands are so narrow that they contain no FFT bin and are always -100 dB.
    """
    rate = stft.integer("sample_rate", sample_rate, 100, 10**7)
    n_fft = 2 ** round(math.log2(0.032 * rate)) if n_fft is None else n_fft
    n_fft = stft.integer("n_fft", n_fft, 2, 2**20)
    window = stft.integer("window", n_fft if window is None else window, 2, n_fft)
    hop = stft.integer("hop", max(1, round(0.01 * rate)) if hop is None else hop, 1, 2**24)
    fmax = stft.real("fmax", min(14000, rate / 2) if fmax is None else fmax, 0, rate / 2)
    fmin = stft.real("fmin", fmin, 0, fmax)
    if fmin >= fmax:
        raise AsjaxError(f"fmin must be below fmax, got fmin={fmin:g}, fmax={fmax:g}")
    n_mels = stft.integer("n_mels", n_mels, 1, 2**16)
    centred = stft.boolean("centred", centred)
    frontend = PannsLogmel(rate, n_mels, n_fft, hop, window, fmin, fmax, centred)
    empty = int((frontend.mel_filters.max(0) == 0).sum())
    if empty:
        warnings.warn(
            f"{empty} of {n_mels} mel bands contain no FFT bin and stay at -100 dB; "
            f"raise n_fft (window may stay {window}), lower n_mels or raise fmin",
            stacklevel=3,
        )
    return frontend


# Name -> maker and its fields. At 16 kHz, 224 bands need FFT bins half as wide as those of PANNs'
# 512-point FFT, so the 32 ms window is zero-padded to 1024 points.
VARIANTS = {
    "panns_logmel": (panns_logmel, {}),
    "panns_logmel64": (panns_logmel, {"n_mels": 64}),
    "panns_logmel64_16k": (panns_logmel, {"n_mels": 64, "sample_rate": 16000}),
    "panns_logmel64_8k": (panns_logmel, {"n_mels": 64, "sample_rate": 8000}),
    "convnext_logmel224": (panns_logmel, {"n_mels": 224}),
    "convnext_logmel224_16k": (
        panns_logmel,
        {"n_mels": 224, "sample_rate": 16000, "n_fft": 1024, "window": 512},
    ),
}

"""From pushed samples to mono at the model's rate, and the last seconds of it."""

from __future__ import annotations

import numpy as np
import soxr

from asjax.config import AsjaxError, quoted, warn
from asjax.data import sound, waves

_NONE = np.zeros(0, np.float32)


class Inflow:
    """Pieces of a recording -> float32 mono pieces at `sample_rate` Hz, with soxr's state.

    The joined results equal `asjax.data.audio.from_array` of the joined pieces. NaN and Inf count
    as 0; the first of them and the first values far above full scale give a warning. A rate of None
    is `sample_rate`.

    Attributes:
      samples: pushed so far, per channel. not_finite: values that were NaN or infinite.
    """

    def __init__(self, rate: float | None, sample_rate: int):
        rate = sample_rate if rate is None else rate
        sound.check_rate("the stream", rate)
        self.rate, self.sample_rate = rate, sample_rate
        self._soxr, self._given, self._first = None, 0, _NONE
        if rate != sample_rate:
            self._soxr = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
        self.samples = self.not_finite = 0
        self.loud = False

    def push(self, samples) -> np.ndarray:
        """float32 [m] of samples [n] or [n, channels], float or signed integer; n may be 0.

        Raises:
          AsjaxError: another shape or type.
        """
        wave = self._mono(samples)
        self.samples += len(wave)
        if self._soxr is None or not len(wave):
            return wave
        self._first = wave[:1].copy() if not len(self._first) else self._first
        out = self._soxr.resample_chunk(np.ascontiguousarray(wave))
        self._given += len(out)
        return out

    def close(self) -> np.ndarray:
        """The samples that the resampler still holds."""
        if self._soxr is None or not self.samples:
            return _NONE
        out = self._soxr.resample_chunk(_NONE, last=True)
        # as audio.resample: soxr makes no sample of one or two at a high rate
        return out if self._given + len(out) else self._first

    def _mono(self, samples) -> np.ndarray:
        wave = waves.array(samples, "samples")
        if wave.ndim not in (1, 2) or wave.dtype.kind not in "fi":
            raise AsjaxError(
                "samples of a stream must be float or signed integer [n] or [n, channels], got "
                f"{wave.dtype} {list(wave.shape)}"
            )
        if wave.ndim == 2 and not 1 <= wave.shape[1] <= sound.MAX_CHANNELS:
            raise AsjaxError(
                f"samples of a stream must have 1 to {sound.MAX_CHANNELS} channels in the second "
                f"axis, got {list(wave.shape)}"
            )
        scale = -float(np.iinfo(wave.dtype).min) if wave.dtype.kind == "i" else 1.0
        with np.errstate(over="ignore"):
            wave = (wave / scale if scale != 1 else wave).astype(np.float32)
        wave, bad = sound.sanitise(wave)
        if bad and not self.not_finite:
            warn("the stream has values that are NaN or infinite; they count as 0")
        self.not_finite += bad
        if not self.loud and wave.size and float(np.abs(wave).max()) > waves.TOO_LOUD:
            self.loud = True
            warn(
                f"the stream has values up to {quoted(float(np.abs(wave).max()))}, but the full "
                "scale is 1; is its format right?"
            )
        return wave.mean(axis=1) if wave.ndim == 2 else wave


class Ring:
    """The last `size` samples of a stream. Its memory is fixed: three times `size`."""

    def __init__(self, size: int):
        self.size, self.total = size, 0  # `total`: samples so far
        self._held, self._n = np.zeros(3 * size, np.float32), 0

    def extend(self, wave: np.ndarray) -> None:
        """Append at most `size` samples."""
        if self._n + len(wave) > len(self._held):
            self._held[: self.size] = self._held[self._n - self.size : self._n]
            self._n = self.size
        self._held[self._n : self._n + len(wave)] = wave
        self._n += len(wave)
        self.total += len(wave)

    def cut(self, start: int, end: int) -> np.ndarray:
        """A copy of samples start..end, counted from the stream's begin. Outside of the stream
        there are zeros. `start` must be among the last `size` samples, or below 0."""
        out, first = np.zeros(end - start, np.float32), self.total - self._n
        low, high = max(start, 0), min(end, self.total)
        if low < high:
            assert low >= first, (low, first)
            out[low - start : high - start] = self._held[low - first : high - first]
        return out


def pieces(wave: np.ndarray, size: int):
    """A wave in parts of at most `size` samples."""
    return (wave[i : i + size] for i in range(0, len(wave), size))

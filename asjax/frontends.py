"""Waveform [B, S] -> features [B, T, F]: pure, jit-able, float32 whatever the input dtype.

A frontend is a frozen dataclass, so it hashes, prints its fields and may be a static argument of
`jax.jit`; equal frontends share one compiled program. `build(name, **fields)` makes one by name:

    frontend = build("panns_logmel", sample_rate=16000, hop=320)
    feats = frontend(wave)                      # [B, 1 + S // hop, n_mels], dB
    frontend.sample_rate, frontend.n_mels, frontend.hop
"""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from asjax import config
from asjax.config import AsjaxError

_FLOOR = 1e-10  # smallest mel power: silence is -100 dB
_HIGHEST = lax.Precision.HIGHEST  # TF32 or bf16 passes would cost 40 dB of dynamic range


def to_float(wave):
    """Wave as float32: signed integers are divided by their full scale (int16: 32768), floats cast.

    Raises:
      AsjaxError: unsigned, boolean or complex samples, whose scale is not defined.
    """
    wave = jnp.asarray(wave)
    if jnp.issubdtype(wave.dtype, jnp.signedinteger):
        return wave.astype(jnp.float32) / (-float(jnp.iinfo(wave.dtype).min))
    if jnp.issubdtype(wave.dtype, jnp.floating):
        return wave.astype(jnp.float32)
    raise AsjaxError(f"wave must be float or signed integer (such as int16), got {wave.dtype}")


# ------------------------------------------------------------------------------ mel filters


def _hz_to_mel(hz):
    """Slaney's scale: linear below 1 kHz (200/3 Hz per mel), 27 mels per factor 6.4 above."""
    hz = np.asarray(hz, np.float64)
    high = 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4)
    return np.where(hz < 1000, hz * 3 / 200, high)


def _mel_to_hz(mel):
    mel = np.asarray(mel, np.float64)
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))


@functools.lru_cache(maxsize=64)
def mel_filters(sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float) -> np.ndarray:
    """Triangles on Slaney's mel scale, each of unit area in Hz: float32 [n_fft // 2 + 1, n_mels].

    The filters of librosa and of the PANNs and ConvNeXt checkpoints (`melW`). The array is cached
    and read-only.
    """
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)[:, None]  # Hz, exact for even n_fft
    if n_fft % 2:
        bins = np.arange(n_fft // 2 + 1)[:, None] * (sample_rate / n_fft)
    edges = _mel_to_hz(np.linspace(_hz_to_mel(fmin), _hz_to_mel(fmax), n_mels + 2))
    low, peak, high = edges[:-2], edges[1:-1], edges[2:]
    rise, fall = (bins - low) / (peak - low), (high - bins) / (high - peak)
    triangles = np.maximum(0, np.minimum(rise, fall)).astype(np.float32)
    # Rounded before and after the area factor, as the tables inside the checkpoints were.
    table = (triangles * (2 / (high - low))).astype(np.float32)
    table.setflags(write=False)
    return table


# -------------------------------------------------------------------------------- log-mel


@dataclasses.dataclass(frozen=True)
class PannsLogmel:
    """Log-mel spectrogram of PANNs and audio ConvNeXt, in dB with floor -100.

    Centred STFT with reflected ends, periodic Hann window, power, Slaney mel filters,
    `10 log10(max(mel, 1e-10))`; no clipping at the top. Make it with `panns_logmel`.

    A wave with fewer than `n_fft // 2 + 1` samples cannot be reflected; zeros are appended up to
    that length first. The number of frames is `1 + S // hop` of the original length.
    """

    sample_rate: int
    n_mels: int
    n_fft: int
    hop: int
    window: int
    fmin: float
    fmax: float

    @property
    def mel_filters(self) -> np.ndarray:
        """float32 [n_fft // 2 + 1, n_mels]."""
        return mel_filters(self.sample_rate, self.n_fft, self.n_mels, self.fmin, self.fmax)

    def power(self, wave):
        """Power spectrogram: wave [B, S] -> float32 [B, T, n_fft // 2 + 1]."""
        return _power(_checked(wave), self)

    def __call__(self, wave):
        """wave [B, S], float in [-1, 1] or signed integer -> float32 [B, T, n_mels] in dB.

        Raises:
          AsjaxError: the wave has not two axes, or an unsigned dtype.
        """
        return _logmel(_checked(wave), self)


def _checked(wave):
    if np.ndim(wave) != 2:
        raise AsjaxError(
            f"wave must be [B, S], got shape {tuple(np.shape(wave))}; use wave[None] for one clip"
        )
    return to_float(wave)


def _hann(window: int, n_fft: int) -> np.ndarray:
    """Periodic Hann of `window` samples in the middle of `n_fft` zeros, float32 [n_fft]."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    left = (n_fft - window) // 2
    return np.pad(hann, (left, n_fft - window - left)).astype(np.float32)


# XLA gathers the operand of an FFT on every device, so that each would transform the whole batch
# (measured: twice the time on two devices). The rule below keeps the clips where they are.
@custom_partitioning
def _rfft_by_clip(frames):
    return jnp.fft.rfft(frames)


def _partition(mesh, arg_shapes, result_shape):
    clips = next(iter(arg_shapes[0].sharding.spec), None)
    whole = NamedSharding(mesh, PartitionSpec(clips, None, None))
    return mesh, jnp.fft.rfft, whole, (whole,)


_rfft_by_clip.def_partition(
    partition=_partition, sharding_rule="b t n -> b t f", need_replication_factors=("n", "f")
)


@jax.custom_jvp
def _rfft(frames):
    """Real FFT of [B, T, n_fft] over the last axis, split over devices by clip."""
    return _rfft_by_clip(frames)


@_rfft.defjvp
def _rfft_jvp(primals, tangents):
    return _rfft(*primals), jnp.fft.rfft(*tangents)  # linear


@functools.partial(jax.jit, static_argnums=1)
def _power(wave, cfg: PannsLogmel):
    samples, half = wave.shape[1], cfg.n_fft // 2
    wave = jnp.pad(wave, ((0, 0), (0, max(0, half + 1 - samples))))
    wave = jnp.pad(wave, ((0, 0), (half, half)), mode="reflect")
    starts = jnp.arange(1 + samples // cfg.hop) * cfg.hop
    # One slice per frame: measured faster than gathering single samples.
    frame = functools.partial(lax.dynamic_slice_in_dim, slice_size=cfg.n_fft, axis=1)
    frames = jax.vmap(frame, in_axes=(None, 0), out_axes=1)(wave, starts)  # B, T, n_fft
    spectrum = _rfft(frames * _hann(cfg.window, cfg.n_fft)[None, None])
    return jnp.square(spectrum.real) + jnp.square(spectrum.imag)


@functools.partial(jax.jit, static_argnums=1)
def _logmel(wave, cfg: PannsLogmel):
    mel = jnp.matmul(_power(wave, cfg), cfg.mel_filters, precision=_HIGHEST)
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
) -> PannsLogmel:
    """Log-mel of PANNs; what is not given follows from the rate as in the published variants.

    Args:
      sample_rate: Hz. 32000, 16000 and 8000 give PANNs' 1024/320/14000, 512/160/8000 and
        256/80/4000 (n_fft / hop / fmax); other rates the same durations.
      n_mels: number of mel bands.
      n_fft: FFT length in samples (the power of two nearest to 32 ms).
      hop: samples between frames (10 ms).
      window: Hann window length in samples, at most n_fft (n_fft).
      fmin, fmax: lowest and highest frequency in Hz (50, and 14000 or the Nyquist frequency).

    Raises:
      AsjaxError: a value out of its range.

    Warns when bands are so narrow that some hold no FFT bin and would always read -100 dB.
    """
    rate = _integer("sample_rate", sample_rate, 100, 10**7)
    n_fft = 2 ** round(math.log2(0.032 * rate)) if n_fft is None else n_fft
    n_fft = _integer("n_fft", n_fft, 2, 2**20)
    window = _integer("window", n_fft if window is None else window, 2, n_fft)
    hop = _integer("hop", max(1, round(0.01 * rate)) if hop is None else hop, 1, 2**24)
    fmax = _real("fmax", min(14000, rate / 2) if fmax is None else fmax, 0, rate / 2)
    fmin = _real("fmin", fmin, 0, fmax)
    if fmin >= fmax:
        raise AsjaxError(f"fmin must be below fmax, got fmin={fmin:g}, fmax={fmax:g}")
    n_mels = _integer("n_mels", n_mels, 1, 2**16)
    frontend = PannsLogmel(rate, n_mels, n_fft, hop, window, fmin, fmax)
    empty = int((frontend.mel_filters.max(0) == 0).sum())
    if empty:
        warnings.warn(
            f"{empty} of {n_mels} mel bands hold no FFT bin and stay at -100 dB; "
            f"raise n_fft (window may stay {window}), lower n_mels or raise fmin",
            stacklevel=3,
        )
    return frontend


def _integer(name: str, value, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise AsjaxError(f"frontend {name} must be an integer, got {value!r}")
    if not low <= value <= high:
        raise AsjaxError(f"frontend {name} must be in {low}..{high}, got {value}")
    return int(value)


def _real(name: str, value, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise AsjaxError(f"frontend {name} must be a number, got {value!r}")
    if not low <= value <= high:
        raise AsjaxError(f"frontend {name} must be in {low:g}..{high:g} Hz, got {value:g}")
    return float(value)


# Name -> maker and its fields. At 16 kHz 224 bands need bins half as wide as PANNs' 512-point
# FFT has, so the 32 ms window is zero-padded to 1024 points.
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


def build(name: str, **fields):
    """The frontend called `name`, its fields overridden by `fields` (see `panns_logmel`).

    Raises:
      AsjaxError: unknown name or field (the known ones are listed), or a value out of range.
    """
    if name not in VARIANTS:
        raise config.unknown("frontend", name, VARIANTS)
    maker, defaults = VARIANTS[name]
    return config.call(maker, f"frontend {name}", **{**defaults, **fields})

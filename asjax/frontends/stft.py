"""Shared code of the frontends: checks, framing, the Fourier transform, mel filter banks."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, PartitionSpec

import asjax.frontends._factored as _factored
from asjax.config import AsjaxError
from asjax.nn import placement

HIGHEST = lax.Precision.HIGHEST  # TF32 or bf16 passes would cost 40 dB of dynamic range


# ------------------------------------------------------------------------------------ checks


def to_float(wave):
    """Convert a wave to float32; signed integers are divided by their full scale (int16: 32768).

    Raises:
      AsjaxError: the samples are unsigned, boolean or complex, so their scale is not defined.
    """
    wave = jnp.asarray(wave)
    if jnp.issubdtype(wave.dtype, jnp.signedinteger):
        return wave.astype(jnp.float32) / (-float(jnp.iinfo(wave.dtype).min))
    if jnp.issubdtype(wave.dtype, jnp.floating):
        return wave.astype(jnp.float32)
    raise AsjaxError(f"wave must be float or signed integer (such as int16), got {wave.dtype}")


def checked(wave):
    """`to_float` of a wave [B, S]; AsjaxError unless it has two axes."""
    if np.ndim(wave) != 2:
        raise AsjaxError(
            f"wave must be [B, S], got shape {tuple(np.shape(wave))}; use wave[None] for one clip"
        )
    return to_float(wave)


def integer(name: str, value, low: int, high: int) -> int:
    """`value` as an int in low..high; AsjaxError names the field."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise AsjaxError(f"frontend {name} must be an integer, got {value!r}")
    if not low <= value <= high:
        raise AsjaxError(f"frontend {name} must be in {low}..{high}, got {value}")
    return int(value)


def real(name: str, value, low: float, high: float, unit: str = "Hz") -> float:
    """`value` as a float in low..high `unit`; AsjaxError names the field."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise AsjaxError(f"frontend {name} must be a number, got {value!r}")
    if not low <= value <= high:
        raise AsjaxError(f"frontend {name} must be in {low:g}..{high:g} {unit}, got {value:g}")
    return float(value)


def boolean(name: str, value) -> bool:
    """`value` if it is True or False; AsjaxError names the field."""
    if not isinstance(value, (bool, np.bool_)):
        raise AsjaxError(f"frontend {name} must be True or False, got {value!r}")
    return bool(value)


def constants(mean, std, divide) -> dict[str, float]:
    """Check and return the fields of a normalisation `(x - mean) / (divide * std)`."""
    return dict(
        mean=real("mean", mean, -1e6, 1e6, "log units"),
        std=real("std", std, 1e-6, 1e6, "log units"),
        divide=real("divide", divide, 1e-6, 1e6, "standard deviations"),
    )


# ------------------------------------------------------------------------------------- spectra


def hann(window: int, n_fft: int | None = None, *, periodic: bool = True) -> np.ndarray:
    """Hann window of `window` samples, zero-padded on both sides to float32 [n_fft]."""
    n_fft = window if n_fft is None else n_fft
    period = window if periodic else window - 1
    shape = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / period)
    left = (n_fft - window) // 2
    return np.pad(shape, (left, n_fft - window - left)).astype(np.float32)


def frame(wave, size: int, hop: int, count: int):
    """[B, S] -> [B, count, size]; frame t starts at sample t * hop. All frames must lie inside."""
    if placement.in_graph():
        return _factored.frame(wave, size, hop, count)
    starts = jnp.arange(count) * hop
    # One slice per frame is faster than gathering single samples (measured).
    cut = functools.partial(lax.dynamic_slice_in_dim, slice_size=size, axis=1)
    return jax.vmap(cut, in_axes=(None, 0), out_axes=1)(wave, starts)


def fit_frames(feats, count: int | None):
    """Cut [B, T, F] to `count` frames, or pad it with zeros at the end; None changes nothing."""
    if count is None:
        return feats
    if placement.in_graph():  # the number of frames may be symbolic
        return jnp.pad(feats, ((0, 0), (0, count), (0, 0)))[:, :count]
    return jnp.pad(feats[:, :count], ((0, 0), (0, max(0, count - feats.shape[1])), (0, 0)))


def power(frames, n_fft: int | None = None):
    """Power spectrum of frames [B, T, N], zero-padded to n_fft: [B, T, n_fft // 2 + 1].

    On CPU we use an FFT. On accelerators we use two matrix products with the DFT matrix, because
    they shard and compile everywhere. If the matrices would be large, we use the FFT there too.
    """
    n_fft = n_fft or frames.shape[-1]
    if placement.on_cpu(frames) or frames.shape[-1] * n_fft > _LARGEST_DFT:
        return _by_clip(functools.partial(_fft_power, n_fft=n_fft), frames)
    cosines, sines = _dft(frames.shape[-1], n_fft)
    real = jnp.matmul(frames, cosines, precision=HIGHEST)
    return jnp.square(real) + jnp.square(jnp.matmul(frames, sines, precision=HIGHEST))


_LARGEST_DFT = 2**22  # samples x n_fft: two matrices of 8 MB each


def _fft_power(frames, n_fft: int):
    spectrum = jnp.fft.rfft(frames, n_fft)
    return jnp.square(spectrum.real) + jnp.square(spectrum.imag)


def _by_clip(function, frames):
    """Apply `function` to frames [B, T, N]; each device computes only its own clips.

    Without this, XLA on CPU and GPU gathers the operand of an FFT, so every device transforms the
    whole batch. That takes twice the time on two devices.
    """
    mesh = placement.mesh(frames)
    automatic = all(kind == AxisType.Auto for kind in mesh.axis_types)
    if mesh.size <= 1 or not automatic or frames.shape[0] % mesh.size:
        return function(frames)
    rows = PartitionSpec(mesh.axis_names)
    return jax.shard_map(function, mesh=mesh, in_specs=rows, out_specs=rows)(frames)


@functools.lru_cache(maxsize=8)
def _dft(samples: int, n_fft: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of 2 pi t k / n_fft for t < samples, k <= n_fft // 2: float32, read-only."""
    turns = np.outer(np.arange(samples), np.arange(n_fft // 2 + 1)) % n_fft  # integers: exact
    angles = 2 * np.pi * turns / n_fft
    tables = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    for table in tables:
        table.setflags(write=False)
    return tables


def mel_of_frames(frames, n_fft: int, filters):
    """Mel energies of windowed frames [B, T, N] -> [B, T, n_mels]; filters [bins, n_mels]."""
    if placement.in_graph():
        return _factored.mel_of_frames(frames, n_fft, filters)
    return jnp.matmul(power(frames, n_fft), filters, precision=HIGHEST)


def centred_mel(wave, window: np.ndarray, hop: int, filters, *, pad: str = "reflect"):
    """`centred_power` times filters [n_fft // 2 + 1, n_mels]: [B, 1 + S // hop, n_mels]."""
    if placement.in_graph():
        extended = _extended(wave, len(window) // 2, pad)
        return _factored.mel(extended, window, hop, 1 + wave.shape[1] // hop, filters)
    return jnp.matmul(centred_power(wave, window, hop, pad=pad), filters, precision=HIGHEST)


def _extended(wave, half: int, pad: str):
    """Extend the ends by `half` samples, by reflection or by zeros (`pad="constant"`).

    A wave too short to be reflected is first extended with zeros.
    """
    samples = wave.shape[1]
    if pad == "reflect":
        wave = jnp.pad(wave, ((0, 0), (0, max(0, half + 1 - samples))))
    wave = jnp.pad(wave, ((0, 0), (half, half)), mode=pad)
    return wave


def centred_power(wave, window: np.ndarray, hop: int, *, pad: str = "reflect"):
    """Power spectrogram of centred frames: wave [B, S] -> [B, 1 + S // hop, n_fft // 2 + 1].

    `window` is [n_fft]. See `_extended` for the ends.
    """
    n_fft, samples = len(window), wave.shape[1]
    wave = _extended(wave, n_fft // 2, pad)
    if not placement.on_cpu(wave):  # skip the window's zeros; a shift does not change the power
        inside = np.flatnonzero(window)
        first, last = (inside[0], inside[-1] + 1) if inside.size else (0, n_fft)
        wave, window = wave[:, first:], window[first:last]
    frames = frame(wave, len(window), hop, 1 + samples // hop)
    return power(frames * window[None, None], n_fft)


def trailing(wave, window: np.ndarray, hop: int):
    """Windowed frames that look at no later sample: [B, S] -> [B, S // hop, n_fft].

    Frame t ends with sample (t + 1) hop - 1. Before the wave there are zeros. `window` is [n_fft].
    """
    n_fft, count = len(window), wave.shape[1] // hop
    wave = jnp.pad(wave, ((0, 0), (max(0, n_fft - hop), 0)))[:, max(0, hop - n_fft) :]
    return frame(wave, n_fft, hop, count) * window[None, None]


# ---------------------------------------------------------------------------------- mel filters


def _slaney_mel(hz):
    """Slaney's scale: linear below 1 kHz (200/3 Hz per mel), 27 mels per factor 6.4 above."""
    hz = np.asarray(hz, np.float64)
    high = 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4)
    return np.where(hz < 1000, hz * 3 / 200, high)


def _slaney_hz(mel):
    mel = np.asarray(mel, np.float64)
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))


@functools.lru_cache(maxsize=64)
def slaney_filters(
    sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float
) -> np.ndarray:
    """Triangles of unit area in Hz on Slaney's mel scale: float32 [n_fft // 2 + 1, n_mels].

    librosa and the PANNs and ConvNeXt checkpoints (`melW`) have the same filters. The array is
    cached and read-only.
    """
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)[:, None]  # Hz, exact for even n_fft
    if n_fft % 2:
        bins = np.arange(n_fft // 2 + 1)[:, None] * (sample_rate / n_fft)
    edges = _slaney_hz(np.linspace(_slaney_mel(fmin), _slaney_mel(fmax), n_mels + 2))
    low, peak, high = edges[:-2], edges[1:-1], edges[2:]
    rise, fall = (bins - low) / (peak - low), (high - bins) / (high - peak)
    triangles = np.maximum(0, np.minimum(rise, fall)).astype(np.float32)
    # Round before and after the area factor, like the tables in the checkpoints.
    table = (triangles * (2 / (high - low))).astype(np.float32)
    table.setflags(write=False)
    return table


@functools.lru_cache(maxsize=64)
def torchaudio_slaney_filters(
    sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float
) -> np.ndarray:
    """`slaney_filters` with the float32 rounding errors of torchaudio's `melscale_fbanks`.

    They are visible: 2.3e-6 relative at 64 bins of 4096 points. The array is cached and read-only.
    """
    f32 = np.float32
    bins = _torch_linspace(0, sample_rate // 2, n_fft // 2 + 1)[:, None]
    mel = _torch_linspace(_slaney_mel(fmin), _slaney_mel(fmax), n_mels + 2)
    log = f32(np.log(6.4) / 27) * (mel - f32(15))
    high = f32(1000) * np.exp(log.astype(np.float64)).astype(f32)
    hz = np.where(mel < 15, f32(200 / 3) * mel, high)
    width = hz[1:] - hz[:-1]
    rise, fall = (bins - hz[:-2]) / width[:-1], (hz[2:] - bins) / width[1:]
    table = np.maximum(0, np.minimum(rise, fall)) * (f32(2) / (hz[2:] - hz[:-2]))
    table.setflags(write=False)
    return table


def _torch_linspace(low, high, count: int) -> np.ndarray:
    """float32 torch.linspace: it counts from both ends to the middle and rounds each point once."""
    low, high = np.float32(low), np.float32(high)
    step, i = np.float64((high - low) / np.float32(count - 1)), np.arange(count)
    points = np.where(i < count // 2, low + step * i, high - step * (count - 1 - i))
    return points.astype(np.float32)


def kaldi_mel(hz):
    """Kaldi's mel scale, 1127 ln(1 + Hz / 700), for a number, a numpy array or a JAX array."""
    return 1127 * (jnp if isinstance(hz, jax.Array) else np).log(1 + hz / 700)


def kaldi_triangles(sample_rate: int, n_fft: int, n_mels: int, low, high):
    """Kaldi's filters between two mels: float32 [n_fft // 2 + 1, n_mels], peaks of height 1.

    The triangles are linear in mels, not in Hz. The last row, at the Nyquist frequency, is zero.
    `low` and `high` are in mels. They are Python floats, or traced values for filters that change
    within a compiled program. All operations are in float32 and in the order of torchaudio's
    `get_mel_banks`, because its rounding errors are visible (1.3e-5 at 128 bins of 32 kHz).
    """
    xp = jnp if isinstance(low, jax.Array) or isinstance(high, jax.Array) else np
    hz = np.arange(n_fft // 2, dtype=np.float32) * np.float32(sample_rate / n_fft)
    inner = np.float32(1) + hz / np.float32(700)
    mel = (np.float32(1127) * np.log(inner.astype(np.float64)).astype(np.float32))[:, None]
    step = xp.asarray((high - low) / (n_mels + 1), np.float32)
    low = xp.asarray(low, np.float32)
    band = np.arange(n_mels, dtype=np.float32)[None]
    left, peak, right = (low + (band + np.float32(i)) * step for i in range(3))
    filters = xp.minimum((mel - left) / (peak - left), (right - mel) / (right - peak))
    return xp.pad(xp.maximum(filters, np.float32(0)), ((0, 1), (0, 0)))


@functools.lru_cache(maxsize=64)
def kaldi_filters(
    sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float
) -> np.ndarray:
    """`kaldi_triangles` from fmin to fmax in Hz; the numpy array is cached and read-only."""
    table = kaldi_triangles(sample_rate, n_fft, n_mels, kaldi_mel(fmin), kaldi_mel(fmax))
    table.setflags(write=False)
    return table

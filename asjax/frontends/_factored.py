"""Mel energies by a discrete Fourier transform in two stages of small products, without an FFT.

A file of operations (ONNX) has no fast FFT, and a product with the whole DFT matrix is most of the
work of a small model. With n_fft = R C, sample n = C r + c and bin k = q + R p (Cooley and Tukey
1965), each column c is first transformed over r. Its matrix holds the window and the twiddle
factors. Then one matrix, the same for every q, transforms over c. The wave is real, so q runs to
R // 2 only: the other bins have the power of their mirror images. 1024 points take a tenth of the
operations of the whole matrix.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax

HIGHEST = lax.Precision.HIGHEST


def frame(wave, size: int, hop: int, count):
    """As `stft.frame`, by a few long slices: frames are joined from pieces of `hop` samples."""
    pieces = -(-size // hop)
    wave = _fitted(wave, (count + pieces - 1) * hop, pieces * hop)
    blocks = wave.reshape(wave.shape[0], count + pieces - 1, hop)
    parts = [lax.slice_in_dim(blocks, i, i + count, axis=1) for i in range(pieces)]
    return jnp.concatenate(parts, 2)[:, :, :size]


def mel(wave, window: np.ndarray, hop: int, count, filters: np.ndarray):
    """wave [B, S] -> [B, count, n_mels]; frame t begins at sample t * hop. window: [n_fft].

    Where a factor of n_fft divides the hop, the first stage is one strided convolution over the
    wave, so that no frames are stored.
    """
    n_fft, inside = len(window), np.flatnonzero(window)
    first, last = (inside[0], inside[-1] + 1) if inside.size else (0, n_fft)
    wave, window = wave[:, first:], window[first:last]
    columns = _columns(len(window), n_fft, hop)
    if columns is None:
        return mel_of_frames(frame(wave, len(window), hop, count), n_fft, filters, window)
    first, second, bins = _stages(len(window), n_fft, columns, window.tobytes())
    rows, half = first.shape[1], first.shape[2] // 2
    step = hop // columns
    length = (count - 1) * step + rows
    wave = _fitted(wave, length * columns, n_fft)
    wave = wave.reshape(wave.shape[0], length, columns).swapaxes(1, 2)  # [B, C, S / C]
    kernel = first.transpose(0, 2, 1).reshape(-1, 1, rows)  # [C 2 Q, 1, R]
    y = lax.conv_general_dilated(
        wave, kernel, (step,), "VALID", dimension_numbers=("NCH", "OIH", "NCH"),
        feature_group_count=columns, precision=HIGHEST,
    )  # fmt: skip
    y = y.reshape(y.shape[0], columns, half, 2, count).transpose(0, 2, 3, 1, 4)
    y = y.reshape(y.shape[0], half, 2 * columns, count)
    y = jnp.square(jnp.matmul(second.T[None, None], y, precision=HIGHEST))  # [B, Q, 2 C, T]
    power = y[:, :, :columns] + y[:, :, columns:]
    power = power.reshape(power.shape[0], half * columns, count)
    table = _sorted_filters(filters, bins, n_fft)
    return jnp.matmul(table.T[None], power, precision=HIGHEST).swapaxes(1, 2)


def mel_of_frames(frames, n_fft: int, filters: np.ndarray, window: np.ndarray | None = None):
    """frames [B, T, N], zero-padded to n_fft -> [B, T, n_mels]. window: [N], or None for ones."""
    clips, count, size = frames.shape
    window = np.ones(size, np.float32) if window is None else window
    columns = _columns(size, n_fft, 0)
    first, second, bins = _stages(size, n_fft, columns, window.tobytes())
    rows, half = first.shape[1], first.shape[2] // 2
    if rows * columns > size:
        frames = jnp.pad(frames, ((0, 0), (0, 0), (0, rows * columns - size)))
    x = frames.reshape(clips * count, rows, columns).transpose(2, 0, 1)  # [C, B T, R]
    y = jnp.matmul(x, first, precision=HIGHEST)  # [C, B T, 2 Q]
    y = y.reshape(columns, clips * count * half * 2).swapaxes(0, 1)
    y = y.reshape(clips * count, half, 2 * columns)
    y = jnp.square(jnp.matmul(y, second, precision=HIGHEST))
    power = (y[..., :columns] + y[..., columns:]).reshape(clips, count, half * columns)
    return jnp.matmul(power, _sorted_filters(filters, bins, n_fft), precision=HIGHEST)


def _fitted(wave, size, more: int):
    """The first `size` samples of a wave that has at least `size` - `more`; then zeros."""
    return jnp.pad(wave, ((0, 0), (0, more)))[:, :size]


@functools.lru_cache(maxsize=32)
def _columns(samples: int, n_fft: int, hop: int) -> int | None:
    """C with the fewest operations; with a hop, C divides it, and None means: none is good."""

    def work(columns):
        half = n_fft // columns // 2 + 1
        return half * (columns * -(-samples // columns) + 2 * columns * columns)

    every = [c for c in range(1, n_fft + 1) if n_fft % c == 0]
    best = min(every, key=work)
    if not hop:
        return best
    near = min((c for c in every if hop % c == 0), key=work)
    return near if near > 1 and work(near) <= 2 * work(best) else None


@functools.lru_cache(maxsize=8)
def _stages(samples: int, n_fft: int, columns: int, window: bytes):
    """(first [C, R', 2 Q], second [2 C, 2 C], bins [Q C]): float32 tables and the bin k of each
    output; R' is the number of rows with samples.

    The first has the columns (q, real or imaginary), the second the rows (real or imaginary, c).
    """
    lines = n_fft // columns
    used, half = -(-samples // columns), lines // 2 + 1
    taper = np.zeros(used * columns)
    taper[:samples] = np.frombuffer(window, np.float32)
    r, c, q, p = np.arange(used), np.arange(columns), np.arange(half), np.arange(columns)
    # Integers modulo n_fft are exact: e^(-2 pi i (C r + c) q / n_fft)
    turns = ((columns * r[None, :, None] + c[:, None, None]) * q) % n_fft
    table = taper.reshape(used, columns).T[:, :, None] * np.exp(-2j * np.pi / n_fft * turns)
    first = np.stack([table.real, table.imag], -1).reshape(columns, used, 2 * half)
    spin = np.exp(-2j * np.pi / columns * (np.outer(c, p) % columns))
    second = np.block([[spin.real, spin.imag], [-spin.imag, spin.real]])
    bins = (q[:, None] + lines * p).reshape(-1)
    return first.astype(np.float32), second.astype(np.float32), bins


def _sorted_filters(filters: np.ndarray, bins: np.ndarray, n_fft: int) -> np.ndarray:
    """The row of `filters` [n_fft // 2 + 1, n_mels] for each bin. A bin that occurs twice, itself
    or as its mirror image, counts once."""
    mirrored = np.minimum(bins, n_fft - bins)
    _, once = np.unique(mirrored, return_index=True)
    table = np.zeros((len(bins), filters.shape[1]), np.float32)
    table[once] = np.asarray(filters)[mirrored[once]]
    return table

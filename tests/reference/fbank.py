"""Kaldi's filter bank and ATDR's log-mel in plain float64 numpy, frame by frame."""

import numpy as np


def kaldi(row, f):
    """row [S] and a KaldiFbank with the settings -> float64 [T, n_mels], raw."""
    row = np.asarray(row, np.float64) * (2**15 if f.scale_int16 else 1)
    row = row - row.mean() if f.remove_mean else row
    row = np.concatenate([row, np.zeros(max(0, f.window - row.size))])
    n = np.arange(f.window)
    window = np.sin(np.pi * n / (f.window - 1)) ** (2 if f.window_type == "hann" else 1.7)
    size = 2 ** int(np.ceil(np.log2(f.window)))
    table = mel_triangles(f, size)
    out, start = [], 0
    while start + f.window <= row.size:
        x = row[start : start + f.window]
        x = x - x.mean()
        x = np.array([x[i] - 0.97 * x[max(i - 1, 0)] for i in n]) * window
        energy = np.abs(np.fft.rfft(x, size)) ** 2 @ table
        out.append(np.log(np.maximum(energy, 2.0**-23)))
        start += f.hop
    return np.array(out)


def mel_triangles(f, size):
    """float64 [size // 2 + 1, n_mels]; zero at the Nyquist frequency."""
    mel = lambda hz: 1127 * np.log(1 + hz / 700)  # noqa: E731
    low, high = mel(f.fmin), mel(f.fmax)
    step = (high - low) / (f.n_mels + 1)
    table = np.zeros((size // 2 + 1, f.n_mels))
    for k in range(size // 2):
        at = mel(k * f.sample_rate / size)
        for band in range(f.n_mels):
            table[k, band] = max(0, 1 - abs(at - low - (band + 1) * step) / step)
    return table


def atdr(row, f):
    """row [S] and an AtdrLogmel with the settings -> float64 [1 + S // hop, n_mels], raw."""
    row = np.asarray(row, np.float64)
    row = row - row.mean() if f.remove_mean else row
    frames = 1 + row.size // f.hop
    row = np.concatenate([np.zeros(f.n_fft // 2), row, np.zeros(f.n_fft)])
    window, left = np.zeros(f.n_fft), (f.n_fft - f.window) // 2
    window[left : left + f.window] = np.sin(np.pi * np.arange(f.window) / f.window) ** 2
    table = f.mel_filters.astype(np.float64)
    out = []
    for t in range(frames):
        x = row[t * f.hop : t * f.hop + f.n_fft] * window
        power = np.abs(np.fft.rfft(x)) ** 2 @ table
        out.append(f.db_multiplier * np.log10(np.maximum(power, 1e-10)))
    return np.array(out)

"""Log-mel in plain float64 numpy, frame by frame."""

import numpy as np


def logmel(wave, frontend):
    """wave [B, S] and a frontend with the settings -> float64 [B, T, n_mels] in dB."""
    return np.stack([_one(np.asarray(row, np.float64), frontend) for row in wave])


def _one(row, f):
    frames, half = 1 + row.size // f.hop, f.n_fft // 2
    row = np.concatenate([row, np.zeros(max(0, half + 1 - row.size))])
    row = np.concatenate([row[half:0:-1], row, row[-2 : -half - 2 : -1]])
    window = np.zeros(f.n_fft)
    left = (f.n_fft - f.window) // 2
    for n in range(f.window):
        window[left + n] = np.sin(np.pi * n / f.window) ** 2
    table = f.mel_filters.astype(np.float64)
    out = []
    for t in range(frames):
        spectrum = np.fft.rfft(row[t * f.hop : t * f.hop + f.n_fft] * window)
        out.append(10 * np.log10(np.maximum((np.abs(spectrum) ** 2) @ table, 1e-10)))
    return np.array(out)

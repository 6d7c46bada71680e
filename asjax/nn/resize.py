"""Resize a row like torch: matrices [new, old] that multiply the old row."""

from __future__ import annotations

import numpy as np


def bicubic(old: int, new: int) -> np.ndarray:
    """float64 [new, old]: torch's bicubic resizing of a row (align_corners False, no antialias).

    It uses Keys' kernel with a = -0.75 on four neighbours. The end values are repeated.
    """
    at = (np.arange(new) + 0.5) * (old / new) - 0.5
    matrix, a = np.zeros((new, old)), -0.75
    for tap in (-1, 0, 1, 2):
        source = np.floor(at) + tap
        d = np.abs(at - source)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * (d**3 - 5 * d**2 + 8 * d - 4)
        column = np.clip(source, 0, old - 1).astype(int)
        np.add.at(matrix, (np.arange(new), column), np.where(d <= 1, near, far))
    return matrix


def linear(old: int, new: int) -> np.ndarray:
    """float32 [new, old]: torch's linear interpolation (align_corners False).

    The positions are rounded to float32 as in torch: once after multiplication and subtraction. The
    rounding is visible, 7e-6 at 248 -> 250.
    """
    f32, row = np.float32, np.arange(new)
    at = np.float64(f32(old) / f32(new)) * (row + 0.5) - 0.5
    at = np.maximum(at.astype(f32), f32(0))
    left = np.minimum(at.astype(int), old - 1)
    matrix, share = np.zeros((new, old), f32), at - left.astype(f32)
    np.add.at(matrix, (row, left), f32(1) - share)
    np.add.at(matrix, (row, np.minimum(left + 1, old - 1)), share)
    return matrix


def average(old: int, new: int) -> np.ndarray:
    """float64 [new, old]: torch's adaptive average pooling.

    New element i is the mean of the old elements i * old // new ... ceil((i + 1) * old / new) - 1.
    """
    row, at = np.arange(new)[:, None], np.arange(old)[None]
    inside = (at >= row * old // new) & (at < -(-(row + 1) * old // new))
    return inside / inside.sum(1, keepdims=True)

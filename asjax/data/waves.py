"""Waves in memory from other toolkits: tensors, batches, other number ranges."""

from __future__ import annotations

import numpy as np

from asjax.config import AsjaxError, quoted, warn

TOO_LOUD = 4.0  # times full scale; a float wave above this probably has int16's range


def array(wave, name: str = "wave") -> np.ndarray:
    """A wave as a numpy array, from torch (any device, with gradients, bfloat16), jax, or numbers.

    Raises:
      AsjaxError: it cannot be converted to an array of numbers.
    """
    try:
        if hasattr(wave, "detach"):  # a torch tensor, without importing torch
            wave = wave.detach().cpu()
            wave = wave.float() if "bfloat16" in str(wave.dtype) else wave
        elif not hasattr(wave, "dtype") and hasattr(wave, "numpy"):
            wave = wave.numpy()
        wave = np.asarray(wave)
        # numpy's kind of bfloat16 and of the 8-bit floats of ml_dtypes is "V".
        return wave.astype(np.float32) if wave.dtype.kind == "V" else wave
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(wave).__name__
        reason = quoted(str(error).partition("\n")[0], 150)
        raise AsjaxError(f"{name}: {kind} cannot be read as an array: {reason}") from None


def rows(source, name: str = "wave") -> list[tuple]:
    """`(batch [B, S] or [B, channels, S], rate)` -> a list of `(wave, rate)`, one per row.

    Raises:
      AsjaxError: `source` is not such a pair.
    """
    if not isinstance(source, tuple) or len(source) != 2:
        raise AsjaxError(f"batch=True needs a pair (waves [B, S], sample_rate), got {name}")
    waves, rate = array(source[0], name), source[1]
    if waves.ndim not in (2, 3):
        raise AsjaxError(f"batch=True takes waves [B, S], got {list(waves.shape)}")
    return [(wave, rate) for wave in waves]


def check(wave: np.ndarray, name: str = "wave", *, batch: bool | None = None) -> None:
    """Warn about a wave with an axis or a number range that is probably a mistake.

    Args:
      wave: [S], [channels, S] or [S, channels].
      batch: False: no warning if the first axis is the shorter one; it is the channels.
    """
    if wave.ndim == 2 and 1 < wave.shape[0] < wave.shape[1] and batch is None:
        warn(
            f"{name}: {list(wave.shape)} is taken as one recording of {wave.shape[0]} channels, "
            f"which are averaged; set batch=True for {wave.shape[0]} recordings, or batch=False "
            "for channels"
        )
    if not wave.size or wave.dtype.kind not in "fi":
        return
    with np.errstate(invalid="ignore"):
        peak = max(float(np.nanmax(wave, initial=0)), -float(np.nanmin(wave, initial=0)))
    if wave.dtype.kind == "f" and TOO_LOUD < peak < np.inf:
        warn(
            f"{name}: values up to {peak:,.6g} in a float array, but the full scale is 1; give "
            "16-bit numbers as an integer array, or divide them by 32768"
        )
    if wave.dtype.kind == "i" and wave.dtype.itemsize > 2 and 0 < peak <= 2**23:
        bits = 16 if peak <= 2**15 else 24
        warn(
            f"{name}: {wave.dtype} with values up to {peak:,.0f} is almost silence, because its "
            f"full scale is {-np.iinfo(wave.dtype).min:,}; if they are {bits}-bit numbers, divide "
            f"them by {2 ** (bits - 1)}"
        )

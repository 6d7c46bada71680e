"""What streams share: checks of their lengths, and how long a result takes."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from numbers import Real

import numpy as np

from asjax.config import AsjaxError, quoted

_CALLS = 32  # whose time counts


class Clock:
    """The longest of the last calls of the model, in seconds."""

    def __init__(self):
        self._spent = deque(maxlen=_CALLS)

    @contextlib.contextmanager
    def timed(self):
        begin = time.perf_counter()
        yield
        self._spent.append(time.perf_counter() - begin)

    @property
    def compute_s(self) -> float:
        return max(self._spent, default=0.0)


def seconds(name: str, value, low: float, high: float, why: str = "") -> float:
    """`value` as a float in low..high seconds; AsjaxError names it."""
    if isinstance(value, bool) or not isinstance(value, Real) or not np.isfinite(value):
        raise AsjaxError(f"{name} must be a number of seconds, got {quoted(value)}")
    if not low <= value <= high:
        raise AsjaxError(f"{name} must be {low:g} to {high:g} s, got {value:g}{why}")
    return float(value)


def check_tagger(tagger) -> None:
    """AsjaxError: a path or another thing that is no tagger."""
    if not callable(tagger) or not hasattr(tagger, "clip_s"):
        raise AsjaxError(f"a stream needs a tagger, such as asjax.load(path), got {quoted(tagger)}")


def check_open(closed: bool) -> None:
    if closed:
        raise AsjaxError("this stream is closed; make a new one for more sound")


def windowed(tagger, window_s: float, **settings):
    """A tagger of windows of `window_s` seconds. AsjaxError: this one has one length only."""
    make = getattr(tagger, "windowed", None)
    if make is not None:
        return make(window_s, **settings)
    if abs(tagger.clip_s - window_s) > 1e-6:
        raise AsjaxError(
            f"this tagger hears windows of {tagger.clip_s:g} s only; give that as window_s, got "
            f"{window_s:g}"
        )
    return tagger

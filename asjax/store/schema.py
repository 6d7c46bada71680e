"""Checks of small JSON files: types and ranges, before anything is used.

A *check* is a function of a value. It returns None, or a `Trouble` with the place and the rule that
is broken. `read_json` reads a file and limits its size and depth. `require` then checks its value.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from asjax.config import AsjaxError, quoted

MAX_BYTES = 64 << 20


class Trouble(NamedTuple):
    """A fault in a value: the path of keys and indices to it, and the reason."""

    path: tuple
    why: str

    def __str__(self):
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{_key(p)}" for p in self.path)
        return f"{place.removeprefix('.')} {self.why}".strip()


def _key(key: str) -> str:
    return key if re.fullmatch(r"[\w-]{1,60}", key) else quoted(key)


Check = Callable[[object], Trouble | None]


# ------------------------------------------------------------------------------------- reading


def parse_json(text: str | bytes):
    """The value of a JSON text.

    Raises:
      ValueError: every fault, also too deep nesting, and a field that occurs twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_fields)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _fields(pairs) -> dict:
    """The fields of an object, each once. Otherwise the last one would win without a word."""
    out = dict(pairs)
    if len(out) < len(pairs):
        seen: set = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"its field {name[:100]!r} occurs twice")
    return out


def read_json(path, max_bytes: int = MAX_BYTES):
    """The value in a JSON file.

    Raises:
      AsjaxError: no such file, more than `max_bytes`, or not JSON.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a FIFO would wait for ever
            raise ValueError("it is no regular file")
        size = status.st_size
        if size > max_bytes:
            raise ValueError(f"it has {size:,} bytes, the limit is {max_bytes:,}")
        return parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AsjaxError(f"{path} cannot be read: {reason}") from None


def require(value, check: Check, where) -> None:
    """Raise AsjaxError if `value` fails a check. The message names the field and the rule."""
    trouble = check(value)
    if trouble:
        raise AsjaxError(f"{where}: {trouble}")


# -------------------------------------------------------------------------------------- checks


def _must(wanted: str, value) -> Trouble:
    return Trouble((), f"must be {wanted}, got {quoted(value)}")


def _first(pairs) -> Trouble | None:
    """The first trouble of (key, trouble or None) pairs; its path then begins with the key."""
    return next((Trouble((key, *bad.path), bad.why) for key, bad in pairs if bad), None)


def integer(low: int, high: int) -> Check:
    """An integer from `low` to `high`; a bool or float fails."""

    def check(value):
        fits = type(value) is int and low <= value <= high
        return None if fits else _must(f"an integer from {low:,} to {high:,}", value)

    return check


def number(low: float, high: float) -> Check:
    """A finite number above `low` and up to `high`."""

    def check(value):
        fits = type(value) in (int, float) and low < value <= high  # NaN fails every comparison
        return None if fits else _must(f"a number above {low:g} and up to {high:g}", value)

    return check


def text(pattern: str = ".*", most: int = 10_000, wanted: str = "a text") -> Check:
    """A text that matches `pattern` as a whole."""

    def check(value):
        fits = isinstance(value, str) and len(value) <= most
        fits = fits and re.fullmatch(pattern, value, re.DOTALL) is not None
        return None if fits else _must(wanted, value)

    return check


def boolean(value):
    """True or false."""
    return None if isinstance(value, bool) else _must("true or false", value)


def optional(check: Check) -> Check:
    """null, or a value that passes `check`."""
    return lambda value: None if value is None else check(value)


def list_of(check: Check, most: int = 1_000_000) -> Check:
    """A list of at most `most` items that all pass `check`."""

    def run(value):
        if not isinstance(value, list) or len(value) > most:
            return _must(f"a list of at most {most:,}", value)
        return _first((i, check(item)) for i, item in enumerate(value))

    return run


def mapping(needed: dict[str, Check], known: dict[str, Check] | None = None, others=None) -> Check:
    """An object: all fields in `needed`, perhaps fields in `known`; others must pass `others`."""
    fields = {**(known or {}), **needed}

    def check(value):
        if not isinstance(value, dict):
            return _must("an object {...}", value)
        for key in needed:
            if key not in value:
                return Trouble((), f"needs the field {key!r}")
        return _first((key, fields.get(key, others or plain)(item)) for key, item in value.items())

    return check


def plain(value, finite: bool = True, most: int = 2**63, length: int = 10**7):
    """JSON of at most 20 levels: finite numbers, integers up to `most`, lists up to `length`."""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > 20:
            return Trouble((), "is nested too deep")
        if finite and isinstance(item, float) and not math.isfinite(item):
            return _must("finite", item)
        if isinstance(item, int if not finite else (int, float)) and abs(item) > most:
            return _must(f"a number of at most {most:,}", item)
        if isinstance(item, (dict, list)):
            if len(item) > length:
                return _must(f"of at most {length:,} items", item)
            below = item.values() if isinstance(item, dict) else item
            waiting += [(one, depth + 1) for one in below]
    return None


def loose(value):
    """As `plain`, but NaN and infinity pass too, because a score may be undefined."""
    return plain(value, finite=False)


def sized(most: int) -> Check:
    """As `plain`, for sizes of models and features: numbers up to `most`, lists up to 1,000."""
    return lambda value: plain(value, most=most, length=1000)

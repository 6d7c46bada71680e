"""Logits of others: what a file holds, as blocks of rows.

Each form has a module of its name that offers `read(paths, label_set, dtype) -> Foreign`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError
from asjax.store.logits_writer import Form

FORMS = ("pretrainedsed", "efficientat", "ced")
CLIP_S = 10.0  # of the clips of all three


@dataclass(frozen=True)
class Foreign:
    """The content of a file of others.

    Attributes:
      form: how to store it. ids, views, draws: of each row.
      blocks: gives (numbers of rows, {"clip", "frames", "classes"}), each row once.
      notes: lines for the user.
    """

    form: Form
    ids: list[str]
    blocks: Callable[[], Iterator[tuple[np.ndarray, dict]]]
    views: list[int] = field(default_factory=list)
    draws: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(form: str, paths, label_set=None, dtype=None) -> Foreign:
    """Open a file of others; its sizes are checked, its logits are read by `blocks`.

    Args: form: of FORMS. label_set: the classes of its columns; None: the usual ones.
    """
    reader = {name: f"asjax.teachers.{name}" for name in FORMS}[form]
    return import_module(reader).read([Path(path) for path in paths], label_set, dtype)


def check_width(width: int, label_set, where) -> None:
    """AsjaxError if an array has other columns than the label set."""
    if width != len(label_set):
        raise AsjaxError(
            f"{where} has {width} classes, and {label_set.name} has {len(label_set)}; --labels "
            "names the label set of its columns"
        )

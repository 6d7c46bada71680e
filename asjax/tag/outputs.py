"""Where results go: no output is an input, a folder, another output, or a part of the model."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from asjax.config import AsjaxError, shown
from asjax.store import logits, model_dir


def check(outputs: Iterable[tuple[str, str | Path]], recordings, models, also=()) -> None:
    """Raise AsjaxError if an output must not be written.

    Args:
      outputs: (option, path) of each file that will be written.
      recordings: as from `inputs.recordings`. models: model folders, their
        workdirs, or folders of logits.
      also: other files that are read.
    """
    read = [r.path for r in recordings if r.path] + [Path(path) for path in also]
    model_files = (*model_dir.FILES, model_dir.EXTRA, model_dir.PARENTS, "card.json")
    read += [Path(m, sub, name) for m in models for sub in ("", "model") for name in model_files]
    read += [path for m in filter(logits.is_folder, models) for path in Path(m).iterdir()]
    read, seen, outputs = {_identity(path) for path in read}, {}, list(outputs)
    folders = {os.path.realpath(os.path.dirname(path)) for _, path in outputs}
    for option, path in outputs:
        what, text = f"{option} {shown(path)}", os.fspath(path)
        if not text or text.endswith("/") or os.path.isdir(text):
            raise AsjaxError(f"{what} must be a file, it is a folder; give the name of a file")
        if _identity(text) in read:
            raise AsjaxError(f"{what} is one of the files to read; choose another name")
        if os.path.realpath(text) in folders:
            raise AsjaxError(f"{what} is also the folder of another output; choose another name")
        other = seen.setdefault(_identity(text), option)
        if other != option:
            raise AsjaxError(f"{what} is also the output of {other}; choose another name")


def check_place(option: str, path, overwrite: bool) -> None:
    """Raise AsjaxError if a file cannot be made there, or if it exists and may not be replaced.

    Devices and pipes, such as /dev/stdout, are no files to replace.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise AsjaxError(
            f"{option} {shown(path)}: the folder {shown(path.parent)} does not exist; make it first"
        )
    if path.is_file() and path.parent != Path("/dev") and not overwrite:
        raise AsjaxError(
            f"{option} {shown(path)} exists; add --overwrite to replace it, or choose another name"
        )


def _identity(path) -> tuple:
    """Equal for two names of one file, also for links."""
    try:
        about = os.stat(path)
        return about.st_dev, about.st_ino
    except (OSError, ValueError):
        return (os.path.realpath(path),)

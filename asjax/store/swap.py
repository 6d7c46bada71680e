"""Write a folder atomically: it appears complete or not at all, and may replace an older one.

`.NAME.<random>.new` is a folder that is being written. `.NAME.<random>.old` is a folder that was
replaced. Both have a file MARKER, which shows that asjax made them; no other folder is ever removed
or renamed. The writer of a folder locks its marker. So the lock shows whether the writer still runs
or was killed.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from asjax.config import AsjaxError
from asjax.store import files

MARKER = ".made-by-asjax"


@contextlib.contextmanager
def folder(final, *, what: str, ours: Callable[[Path], set[str] | None]) -> Iterator[Path]:
    """An empty folder to write into. When the `with` block ends, it replaces `final`.

    Other files in the replaced folder belong to the user, so they move into the new one.

    Args:
      what: for messages, such as "model".
      ours: folder -> the names in it that asjax wrote, or None if asjax did not write the folder.

    Raises:
      AsjaxError: `final` is a file, or a folder with other contents than `what`.
      OSError: the folder could not be written; nothing has changed.
    """
    final = Path(final).resolve()
    _refuse_others(final, what, ours)
    final.parent.mkdir(parents=True, exist_ok=True)
    _recover(final, ours)
    new = _fresh(final, "new")
    new.mkdir()
    try:
        with (new / MARKER).open("w") as marker:
            files.lock(marker)
            yield new
            for path in new.rglob("*"):
                files.sync(path)
            _swap(new, final, ours)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)  # safe to remove, because this call made it
        raise


def find(path) -> Path | None:
    """The folder at `path`, or the old folder beside it if its replacement was interrupted."""
    path = Path(path)
    if path.exists():
        return path
    return next(iter(_leftovers(path, "old")), None)


def _swap(new: Path, final: Path, ours) -> None:
    old = None
    if final.exists():
        old = _fresh(final, "old")
        (final / MARKER).touch()
        final.rename(old)
    try:
        new.rename(final)
    except OSError:
        if old is not None:
            old.rename(final)
            (final / MARKER).unlink()
        raise
    (final / MARKER).unlink()
    files.sync(final.parent)
    if old is not None:
        _clear(old, final, ours)


def _clear(old: Path, final: Path, ours) -> None:
    """Remove asjax's files from a replaced folder and move the user's files to the new folder.

    If the new folder has that name already, the user's file remains in the old folder.
    """
    names = ours(old) or set()
    with contextlib.suppress(OSError):
        for entry in sorted(old.iterdir()):
            if entry.name in names and entry.is_file():
                entry.unlink()
            elif entry.name != MARKER and not (final / entry.name).exists():
                entry.rename(final / entry.name)
        if [entry.name for entry in old.iterdir()] == [MARKER]:
            (old / MARKER).unlink()
            old.rmdir()


def _recover(final: Path, ours) -> None:
    """Clean up after killed processes: remove unfinished folders, restore a replaced one."""
    for new in _leftovers(final, "new"):
        with contextlib.suppress(OSError), (new / MARKER).open("a") as marker:
            if not files.lock(marker, without=False):
                return  # its writer may still run and be replacing `final`
            shutil.rmtree(new)
    for old in _leftovers(final, "old"):
        if final.exists():
            _clear(old, final, ours)
        else:
            old.rename(final)
            (final / MARKER).unlink()


def _leftovers(final: Path, end: str) -> list[Path]:
    if not final.parent.is_dir():
        return []
    start, end = f".{final.name}.", f".{end}"
    return sorted(
        path
        for path in final.parent.iterdir()
        if path.name.startswith(start) and path.name.endswith(end) and (path / MARKER).is_file()
    )


def _fresh(final: Path, end: str) -> Path:
    """A new random name."""
    return final.with_name(f".{final.name}.{secrets.token_hex(8)}.{end}")


def _refuse_others(final: Path, what: str, ours) -> None:
    if final.exists() and not final.is_dir():
        raise AsjaxError(f"{what} {final} must be a folder, it is a file; choose another name")
    if final.is_dir() and ours(final) is None and any(final.iterdir()):
        raise AsjaxError(f"{what} {final} is a folder with other contents; choose a new one")

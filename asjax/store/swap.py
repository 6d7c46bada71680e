"""A folder that appears whole or not at all, and may take the place of an older one.

`.NAME.<random>.new` is being written, `.NAME.<random>.old` was replaced. Both hold the file MARKER,
which says that asjax made them: no other folder is ever removed or renamed. Whoever writes a folder
holds a lock on its marker, so that a folder whose writer was killed can be told from one at work.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from asjax.config import AsjaxError
from asjax.store import files

try:
    import fcntl
except ImportError:  # Windows: leftovers of killed processes stay, for nobody can tell them
    fcntl = None

MARKER = ".made-by-asjax"


@contextlib.contextmanager
def folder(final, *, what: str, ours: Callable[[Path], set[str] | None]) -> Iterator[Path]:
    """An empty folder to write into; when the block ends it takes the place of `final`.

    What else lies in the folder that is replaced moves into the new one: it is the user's.

    Args:
      what: for messages, such as "model".
      ours: names of the entries of a folder that asjax wrote, or None if it is no such folder.

    Raises:
      AsjaxError: `final` is a file, or a folder with other things than `what`.
      OSError: it could not be written; nothing has changed.
    """
    final = Path(final).resolve()
    _refuse_others(final, what, ours)
    final.parent.mkdir(parents=True, exist_ok=True)
    _recover(final, ours)
    new = _fresh(final, "new")
    new.mkdir()
    try:
        with (new / MARKER).open("w") as marker:
            _lock(marker)
            yield new
            for path in new.rglob("*"):
                files.sync(path)
            _swap(new, final, ours)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)  # made above, by this call
        raise


def find(path) -> Path | None:
    """Where a folder lies: at `path`, or beside it when its replacement was interrupted."""
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
    """Remove what asjax wrote of a replaced folder; the rest moves to where the user looks for it.

    Something of the user's that has no place there stays where it is, under the old folder's name.
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
    """Finish what killed processes left: unfinished folders go away, a replaced one goes back."""
    for new in _leftovers(final, "new"):
        with contextlib.suppress(OSError), (new / MARKER).open("a") as marker:
            if not _lock(marker):
                return  # its writer may be at work, also on the folder that it replaces
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
    """A name that nobody has."""
    return final.with_name(f".{final.name}.{secrets.token_hex(8)}.{end}")


def _lock(file) -> bool:
    """Whether this process alone has an open file now. Disks without locks answer no."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, AttributeError):
        return False
    return True


def _refuse_others(final: Path, what: str, ours) -> None:
    if final.exists() and not final.is_dir():
        raise AsjaxError(f"{what} {final} must be a folder, it is a file; choose another name")
    if final.is_dir() and ours(final) is None and any(final.iterdir()):
        raise AsjaxError(f"{what} {final} is a folder with other things in it; choose a new one")

"""The embeddings of a run so far, in small files beside its output, so that a killed run goes on.

    OUT.parts/manifest.json     model, layer and windows; other settings start again
    OUT.parts/part-000000.npz   the rows of complete recordings, written atomically
    OUT.manifest.json           after the end: inputs, failed files, size and hash of the output

No file is ever removed or replaced unless asjax made it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError, shown, warn
from asjax.store import files, npz, schema

MADE_BY = "asjax embed"
PART_BYTES = 32 << 20  # a part is written when its embeddings reach this size,
PART_S = 20.0  # or when the last part is this old
MOST_LISTED = 1000  # failed files in the manifest, so that it stays small
_HEAD = 1 << 20  # bytes of the output that are hashed
_NAMES = re.compile(
    r"\.?(part-\d{6}\.npz|manifest\.json|finished\.json|output\.tmp|lock)(\.\d+\.tmp)?"
)
KINDS = {
    "name": ("U", 1),
    "stamp": ("U", 1),
    "rows": ("i", 1),
    "start_s": ("f", 1),
    "end_s": ("f", 1),
    "embedding": ("f", 2),
}
_ABOUT = schema.mapping(
    {"made_by": schema.text(MADE_BY, 100, f"{MADE_BY!r}"), "settings": schema.mapping({})}
)
_FINISHED = schema.mapping(
    {
        "made_by": schema.text(MADE_BY, 100, f"{MADE_BY!r}"),
        "settings": schema.mapping({}),
        "inputs": schema.text("[0-9a-f]{64}", 64, "a SHA-256"),
        "recordings": schema.integer(0, 2**53),
        "rows": schema.integer(0, 2**53),
        "failed": schema.list_of(schema.list_of(schema.text(), 2)),
        "bytes": schema.integer(0, 2**63),
        "head": schema.text("[0-9a-f]{64}", 64, "a SHA-256"),
    }
)


_NEWBORN = re.compile(r"lock|\.manifest\.json\.\d+\.tmp")  # of a run killed at its start


def _ours(path: Path, check) -> dict | None:
    """The content of a small file that asjax embed wrote, or None."""
    try:
        about = schema.read_json(path)
        schema.require(about, check, path)
    except AsjaxError:
        return None
    return about


@dataclass
class _Pending:
    """Recordings that are not in a part yet."""

    about: list[tuple[str, str, int]] = field(default_factory=list)  # name, stamp, rows
    times: list[np.ndarray] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    size: int = 0


class Parts:
    """The parts of one output; use `opened`.

    Attributes:
      done: name of a recording -> (stamp, part, first row, number of rows).
    """

    def __init__(self, out: Path, settings: dict, command: str = ""):
        self.out, self.settings, self.command = out, settings, command
        self.folder = out.with_name(f"{out.name}.parts")
        self.manifest = out.with_name(f"{out.name}.manifest.json")
        self.done: dict[str, tuple[str, int, int, int]] = {}
        self.dims = None
        self._pending, self._next, self._last = _Pending(), 0, time.monotonic()
        self._open: dict[int, dict] = {}

    # ------------------------------------------------------------------------ begin and end

    def finished(self, recordings) -> dict | None:
        """The manifest of the finished output, if inputs and settings are the same."""
        about = self._owner()
        same = about and about["settings"] == self.settings
        return about if same and about["inputs"] == inputs_hash(recordings) else None

    def refuse_other(self) -> None:
        """Raise AsjaxError if the output holds the embeddings of another command: other inputs,
        another model or other options. Files that changed since do not count."""
        about = self._owner()
        if not about:
            return
        before = about["settings"]
        others = [key for key in self.settings if before.get(key) != self.settings[key]]
        others += ["inputs"] if about.get("command") != self.command else []
        if others:
            raise AsjaxError(
                f"--to {shown(self.out)} holds embeddings with another value of "
                f"{', '.join(others)}; add --overwrite to replace them, or choose another name"
            )

    def refuse_strangers(self) -> None:
        """Raise AsjaxError if a file or folder of these names is not made by asjax."""
        strange = None
        if os.path.lexists(self.out) and not self._owner():
            strange = self.out
        elif os.path.lexists(self.manifest) and not _ours(self.manifest, _FINISHED):
            strange = self.manifest
        elif os.path.lexists(self.folder) and not self._folder_is_ours():
            strange = self.folder
        if strange is not None:
            raise AsjaxError(
                f"{shown(strange)} exists, and asjax embed did not write it (or it was changed "
                "since); choose another name for --to, or remove it"
            )

    def _folder_is_ours(self) -> bool:
        names = os.listdir(self.folder) if self.folder.is_dir() else ["no folder"]
        if "manifest.json" in names:
            return _ours(self.folder / "manifest.json", _ABOUT) is not None
        return all(map(_NEWBORN.fullmatch, names))

    def _owner(self) -> dict | None:
        """The manifest that describes the output as it is, or None."""
        for path in (self.manifest, self.folder / "finished.json"):
            about = _ours(path, _FINISHED)
            with contextlib.suppress(OSError):
                if about and (about["bytes"], about["head"]) == _head(self.out):
                    return about
        return None

    def tidy(self) -> None:
        """Remove the parts of a finished output, if its run was killed at the very end."""
        about = _ours(self.folder / "finished.json", _FINISHED)
        if about and about == self._owner():
            (self.folder / "finished.json").replace(self.manifest)
        self._clear()

    def begin(self) -> str | None:
        """Read the parts of an earlier run. Returns a text for the user, or None."""
        self.folder.mkdir(parents=True, exist_ok=True)
        said, place = None, self.folder / "manifest.json"
        about = {"made_by": MADE_BY, "settings": self.settings}
        if place.exists():
            before = _ours(place, _ABOUT)
            if not before or before["settings"] != self.settings:
                said = f"{shown(self.folder)} is from another model or other windows; starts again"
                self._clear(keep=("lock",))
        files.write_atomic(place, json.dumps(about, indent=1) + "\n")
        for path in sorted(self.folder.iterdir()):
            if re.fullmatch(r"part-\d{6}\.npz", path.name):
                self._take(path)
        return said

    def _take(self, path: Path) -> None:
        """Take up the recordings of a part. A damaged part is removed and computed again."""
        number = int(path.name[5:11])
        self._next = max(self._next, number + 1)
        try:
            part = npz.load(path, KINDS)
            counts, total = part["rows"], len(part["embedding"])
            lengths = {len(part[k]) for k in ("name", "stamp", "rows")}
            times = {len(part["start_s"]), len(part["end_s"]), total}
            if len(lengths) > 1 or len(times) > 1 or counts.sum() != total or (counts < 1).any():
                raise ValueError("its arrays do not fit together")
        except (OSError, ValueError) as error:
            warn(f"{shown(path)} is damaged and is computed again: {error}")
            path.unlink()
            return
        self.dims = part["embedding"].shape[1]
        first = 0
        for name, stamp, rows in zip(part["name"], part["stamp"], counts, strict=True):
            self.done[str(name)] = (str(stamp), number, first, int(rows))
            first += int(rows)

    def has(self, recording) -> bool:
        """The rows of a recording are there, and it has not changed since."""
        return self.done.get(recording.name, ("",))[0] == recording.stamp

    def _clear(self, keep=()) -> None:
        """Remove what asjax made in the folder of parts, then the folder if it is empty.

        manifest.json goes last, because it shows that asjax made the others.
        """
        for path in sorted(self.folder.iterdir(), key=lambda p: p.name == "manifest.json"):
            if _NAMES.fullmatch(path.name) and path.name not in keep and path.is_file():
                path.unlink()
        if not keep:
            with contextlib.suppress(OSError):  # the user has put a file into it
                self.folder.rmdir()

    # ------------------------------------------------------------------------------ writing

    def add(self, recording, times: np.ndarray, rows: np.ndarray) -> None:
        """Add the rows of a complete recording: times float64 [n, 2], rows float32 [n, D]."""
        self.dims = rows.shape[1]
        self._pending.about.append((recording.name, recording.stamp, len(rows)))
        self._pending.times.append(times)
        self._pending.rows.append(rows)
        self._pending.size += rows.nbytes
        if self._pending.size >= PART_BYTES or time.monotonic() - self._last >= PART_S:
            self.flush()

    def flush(self) -> None:
        """Write the recordings that are not in a part yet."""
        pending, self._pending = self._pending, _Pending()
        self._last = time.monotonic()
        if not pending.about:
            return
        names, stamps, counts = zip(*pending.about, strict=True)
        times = np.concatenate(pending.times)
        path = self.folder / f"part-{self._next:06d}.npz"
        with files.replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                name=np.array(names, str),
                stamp=np.array(stamps, str),
                rows=np.array(counts, np.int64),
                start_s=times[:, 0],
                end_s=times[:, 1],
                embedding=np.concatenate(pending.rows),
            )
        first = 0
        for name, stamp, rows in pending.about:
            self.done[name] = (stamp, self._next, first, rows)
            first += rows
        self._next += 1

    # ------------------------------------------------------------------------------ reading

    def rows_of(self, recordings) -> int:
        """The number of rows of recordings that are there."""
        return sum(self.done[r.name][3] for r in recordings)

    def segments(self, recordings, keys=("start_s", "end_s", "embedding")) -> Iterator[dict]:
        """The rows of `recordings` in their order, in pieces of at most one part.

        Yields: {"file": list of names, one per row, and an array for each of `keys`}.
        """
        i = 0
        while i < len(recordings):
            _, number, first, end = self.done[recordings[i].name]
            end, names = first, []
            while i < len(recordings) and self.done[recordings[i].name][1:3] == (number, end):
                rows = self.done[recordings[i].name][3]
                names += [recordings[i].name] * rows
                end, i = end + rows, i + 1
            arrays = self._arrays(number) if keys else {}
            yield {"file": names, **{key: arrays[key][first:end] for key in keys}}

    def _arrays(self, number: int) -> dict:
        if number not in self._open:
            self._open.clear()
            path = self.folder / f"part-{number:06d}.npz"
            try:
                self._open[number] = npz.load(path, KINDS)
            except ValueError as error:
                raise AsjaxError(
                    f"{shown(path)} is damaged: {error}; run the command again"
                ) from None
        return self._open[number]

    # ------------------------------------------------------------------------------- finish

    def finish(self, recordings, failed: list[tuple[str, str]], write) -> dict:
        """Put the output in its place, then remove the parts. Returns the manifest.

        Args:
          recordings: all inputs. failed: (name, reason). write: function of a path that writes the
            output there.
        """
        temporary = self.folder / "output.tmp"
        write(temporary)
        files.sync(temporary)
        size, head = _head(temporary)
        about = {
            "made_by": MADE_BY,
            "settings": self.settings,
            "command": self.command,
            "inputs": inputs_hash(recordings),
            "recordings": len(recordings) - len(failed),
            "rows": self.rows_of(filter(self.has, recordings)),
            "failed": [list(pair) for pair in failed[:MOST_LISTED]],
            "bytes": size,
            "head": head,
        }
        # If the run is killed between the next steps, finished.json shows who made the output.
        files.write_atomic(self.folder / "finished.json", json.dumps(about, indent=1) + "\n")
        temporary.replace(self.out)
        (self.folder / "finished.json").replace(self.manifest)
        files.sync(self.out.parent)
        self._clear()
        return about


@contextlib.contextmanager
def opened(out, settings: dict, command: str = "") -> Iterator[Parts]:
    """The parts of the output `out`, for one process at a time. Complete recordings are kept when
    the `with` block ends early.

    Raises:
      AsjaxError: another process has them, or files of that name are not made by asjax.
    """
    parts = Parts(Path(out), settings, command)
    parts.refuse_strangers()
    parts.folder.mkdir(parents=True, exist_ok=True)
    with (parts.folder / "lock").open("w") as lock:
        if not files.lock(lock):
            raise AsjaxError(f"another asjax embed writes {shown(out)}; wait for it")
        try:
            yield parts
        except BaseException:
            with contextlib.suppress(OSError):
                parts.flush()
            raise


def command_hash(paths) -> str:
    """SHA-256 (hex) of the paths that the user gave as inputs."""
    places = [path if path == "-" else os.path.abspath(path) for path in map(os.fspath, paths)]
    return hashlib.sha256(json.dumps(places).encode()).hexdigest()


def inputs_hash(recordings) -> str:
    """SHA-256 (hex) of the names and stamps of the inputs, in order."""
    digest = hashlib.sha256()
    for recording in recordings:
        digest.update(json.dumps([recording.name, recording.stamp]).encode() + b"\n")
    return digest.hexdigest()


def _head(path: Path) -> tuple[int, str]:
    """(size, SHA-256 of the beginning) of a file."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size, hashlib.sha256(file.read(_HEAD)).hexdigest()

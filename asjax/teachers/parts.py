"""The logits of a run so far, in parts beside its output, so that a killed run goes on.

    OUT.parts/manifest.json           the settings of the run
    OUT.parts/logits-00000007.npy ... arrays of the batches from batch 7 on
    OUT.parts/part-00000007.json      the last file of a part: its batches, clips, sizes and hashes

At the end the tables are written and the folder becomes OUT. A batch is a pure function of the
settings and its number. So a run in several pieces makes the same logits as one run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError, shown, warn
from asjax.store import files, logits, logits_writer, schema, swap
from asjax.store.logits_writer import Form, Row

MADE_BY = "asjax logits"
PART_BYTES = 64 << 20  # a part is written when its logits reach this size,
PART_S = 30.0  # or when the last part is this old
_OURS = re.compile(
    r"\.?((logits|clip|classes)-\d{5,}\.npy|part-\d{5,}\.json|manifest\.json|lock|about\.json"
    r"|(clips|labels|missing)\.csv|SHA256SUMS)(\.\d+\.tmp)?|" + re.escape(swap.MARKER)
)
_NEWBORN = re.compile(r"lock|\.manifest\.json\.\d+\.tmp")  # of a run killed at its start
_LEFTOVERS = re.compile(r"\.?(part-\d{5,}\.json|manifest\.json|lock)(\.\d+\.tmp)?")
_MANIFEST = schema.mapping(
    {"made_by": schema.text(MADE_BY, 100, f"{MADE_BY!r}"), "settings": schema.mapping({})}
)
_count = schema.integer(0, 2**53)
_PART = schema.mapping(
    {
        "steps": schema.list_of(_count, 2),
        "shard": schema.mapping({"clips": _count}),
        "sums": schema.mapping({}, others=schema.text("[0-9a-f]{64}", 64, "a SHA-256")),
        "rows": schema.list_of(schema.list_of(schema.plain, 6)),
        "missing": schema.list_of(schema.list_of(schema.plain, 3)),
        "cut": _count,
    }
)


@dataclass
class Part:
    """The logits of the batches [begin, end): the shard, the SHA-256 of its files, its rows."""

    begin: int
    end: int
    shard: dict | None = None  # None: no clip of these batches could be decoded
    sums: dict = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    missing: list[tuple[str, int, str]] = field(default_factory=list)
    cut: int = 0  # clips of recordings that are longer than the models hear


class Parts:
    """The parts of one output; use `opened`.

    Attributes:
      done: the parts that are on disk, in the order of their batches.
      write_s: seconds that a thread spent in writing. wait_s: seconds that its caller waited.
    """

    def __init__(self, out: Path, settings: dict, form: Form | None = None):
        self.out, self.settings, self.form = out, settings, form
        self.folder = out.with_name(f"{out.name}.parts")
        self.done: list[Part] = []
        self.write_s = self.wait_s = 0.0
        self._new, self._arrays, self._size = None, [], 0
        self._last, self._writing = time.monotonic(), None
        self._pool = ThreadPoolExecutor(1, "asjax-logits")

    # ------------------------------------------------------------------------------ begin

    def finished(self) -> bool:
        """Whether OUT is the complete output of these settings. AsjaxError: it is another one."""
        if not self.out.is_dir() or not any(self.out.iterdir()):
            return False
        about = _about(self.out)
        if about is None:
            raise AsjaxError(
                f"--out {shown(self.out)} holds damaged logits; add --overwrite to replace them"
            )
        before = (about.get("extra") or {}).get("settings") or {}
        others = [key for key in self.settings if before.get(key) != self.settings[key]]
        if others:
            raise AsjaxError(
                f"--out {shown(self.out)} holds logits with another value of {', '.join(others)}; "
                "add --overwrite to replace them, or choose another folder"
            )
        return True

    def tidy(self) -> None:
        """Remove what is left in a finished output whose run was killed at the very end."""
        for path in self.out.iterdir():
            if _LEFTOVERS.fullmatch(path.name) and path.is_file():
                path.unlink()

    def drop(self) -> None:
        """Remove the folder of parts if nothing is in it."""
        with contextlib.suppress(OSError):
            if os.listdir(self.folder) == ["lock"]:
                clear(self.folder)

    def begin(self, overwrite: bool) -> None:
        """Take up the parts of an earlier run. AsjaxError: they have other settings."""
        place = self.folder / "manifest.json"
        if place.exists():
            try:
                about = schema.read_json(place)
                schema.require(about, _MANIFEST, place)
                before = about["settings"]
            except AsjaxError:
                before = {}
            others = [key for key in self.settings if before.get(key) != self.settings[key]]
            if others and not overwrite:
                raise AsjaxError(
                    f"{shown(self.folder)} is an unfinished run with another value of "
                    f"{', '.join(others)}; add --overwrite to start again, or choose another --out"
                )
            if others:
                clear(self.folder, keep=("lock",))
        about = {"made_by": MADE_BY, "settings": self.settings}
        files.write_atomic(place, json.dumps(about, indent=1) + "\n")
        parts = []
        for path in sorted(self.folder.glob("part-*.json")):
            if _OURS.fullmatch(path.name) and (part := self._taken(path)):
                parts.append(part)
        self.done = sorted(parts, key=lambda part: part.begin)

    def _taken(self, path: Path) -> Part | None:
        """A part of an earlier run. A damaged part is removed, so it is computed again."""
        try:
            about = schema.read_json(path)
            schema.require(about, _PART, path)
            (begin, end), shard = about["steps"], about["shard"]
            rows = [Row(*row) for row in about["rows"]]
            if not begin < end or shard["clips"] != len(rows):
                raise ValueError("its clips do not fit its batches")
            for name, sha in about["sums"].items():
                if not _OURS.fullmatch(name) or files.digest(self.folder / name) != sha:
                    raise ValueError(f"{name} is damaged")
        except (AsjaxError, OSError, ValueError, TypeError) as error:
            warn(f"{shown(path)} is damaged and is computed again: {files.reason(error)}")
            path.unlink()
            return None
        missing = [tuple(one) for one in about["missing"]]
        shard = shard if rows else None
        return Part(begin, end, shard, about["sums"], rows, missing, about["cut"])

    def gaps(self, begin: int, end: int) -> list[tuple[int, int]]:
        """The batches of [begin, end) that no part has, as ranges."""
        found, at = [], begin
        for part in self.done:
            if part.begin > at:
                found.append((at, part.begin))
            at = max(at, part.end)
        return [*found, (at, end)] if at < end else found

    # ------------------------------------------------------------------------------ writing

    def add(self, step: int, rows: list[Row], clip, frames, missing, cut: int = 0) -> None:
        """Add a batch: clip logits [n, C], frame logits [n, T', C] or None, n rows."""
        if self._new is None or self._new.end != step:
            self.flush()
            self._new = Part(step, step)
        if rows:
            self._arrays.append(self.form.arrays([row.id for row in rows], clip, frames))
            self._size += sum(array.nbytes for array in self._arrays[-1].values())
        self._new.rows += rows
        self._new.missing += missing
        self._new.cut += cut
        self._new.end = step + 1
        if self._size >= PART_BYTES or time.monotonic() - self._last >= PART_S:
            self.flush()

    def flush(self) -> None:
        """Let a thread write the batches that are not in a part yet."""
        part, self._new = self._new, None
        arrays, self._arrays, self._size = self._arrays, [], 0
        self._last = time.monotonic()
        if part is not None and part.begin < part.end:
            self.wait()
            self._writing = self._pool.submit(self._write, part, arrays)

    def wait(self) -> None:
        """Wait until the thread has written its part. Raises its errors."""
        start, writing = time.monotonic(), self._writing
        self._writing = None
        if isinstance(writing, Future):
            self.done.append(writing.result())
            self.done.sort(key=lambda part: part.begin)
        self.wait_s += time.monotonic() - start

    def _write(self, part: Part, arrays: list[dict]) -> Part:
        start = time.monotonic()
        if arrays:
            joined = {key: np.concatenate([one[key] for one in arrays]) for key in arrays[0]}
            shard, part.sums = logits_writer.write_shard(self.folder, part.begin, joined)
            part.shard = shard
        about = {
            "steps": [part.begin, part.end],
            "shard": part.shard or {"clips": 0},
            "sums": part.sums,
            "rows": part.rows,
            "missing": part.missing,
            "cut": part.cut,
        }
        files.write_atomic(self.folder / f"part-{part.begin:05d}.json", json.dumps(about) + "\n")
        self.write_s += time.monotonic() - start
        return part

    # ------------------------------------------------------------------------------- finish

    def finish(self, extra: dict) -> None:
        """Write the tables, then put the folder in the place of OUT."""
        rows = [row for part in self.done for row in part.rows]
        missing = [one for part in self.done for one in part.missing]
        shards = [part.shard for part in self.done if part.shard]
        sums = {name: sha for part in self.done for name, sha in part.sums.items()}
        cut = sum(part.cut for part in self.done)
        extra = {"made_by": MADE_BY, "settings": self.settings, "cut": cut, **extra}
        logits_writer.finish(self.folder, self.form, rows, shards, extra, sums, missing)
        for path in self.folder.glob("*.npy"):  # a part that was killed before its last file
            if _OURS.fullmatch(path.name) and path.name not in sums:
                path.unlink()
        if self.out.exists():
            clear(self.out)
        self.folder.rename(self.out)
        files.sync(self.out.parent)
        self.tidy()


@contextlib.contextmanager
def opened(out, settings: dict, form: Form) -> Iterator[Parts]:
    """The parts of the output `out`, for one process at a time. Complete batches are kept when the
    `with` block ends early.

    Raises:
      AsjaxError: another process has them, or files of that name are not made by asjax.
    """
    parts = Parts(Path(out), settings, form)
    refuse_strangers(parts.out, logits.ABOUT)
    refuse_strangers(parts.folder, "manifest.json")
    parts.folder.mkdir(parents=True, exist_ok=True)
    with (parts.folder / "lock").open("w") as lock:
        if not files.lock(lock):
            raise AsjaxError(f"another asjax logits writes {shown(out)}; wait for it")
        try:
            yield parts
        except BaseException:
            with contextlib.suppress(OSError):
                parts.flush()
                parts.wait()
            raise
        finally:
            parts._pool.shutdown()
            parts.drop()


def refuse_strangers(folder: Path, sign: str) -> None:
    """Raise AsjaxError if a folder holds files that asjax logits did not make. `sign`: the file
    that shows who made it."""
    if not os.path.lexists(folder):
        return
    names = os.listdir(folder) if folder.is_dir() else ["no folder"]
    strange = [name for name in names if not _OURS.fullmatch(name)]
    ours = sign in names or all(map(_NEWBORN.fullmatch, names))
    if strange or not ours:
        raise AsjaxError(
            f"{shown(folder)} exists, and asjax logits did not make it or it has other files"
            + (f", such as {shown(strange[0])}" if strange and folder.is_dir() else "")
            + "; choose another name for --out, or remove it"
        )


def names_in(folder: Path) -> set[str] | None:
    """The files in a folder that asjax logits made; None: it made none."""
    names = {name for name in os.listdir(folder) if _OURS.fullmatch(name)}
    return names or None


def _about(folder: Path) -> dict | None:
    """about.json of a complete set of logits, or None."""
    if not logits.is_folder(folder) or files.check_sums(folder, logits.ABOUT):
        return None
    about = schema.read_json(folder / logits.ABOUT)
    return about if isinstance(about, dict) else None


def clear(folder: Path, keep=()) -> None:
    """Remove what asjax made in a folder, then the folder if it is empty."""
    for path in sorted(folder.iterdir(), key=lambda p: p.name == "manifest.json"):
        if _OURS.fullmatch(path.name) and path.name not in keep and path.is_file():
            path.unlink()
    if not keep:
        folder.rmdir()

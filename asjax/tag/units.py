"""The folder of `asjax tag --to`: the results of a collection, in units of recordings.

    DIR/manifest.json      the settings; after the end also the counts, and the hash of each file
    DIR/tags-00007.tsv     the tags or events of unit 7, or .parquet
    DIR/units/00007.json   the last file of a unit: its counts, hashes, and what was left out
    DIR/left_out.csv       after the end: every recording without a result, with its reason

A unit is a pure function of the settings and its number. So runs that were killed, and several
machines with one DIR, make the same bytes as one run.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from asjax.config import AsjaxError, shown
from asjax.store import files, schema
from asjax.tag.embeddings import text

MADE_BY = "asjax tag"
_WAIT_S = 60.0  # for another process that writes the end
_UNIT_FILE = r"tags-\d{5,}\.(tsv|parquet)"
_OURS = re.compile(
    rf"({_UNIT_FILE}|units|left_out\.csv|manifest\.json)"
    rf"|\.({_UNIT_FILE}|left_out\.csv|manifest\.json)\.\d+\.tmp"
)
_INSIDE = re.compile(r"\d{5,}\.json|\.\d{5,}\.json\.\d+\.tmp|\.probe-\d+|lock-(end|\d+-of-\d+)")
_ABOUT = schema.mapping(
    {"made_by": schema.text(MADE_BY, 100, f"{MADE_BY!r}"), "settings": schema.mapping({})}
)
_count = schema.integer(0, 2**53)
_sha = schema.text("[0-9a-f]{64}", 64, "a SHA-256")
_UNIT = schema.mapping(
    {
        "recordings": _sha,
        "tagged": _count,
        "rows": _count,
        "without_rows": schema.list_of(schema.text()),
        "left_out": schema.list_of(schema.list_of(schema.text(), 2)),
        "sha256": _sha,
    }
)
_MOST = 1 << 28  # bytes of the JSON of a unit


class Units:
    """The units of a collection in a folder; use `opened`.

    Args:
      size: recordings of a unit. kind: "tsv" or "parquet".
    """

    def __init__(self, folder: Path, collection, size: int, kind: str, settings: dict):
        self.folder, self.collection, self.size, self.kind = folder, collection, size, kind
        self.settings = settings
        self.count = -(-len(collection) // size)

    def recordings(self, unit: int) -> range:
        """The numbers of the recordings of a unit."""
        return range(unit * self.size, min((unit + 1) * self.size, len(self.collection)))

    def present(self) -> int:
        """How many units are there, sound or not."""
        return sum(1 for _ in (self.folder / "units").glob("[0-9]*.json"))

    def path(self, unit: int) -> Path:
        return self.folder / f"tags-{unit:05d}.{self.kind}"

    def _about(self, unit: int) -> Path:
        return self.folder / "units" / f"{unit:05d}.json"

    def load(self, unit: int) -> dict | None:
        """What is known about a unit that is done and sound, else None."""
        if not self._about(unit).exists():
            return None
        try:
            about = schema.read_json(self._about(unit), _MOST)
            schema.require(about, _UNIT, self._about(unit))
            sound = files.digest(self.path(unit)) == about["sha256"]
        except (AsjaxError, OSError):
            return None
        wanted, lost = self.recordings(unit), about["left_out"]
        same = about["recordings"] == self.collection.hash_of(wanted.start, wanted.stop)
        return about if same and sound and about["tagged"] + len(lost) == len(wanted) else None

    def commit(self, unit: int, written: Path, tagged, without, left_out, rows: int) -> dict:
        """Keep a unit whose table lies at `written`, after a proof that no recording is missing.

        Args:
          tagged: the names with a result, in order. without: those of them without a row.
          left_out: (name, reason). rows: the rows of the table.
        """
        wanted = self.recordings(unit)
        names, lost = [self.collection.names[i] for i in wanted], dict(left_out)
        if sorted([*tagged, *(name for name, _ in left_out)]) != sorted(names):
            raise RuntimeError(f"unit {unit}: {len(names)} recordings are not each there once")
        about = {
            "recordings": self.collection.hash_of(wanted.start, wanted.stop),
            "tagged": len(tagged),
            "rows": rows,
            "without_rows": list(map(text, without)),
            "left_out": [[text(name), lost[name]] for name in names if name in lost],
            "sha256": files.digest(written),
        }
        files.sync(written)
        written.replace(self.path(unit))
        files.write_atomic(self._about(unit), json.dumps(about, indent=1) + "\n")
        return about

    @contextlib.contextmanager
    def writing(self, unit: int) -> Iterator[Path]:
        """A temporary path for the table of a unit."""
        path = self.path(unit)
        # Not the number of the process: an engine may run a unit twice, in two containers.
        temporary = path.with_name(f".{path.name}.{int.from_bytes(os.urandom(6))}.tmp")
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def finish(self) -> dict | None:
        """Write left_out.csv and the counts if all units of all machines are there; the manifest.

        Two processes that end at the same time write the same bytes, one after the other.
        """
        with (self.folder / "units" / "lock-end").open("w") as lock:
            until = time.monotonic() + _WAIT_S
            while not files.lock(lock) and time.monotonic() < until:
                time.sleep(0.2)
            units = []
            for unit in range(self.count):
                units.append(self.load(unit))
                if units[-1] is None:
                    return None
            return self._end(units)

    def _end(self, units: list[dict]) -> dict:
        place = self.folder / "left_out.csv"
        with files.replacing(place) as new, new.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["file", "reason"])
            table.writerows(row for about in units for row in about["left_out"])
        counts = {
            "recordings": len(self.collection),
            "tagged": sum(about["tagged"] for about in units),
            "left_out": sum(len(about["left_out"]) for about in units),
            "rows": sum(about["rows"] for about in units),
            "without_rows": sum(len(about["without_rows"]) for about in units),
        }
        if counts["tagged"] + counts["left_out"] != counts["recordings"]:
            raise RuntimeError(f"{self.folder}: the counts do not add up: {counts}")
        about = {"made_by": MADE_BY, "settings": self.settings, "counts": counts}
        about["files"] = {self.path(i).name: one["sha256"] for i, one in enumerate(units)}
        about["files"][place.name] = files.digest(place)
        files.write_atomic(self.folder / "manifest.json", json.dumps(about, indent=1) + "\n")
        for path in [*self.folder.iterdir(), *(self.folder / "units").iterdir()]:
            if path.name.startswith((".", "lock-")) and _is_ours(path):
                path.unlink(missing_ok=True)
        return about


@contextlib.contextmanager
def opened(
    folder, collection, size: int, kind: str, settings: dict, shard=(0, 1), overwrite=False
) -> Iterator[Units]:
    """The units in `folder`, for one process of each shard at a time.

    Raises:
      AsjaxError: another process has the shard, the folder holds results of other settings, or
        asjax tag did not make it.
    """
    folder = Path(folder)
    refuse_strangers(folder)
    files.prove_writable(folder / "units", "--to")
    place = folder / "units" / f"lock-{shard[0]}-of-{shard[1]}"
    with place.open("w") as lock:
        if not files.lock(lock):
            raise AsjaxError(f"another asjax tag writes this part of {shown(folder)}; wait for it")
        try:
            _begin(folder, settings, overwrite, place)
            yield Units(folder, collection, size, kind, settings)
        finally:
            place.unlink(missing_ok=True)


def joined(folder, collection, size: int, kind: str, settings: dict) -> Units:
    """The units of a folder that another process has `opened`, for a worker of it.

    Raises:
      AsjaxError: the folder is not there, or its settings are not those of this worker.
    """
    place = Path(folder) / "manifest.json"
    before = _settings(place)
    if others := [key for key in settings if before.get(key) != settings[key]]:
        raise AsjaxError(
            f"--to {shown(folder)}: this worker has another value of {', '.join(others)}; list, "
            "models and asjax must be the same on all machines"
        )
    return Units(Path(folder), collection, size, kind, settings)


def _begin(folder: Path, settings: dict, overwrite: bool, lock: Path) -> None:
    """Compare the settings with those of the folder, and write them into a new one.

    `overwrite` removes results of other settings only, so every shard may be given it.
    """
    place = folder / "manifest.json"
    if place.exists():
        before = _settings(place)
        others = [key for key in settings if before.get(key) != settings[key]]
        if others and not overwrite:
            raise AsjaxError(
                f"--to {shown(folder)} holds tags with another value of {', '.join(others)}; add "
                "--overwrite to start again, or choose another folder"
            )
        if others:
            _clear(folder, lock)
    if not place.exists():
        about = {"made_by": MADE_BY, "settings": settings}
        files.write_atomic(place, json.dumps(about, indent=1) + "\n")
    if _settings(place) != settings:
        raise AsjaxError(f"another asjax tag with other options has begun in {shown(folder)}")


def refuse_strangers(folder: Path) -> None:
    """AsjaxError if a folder holds other files than those of asjax tag."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise AsjaxError(f"--to {shown(folder)} is a file; give a new folder")
    strange = [path.name for path in folder.iterdir() if not _is_ours(path)]
    begun = {path.name for path in folder.iterdir()} <= {"units"}
    if strange or not (begun or (folder / "manifest.json").is_file()):
        what = f", such as {shown(strange[0])}" if strange else ""
        raise AsjaxError(f"--to {shown(folder)} holds other files{what}; give a new folder")


def _is_ours(path: Path) -> bool:
    names = _INSIDE if path.parent.name == "units" else _OURS
    return bool(names.fullmatch(path.name))


def _settings(place: Path) -> dict:
    about = schema.read_json(place, _MOST)
    schema.require(about, _ABOUT, place)
    return about["settings"]


def _clear(folder: Path, lock: Path) -> None:
    """Remove the results, the manifest last, because it shows that asjax made the others.

    AsjaxError: another process is at work there.
    """
    for path in (folder / "units").glob("lock-*"):
        with path.open("a") as other:
            if path != lock and not files.lock(other):
                raise AsjaxError(f"another asjax tag is at work in {shown(folder)}; wait for it")
    inside = [path for path in (folder / "units").iterdir() if path != lock]
    for path in [*inside, *sorted(folder.iterdir(), key=lambda p: p.name == "manifest.json")]:
        if path.is_file() and _is_ours(path):
            path.unlink()

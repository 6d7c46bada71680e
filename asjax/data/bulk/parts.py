"""The folder OUT.parts: the parts of a preparation that is under way.

    OUT.parts/parts.json          who made it, and the settings that all parts have in common
    OUT.parts/listed.csv          every listed clip
    OUT.parts/plan-i-of-N.json    the tasks of a machine's plan: name -> number of clips
    OUT.parts/NAME/               the part of a task (asjax.data.bulk.part)

Several machines may share the folder. A task is in one machine's share only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from asjax.config import AsjaxError, shown
from asjax.data.bulk import part as part_files
from asjax.data.bulk.part import Part
from asjax.labels import LabelSet
from asjax.store import files, schema, swap

MADE_BY = "asjax prepare"
_OURS = re.compile(
    r"parts\.json|tasks|listed\.csv|labels\.csv|plan-\d+-of-\d+\.json|lock(-\d+-of-\d+)?|[0-9a-f]{24}"
    r"|\.(parts\.json|listed\.csv|labels\.csv|plan-\d+-of-\d+\.json)\.\d+\.tmp"
    r"|\.[0-9a-f]{24}\.[0-9a-f]{16}\.(new|old)"
)
_ABOUT = schema.mapping(
    {
        "made_by": schema.text(MADE_BY, 100, f"{MADE_BY!r}"),
        "settings": schema.mapping({}),
        "fields": schema.mapping({}),
        "name": schema.optional(schema.text()),
        "label_set": schema.text(),
    }
)


def folder_of(out) -> Path:
    """OUT.parts for OUT. AsjaxError: OUT is the root of the disk."""
    out = Path(out)
    if out.name in ("", ".."):
        out = out.resolve()
    if not out.name:
        raise AsjaxError(f"{shown(out)} is the root of the disk; choose a folder in it")
    return out if out.name.endswith(".parts") else out.with_name(f"{out.name}.parts")


class Parts:
    """The folder of parts; use `opened` to write, and `Parts(folder)` to look.

    Attributes:
      settings: of the parts that are there; {} if there are none yet.
      about: parts.json, with the fields, name and label set for `merge`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        refuse_strangers(folder)
        place = folder / "parts.json"
        self.settings: dict = {}
        self.about: dict = {}
        if place.exists():
            about = schema.read_json(place)
            schema.require(about, _ABOUT, place)
            self.settings, self.about = about["settings"], about

    def plans(self) -> dict[Path, dict[str, int]]:
        """The plan of every machine: its file -> name and clips of every planned task."""
        found = {}
        for path in sorted(self.folder.glob("plan-*.json")):
            plan = schema.read_json(path, 1 << 28)
            if not isinstance(plan, dict) or not all(type(count) is int for count in plan.values()):
                raise AsjaxError(f"{shown(path)} is no plan; run the same asjax prepare again")
            found[path] = plan
        return found

    def describe(self, about: dict, label_set) -> None:
        """Keep what `merge` needs: the settings, the fields of the dataset, the label set."""
        about = {"made_by": MADE_BY, "label_set": label_set.name, **about}
        files.write_atomic(self.folder / "parts.json", json.dumps(about, indent=1) + "\n")
        with files.replacing(self.folder / "labels.csv") as new:
            label_set.to_csv(new)
        self.settings, self.about = about["settings"], about

    def label_set(self) -> LabelSet:
        return LabelSet.from_csv(self.folder / "labels.csv", self.about["label_set"])

    def plan(self, tasks: dict[str, int], shard: tuple[int, int]) -> None:
        """Keep the plan of a machine."""
        path = self.folder / f"plan-{shard[0]}-of-{shard[1]}.json"
        files.write_atomic(path, json.dumps(tasks, indent=0) + "\n")

    def done(self) -> dict[str, Part]:
        """name -> part of every task that is finished and sound."""
        found = {}
        for path in sorted(self.folder.iterdir()):
            if path.is_dir() and re.fullmatch(r"[0-9a-f]{24}", path.name):
                part = part_files.load(path)
                if part is not None:
                    found[path.name] = part
        return found

    def remove(self) -> None:
        """Remove the folder with all that asjax made in it; other files stay."""
        for path in list(self.folder.iterdir()):
            if not _OURS.fullmatch(path.name):
                continue
            if path.is_dir():
                if path.name.startswith(".") and (path / swap.MARKER).is_file():
                    shutil.rmtree(path)  # what a killed run left of a unit
                    continue
                names = [inside.name for inside in path.iterdir()]
                if all(map(part_files.is_name, names)) or (
                    path.name == "tasks"
                    and all(re.fullmatch(r"[0-9a-f]{24}\.json", n) for n in names)
                ):
                    shutil.rmtree(path)
            else:
                path.unlink()
        with contextlib.suppress(OSError):
            self.folder.rmdir()


@contextlib.contextmanager
def opened(out, settings: dict, shard=(0, 1), overwrite: bool = False) -> Iterator[Parts]:
    """The parts of the output `out`, for one process of each shard at a time.

    Raises:
      AsjaxError: another process has them, they have other settings, or asjax did not make them.
    """
    check_out(out)
    folder = folder_of(out)
    refuse_strangers(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = "lock" if shard == (0, 1) else f"lock-{shard[0]}-of-{shard[1]}"
    with (folder / "lock").open("a+") as all_, (folder / name).open("a+") as mine:
        # The shards share the lock that a run without shards has alone: it removes the folder.
        free = files.lock(all_, shared=name != "lock")
        if not free or (name != "lock" and not files.lock(mine)):
            raise AsjaxError(f"another asjax prepare writes {shown(out)}; wait for it")
        parts = Parts(folder)
        others = [key for key in settings if parts.settings.get(key) != settings[key]]
        if parts.settings and others:
            if not overwrite:
                raise AsjaxError(
                    f"{shown(folder)} is an unfinished run with another value of "
                    f"{', '.join(others)}; add --overwrite to start again, or choose another --out"
                )
            for path in folder.iterdir():
                if path.is_dir() and _OURS.fullmatch(path.name):
                    shutil.rmtree(path)
                elif path.name.startswith(("plan-", "listed")):
                    path.unlink()
        yield parts


def check_out(out) -> None:
    """AsjaxError if no record dataset can ever be at `out`. It says so before hours of work."""
    files.refuse_url(out, "--out")
    path = Path(out)
    try:
        os.fspath(path.resolve()).encode()
    except UnicodeEncodeError:
        raise AsjaxError(f"--out {shown(out)}: its name must be UTF-8") from None
    if path.name.endswith(".parts"):
        raise AsjaxError(f"--out {shown(out)}: names that end in .parts are for parts of a set")
    if path.exists() and not path.is_dir():
        raise AsjaxError(f"--out {shown(out)} exists and is no folder; choose another name")


def refuse_strangers(folder: Path) -> None:
    """AsjaxError if a folder holds what asjax prepare did not make."""
    if not os.path.lexists(folder):
        return
    names = os.listdir(folder) if folder.is_dir() else ["no folder"]
    strange = [name for name in names if not _OURS.fullmatch(name)]
    young = all(name.startswith(("lock", ".parts.json.")) for name in names)
    if strange or not (young or "parts.json" in names):
        raise AsjaxError(
            f"{shown(folder)} exists, and asjax prepare did not make it or it has other files"
            + (f", such as {shown(strange[0])}" if strange and folder.is_dir() else "")
            + "; choose another --out, or remove it"
        )

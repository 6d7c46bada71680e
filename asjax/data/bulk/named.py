"""Tasks as files of OUT.parts, so that a worker of an engine needs only the name of a task."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from asjax.config import AsjaxError, shown
from asjax.data.bulk import beam, part
from asjax.data.bulk.units import Task, from_json, to_json
from asjax.labels import LabelSet
from asjax.store import files
from asjax.store.files import reason

TASKS = "tasks"


def run(tasks: list[Task], folder: Path, runner: beam.Runner) -> dict[str, part.Part]:
    """Make the parts of tasks on a runner of Beam; returns {name: Part}.

    Raises:
      AsjaxError: as `beam.run`, or parts are not there in the end.
      engine.Stopped: Ctrl-C or SIGTERM.
    """
    if not tasks:
        return {}
    (folder / TASKS).mkdir(exist_ok=True)
    for task in tasks:
        files.write_atomic(folder / TASKS / f"{task.name}.json", json.dumps(to_json(task)))
    names = [task.name for task in tasks]
    beam.run(runner, names, partial(make, folder=str(folder)), lambda: _count(folder))
    found = {name: part.load(folder / name) for name in names}
    beam.prove([name for name, made in found.items() if made is None], len(names), folder)
    return found


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.glob(f"[0-9a-f]*/{part.ABOUT}"))


def make(name: str, folder: str) -> str:
    """Make the part of a task by its name, on a worker; returns the name.

    Raises:
      AsjaxError: the task is not there, or it is another one on this machine.
    """
    place = Path(folder)
    try:
        about = json.loads((place / TASKS / f"{name}.json").read_text())
    except (OSError, ValueError) as error:
        raise AsjaxError(f"{shown(place)}: task {name} cannot be read: {reason(error)}") from None
    label_set = LabelSet.from_csv(place / "labels.csv", about["label_set"])
    task = from_json(about, label_set)
    if task.name != name:
        raise AsjaxError(
            f"{shown(place)}: task {name} is another one here; are the files the same?"
        )
    if part.load(place / name) is None:
        part.make(task, place)
    return name

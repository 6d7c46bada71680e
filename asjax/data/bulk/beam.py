"""Tasks on Apache Beam: one pipeline for Flink, Spark, Dataflow and this machine.

The elements are names of tasks, so no audio and no list crosses the engine. A worker reads its task
from OUT.parts and writes its part there. So all workers need the sources and OUT.parts at the same
paths, on a shared disk. Beam comes with `pip install 'asjax[beam]'`.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from asjax.config import AsjaxError, quoted, shown
from asjax.data.bulk import part
from asjax.data.bulk.units import Task, from_json, to_json
from asjax.labels import LabelSet
from asjax.store import files
from asjax.store.files import reason

TASKS = "tasks"


def run(tasks: list[Task], folder: Path, runner: str, options: str = "") -> dict[str, part.Part]:
    """Make the parts of tasks; returns {name: Part}.

    Args: options: of the runner, as on a command line, such as "--direct_num_workers=4".

    Raises:
      AsjaxError: Beam is not installed, does not know the runner or an option, or a task failed.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise AsjaxError(
            "--runner needs Apache Beam, which is not installed; pip install 'asjax[beam]'"
        ) from None
    if not tasks:
        return {}
    (folder / TASKS).mkdir(exist_ok=True)
    for task in tasks:
        files.write_atomic(folder / TASKS / f"{task.name}.json", json.dumps(to_json(task)))
    try:
        flags = [f"--runner={runner}", *shlex.split(options)]
        with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
            names = pipeline | beam.Create([task.name for task in tasks]) | beam.Reshuffle()
            _ = names | "Make" >> beam.Map(make_named, str(folder))
    except AsjaxError:
        raise
    except SystemExit:
        raise AsjaxError(f"--runner-options: {quoted(options)} are no options of Beam") from None
    except Exception as error:
        raise AsjaxError(f"--runner {runner}: {reason(error)}") from error
    found = {task.name: part.load(folder / task.name) for task in tasks}
    if lost := [name for name, made in found.items() if made is None]:
        raise AsjaxError(
            f"{len(lost)} of {len(tasks)} units were not made in {shown(folder)}; do all workers "
            "see the same disk?"
        )
    return found


def make_named(name: str, folder: str) -> str:
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

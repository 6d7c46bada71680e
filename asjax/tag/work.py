"""How a unit of `asjax tag --from` is made: here, or on a worker of Apache Beam."""

from __future__ import annotations

import os
import threading
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

from asjax import __version__
from asjax.config import AsjaxError, printable, shown, trust_named, warnings_as_lines
from asjax.tag.events import _OPTIONS as OF_EVENTS
from asjax.tag.units import Units, joined

ALONE = ("out", "json", "tsv", "csv", "audacity", "raven", "frames", "picture")
_alone = threading.Lock()
_mine: tuple = (None, None)  # of a worker process: the run, its Work


def settings(args, found, tagger, choice, size: int, kind: str) -> dict:
    """All that changes a byte of the results, for the manifest."""
    events = {name: getattr(args, name) for name in OF_EVENTS if name not in ALONE}
    return {
        "list": found.hash,
        "recordings": len(found),
        "models": [_model_hash(Path(path)) for path in args.model],
        "weights": args.weights,
        "labels": tagger.label_set.hash,
        **{name: getattr(args, name) for name in ("rest", "reduce", "overlap", "batch_size")},
        **{name: getattr(choice, name) for name in ("classes", "top", "threshold", "rows")},
        "events": events if args.events else None,
        "unit_size": size,
        "format": kind,
        "asjax": __version__,
    }


def _model_hash(path: Path) -> str:
    """The hash of a model, of an ONNX file, or of stored logits."""
    from asjax.predict import onnx_tagger
    from asjax.store import files, logits, model_dir

    if onnx_tagger.is_file(path):
        return files.digest(path)
    return files.digest(path / files.SUMS) if logits.is_folder(path) else model_dir.hash_of(path)


@dataclass
class Work:
    """Makes units.

    Attributes:
      args: the command. choice: `forms.Choice`. look: `events.decoder`, or None for tags.
    """

    args: object
    tagger: object
    choice: object
    store: Units

    def __post_init__(self):
        from asjax.tag import events

        wanted, classes = self.args.events, self.choice.classes
        self.look = events.decoder(self.args, classes, self.tagger) if wanted else None

    def ready(self, unit: int) -> dict | None:
        """What is known about a unit that need not be made, else None."""
        about = self.store.load(unit)
        return None if about is None or (self.args.retry and about["left_out"]) else about

    def make(self, unit: int, tick) -> dict:
        """Tag the recordings of a unit and commit it. `tick` is called after each recording."""
        from asjax.data import audio
        from asjax.tag.tables import table

        store, look = self.store, self.look
        names, waiting = store.collection.names, deque()
        tagged, without, left_out = [], [], []

        def sources():
            for i in store.recordings(unit):
                try:
                    source = store.collection.source(i)
                except AsjaxError as error:  # a damaged shard
                    left_out.append((names[i], printable(str(error))))
                    tick()
                    continue
                waiting.append(names[i])
                yield source

        try:
            with store.writing(unit) as place:
                rows = 0
                with table(
                    place, store.kind, self.choice, self.tagger.label_set, bool(look)
                ) as form:
                    for tags in self.tagger.stream(sources(), decoding=audio.quiet_decoders):
                        name = waiting.popleft()
                        tick()
                        try:
                            if isinstance(tags, Exception):
                                raise tags
                            tags = replace(tags, file=name)
                            count = form(look(tags) if look else tags)
                        except AsjaxError as error:
                            left_out.append((name, printable(str(error))))
                            continue
                        tagged.append(name)
                        rows += count
                        if not count:
                            without.append(name)
                return store.commit(unit, place, tagged, without, left_out, rows)
        except OSError as error:
            from asjax.store.files import reason

            raise AsjaxError(
                f"--to {shown(store.folder)} cannot be written: {reason(error)}"
            ) from None


@dataclass(frozen=True)
class Command:
    """A run, as it travels to the workers of an engine.

    Attributes:
      run: its own name, because a process may work for several runs.
      cwd: where the paths of the command begin.
      args, choice, load: as in `bulk.main`; `load` is a function of a module.
    """

    run: str
    cwd: str
    args: object
    choice: object
    load: object

    def __call__(self, name: str) -> str:
        """Make the unit of a name, if it is not there yet; returns the name.

        A process makes one unit at a time, because a model uses all cores, and loads the models
        once.
        """
        global _mine
        with _alone, warnings_as_lines("asjax tag"):
            if _mine[0] != self.run:
                _mine = (self.run, self._work())
            work = _mine[1]
            if work.ready(int(name)) is None:
                work.make(int(name), lambda: None)
        return name

    def _work(self) -> Work:
        from asjax.tag import collection

        try:
            os.chdir(self.cwd)
        except OSError as error:
            raise AsjaxError(
                f"a worker has no folder {shown(self.cwd)}, where the command was given: "
                f"{error.strerror}"
            ) from None
        args = self.args
        trust_named(args.trust)
        found, tagger = collection.opened(args.source), self.load(args, full=True)
        size, kind = args.unit_size, args.format
        have = settings(args, found, tagger, self.choice, size, kind)
        return Work(args, tagger, self.choice, joined(args.to, found, size, kind, have))

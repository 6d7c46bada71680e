"""The logits of models on a data set: a run that can be stopped, resumed and divided."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np

from asjax import __version__, build, config
from asjax.config import AsjaxError, quoted
from asjax.evaluation.long_recordings import SPARE
from asjax.store import logits_writer
from asjax.store.logits_writer import Form, Row
from asjax.teachers import parts
from asjax.teachers.members import Members

_DATA = ("workers", "threads")
_TARGETS = (
    "multihot",
    "strong",
    "teacher",
)  # host ops that make targets; `listed` takes their place


@dataclass(frozen=True, eq=False)
class Repeated:
    """Several views of the clips of a source: clip i of view v has the number v * len(source) + i.

    Every example has `events`, so that the host ops keep the length of the clip.
    """

    source: object
    count: int = 1

    def __len__(self) -> int:
        return self.count * len(self.source)

    def __getitem__(self, n) -> dict:
        return {"events": None, **self.source[int(n) % len(self.source)]}

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def hash(self) -> str:
        return self.source.hash

    @property
    def ids(self):
        return _Cycle(self.source.ids, len(self))

    @property
    def labels(self):
        return _Cycle(self.source.labels, len(self))

    @property
    def labelled(self):
        mine = getattr(self.source, "labelled", None)
        return None if mine is None else np.tile(mine, self.count)

    @property
    def events(self):
        mine = getattr(self.source, "events", None)
        return _Cycle([None] * len(self.source) if mine is None else mine, len(self))

    def pcm16(self, sample_rate: int) -> bool:
        return hasattr(self.source, "pcm16") and self.source.pcm16(sample_rate)


class _Cycle:
    """A sequence, or the rows of a matrix, repeated up to a length."""

    def __init__(self, values, length: int):
        self._values, self._length = values, length
        self._each = values.shape[0] if hasattr(values, "shape") else len(values)
        self.shape = (length, *getattr(values, "shape", (0,))[1:])

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, n):
        if not 0 <= n < self._length:  # the end of a loop over it
            raise IndexError(n)
        return self._values[int(n) % self._each]


def host_chain(text: str) -> str:
    """A chain of host ops with `listed` in the place of the op that makes targets."""
    kept = [link for link in config.chain(text) if link[0] not in _TARGETS]
    given = [(name, ", ".join(f"{k}={v!r}" for k, v in fields.items())) for name, fields in kept]
    return " | ".join([*(f"{name}({text})" if text else name for name, text in given), "listed"])


def shard_of(steps: int, shard: tuple[int, int]) -> tuple[int, int]:
    """The batches of part i of N, i from 1 on."""
    i, n = shard
    return steps * (i - 1) // n, steps * i // n


class Job:
    """Logits of `members` on `source`.

    Args:
      labelled: the first classes of the source are those of the models; others are left out.
      views: None, or (count, seed). ops: the host chain.
      shard: (i, N), part i of N. With more parts than batches some are empty.
    """

    def __init__(
        self, members: Members, source, *, labelled, top, dtype, views=None, ops=None, shard=(1, 1)
    ):
        self.members, self.source, self.labelled, self.shard = members, source, labelled, shard
        self.ops = host_chain(ops or members.cfg["data"].get("ops") or "decode | crop | multihot")
        count, self.seed = views or (1, 0)
        self.repeated, self.views = Repeated(source, count), views
        self._check()
        about = {"count": count, "seed": self.seed, "ops": self.ops}
        self.form = Form(
            members.label_set,
            dtype,
            clip=True,
            top=top,
            frames=members.frames,
            frame_rate=members.frame_rate,
            views=about if views else None,
            activation=members.activation,
        ).check()
        self.steps = -(-len(self.repeated) // members.batch_size)
        self.begin, self.end = shard_of(self.steps, shard)

    def _check(self) -> None:
        seen = set()
        for clip in self.source.ids:
            if clip in seen:
                raise AsjaxError(
                    f"clip {quoted(clip)} occurs twice in the data; logits are kept by id, so "
                    "every id must occur once"
                )
            seen.add(clip)
        if self.views and len(self.members.groups) > 1:
            raise AsjaxError(
                "--views needs models with one sample rate, because a random view differs between "
                "sample rates"
            )

    def settings(self) -> dict:
        """Everything that changes a logit, for the manifest."""
        form = self.form
        return {
            "models": [[one["sha256"], one["weight"]] for one in self.members.record],
            "data": self.source.hash,
            "batch_size": self.members.batch_size,
            "frames": form.frames,
            "top": form.top,
            "dtype": form.dtype,
            "views": list(self.views) if self.views else None,
            "ops": self.ops,
            "shard": list(self.shard),
            "asjax": __version__,
        }

    def about(self, spec) -> dict:
        """The rest of the manifest."""
        clips = min(self.end * self.members.batch_size, len(self.repeated))
        return {
            "models": self.members.record,
            "data": {
                "spec": config.to_plain(spec),
                "name": self.source.name,
                "clips": len(self.source),
                "hash": self.source.hash,
            },
            "clip_s": self.members.clip_s,
            "sample_rate": self.members.groups[0][0],
            "draws": [self.begin * self.members.batch_size, clips],
        }

    def run(self, store: parts.Parts, progress: bool = True) -> None:
        """Compute and store the batches that are not stored yet."""
        from tqdm import tqdm

        gaps = store.gaps(self.begin, self.end)
        left = sum(b - a for a, b in gaps)
        total = self.end - self.begin
        show = {"desc": "logits", "total": total, "initial": total - left, "unit": "batch"}
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(self._stream(rate)) for rate, *_ in self.members.groups]
            # None: off unless stderr is a terminal
            bar = stack.enter_context(tqdm(**show, disable=None if progress else True))
            for begin, end in gaps:
                with contextlib.ExitStack() as inner:
                    batches = [inner.enter_context(s.iterate(begin)) for s in streams]
                    cut = [self._first(one, end - begin) for one in batches]
                    for step, found in enumerate(self.members.over(cut), begin):
                        self._add(store, step, *found)
                        bar.update()
            store.flush()
            store.wait()

    def _stream(self, sample_rate: int):
        from asjax import sharding

        members, cfg = self.members, self.members.cfg["data"]
        rows = sharding.local_rows(members.mesh, members.batch_size, "batch size")
        return build.pipeline(
            self.repeated,
            batch_size=members.batch_size,
            num_classes=len(members.label_set),
            sample_rate=sample_rate,
            clip_s=members.clip_s,
            train=False,
            random=self.views is not None,
            seed=self.seed,
            rows=rows,
            ops=self.ops,
            cache=False,
            max_bad=1.0,
            **{k: cfg[k] for k in _DATA if k in cfg},
        )

    def _first(self, batches, count: int):
        """The first `count` batches."""
        for _, batch in zip(range(count), batches, strict=False):
            if "wave" not in batch:
                raise AsjaxError(f"the host ops must make a wave; {self.ops!r} make none")
            yield batch

    def _add(self, store, step: int, clip, frames, rests) -> None:
        """Store a batch without its padding and the clips that could not be decoded."""
        first, label_set = rests[0], self.members.label_set
        rate, each = self.members.groups[0][0], len(self.source)
        bad = dict(pair for rest in rests for pair in rest["bad"])
        lengths = first.get("length", np.full(len(clip), round(self.members.clip_s * rate)))
        whole_s = first.get("whole_s", np.zeros(len(clip)))
        labelled = first.get("labelled", np.ones(len(clip)))
        rows, keep, missing, cut = [], [], [], 0
        for row, name in enumerate(first["id"]):
            n = step * self.members.batch_size + row
            if n >= len(self.repeated):
                break
            view = n // each
            if not all(rest["mask"][row] for rest in rests):
                missing.append((name, view, bad.get(name, "it could not be decoded")))
                continue
            known, marks = self._marks(first["labels"][row], first["events"][row])
            known = known if labelled[row] else None
            rows.append(
                Row(
                    name,
                    max(1, int(lengths[row])) / rate,
                    logits_writer.event_text(marks, label_set),
                    logits_writer.label_text(known, label_set),
                    view,
                    n,
                )
            )
            keep.append(row)
            cut += bool(whole_s[row] > self.members.clip_s * (1 + SPARE))
        frames = None if frames is None else frames[keep]
        store.add(step, rows, clip[keep], frames, missing, cut)

    def _marks(self, known, marks):
        """Labels and events in the models' classes; (None, None) if the data have other classes."""
        if not self.labelled:
            return None, None
        count = len(self.members.label_set)
        marks = None if marks is None else marks[marks["class"] < count]
        return [label for label in known if label < count], marks

    def coverage(self, store) -> list[tuple[str, int]]:
        """Prove that every clip and view of this shard is stored or named as missing, once.

        Returns: (id, view) of those that are neither. AsjaxError: one occurs twice.
        """
        size, each = self.members.batch_size, len(self.source)
        draws = range(self.begin * size, min(self.end * size, len(self.repeated)))
        found = [(row.id, row.view) for part in store.done for row in part.rows]
        found += [(clip, view) for part in store.done for clip, view, _ in part.missing]
        there = set(found)
        wanted = {(self.source.ids[n % each], n // each) for n in draws}
        if len(there) != len(found) or there - wanted:
            odd = next(iter(there - wanted), None) or next(k for k in found if found.count(k) > 1)
            raise AsjaxError(f"clip {quoted(odd[0])} is stored twice or is not in the data")
        return sorted(wanted - there)

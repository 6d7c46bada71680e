"""Scores of stored models on data sets: one model or an ensemble, also on other classes.

Members of an ensemble may have different sample rates and frontends: each reads the same clips with
its own. If the data have events in time and every model has frame scores, the frames are scored
too (`Models.found`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from asjax import build, config, labels
from asjax.config import AsjaxError, shown
from asjax.data import content
from asjax.evaluation import (
    data_specs,
    detection_sets,
    detections,
    infer,
    long_recordings,
    mean,
    recordings,
    step_metrics,
    stored_logits,
)
from asjax.evaluation.averages import (
    architecture_differs,
    average_scores,
    average_weights,
    described,
    joined,
    same_clips,
)
from asjax.evaluation.stored_logits import Stored
from asjax.store import logits, model_dir
from asjax.store.scores import activation_of, save_scores

_DATA = ("sample_rate", "clip_s", "workers", "threads", "max_bad")


@dataclass(frozen=True, eq=False)
class _Member:
    """A loaded model with its weights on the devices."""

    cfg: dict
    model: object
    frontend: object
    mesh: object
    variables: object
    forwards: dict = field(default_factory=dict)

    def forward(self, outputs) -> infer.Forward:
        """The compiled forward pass with these outputs."""
        if outputs not in self.forwards:
            made = infer.Forward(self.model, self.frontend, self.mesh, outputs)
            self.forwards[outputs] = made
        return self.forwards[outputs]

    def frames(self, clip_s: float) -> int | None:
        """Number of frames that the model gives for so many seconds; None: it gives no frames."""
        import jax

        samples = round(clip_s * self.cfg["data"]["sample_rate"])
        wave = jax.ShapeDtypeStruct((1, samples), np.float32)
        run = lambda v, w: self.model.apply(v, self.frontend(w), train=False)  # noqa: E731
        found = jax.eval_shape(run, self.variables, wave).get("frame_logits")
        return None if found is None or found.ndim != 3 else found.shape[1]


class Models:
    """One stored model or an ensemble: `Models([dir, ...], average)`.

    A folder of stored logits stands for the model that made it.

    Attributes:
      cfg: config of the first model. label_set: the label set of all models.
      activation: of the scores, "sigmoid" or "softmax".
      record: description of the model or the ensemble for reports.
      batch_size: clips per batch.
      source: the data of the last `score`. scored_labels: the classes of its scores.
      found: its `Detections`, or None if only clips were scored.
      decoding: thresholds and windows of a single model, or None.
      lost: (id, reason) of clips of the last `score` without stored logits. notes: lines about it.
      numbers: for detection.evaluate, if the config of a single model has such a metric, or None.
    """

    def __init__(
        self,
        paths,
        average: str | None = None,
        batch_size: int | None = None,
        weights=None,
        rest: str = "zero",
    ):
        if average and len(paths) < 2:
            raise AsjaxError(f"--average={average} needs several models, got {len(paths)}")
        self.paths, self.average = [str(p) for p in paths], average or "logits"
        self.weights = None if weights is None else mean.weights(weights, len(paths))
        mean.say_twice(paths)
        alone = len(paths) == 1 or self.average == "probabilities"
        self._stored = {
            path: Stored(path, rest, alone) for path in self.paths if logits.is_folder(path)
        }
        if self._stored and self.average == "weights":
            raise AsjaxError(
                f"--average=weights: {shown(next(iter(self._stored)))} holds stored logits, not a "
                "model"
            )
        self.found, self.lost, self.notes = None, [], []
        heads = [self._head(path) for path in self.paths]
        self.cfg, self.label_set, _ = heads[0]
        for path, (cfg, label_set, _) in zip(paths, heads, strict=True):
            labels.check_same(self.label_set, label_set, shown(path), shown(paths[0]))
            if self.average == "weights":
                self._check_architecture(path, cfg)
        self.decoding = heads[0][2].get("decoding") if len(paths) == 1 else None
        self.numbers = _numbers(*heads[0][::2]) if len(paths) == 1 else None
        self._configs = [cfg for cfg, *_ in heads]
        how = next((cfg["eval"] for cfg in self._configs if "eval" in cfg), {})
        self._decides = {k: how[k] for k in ("median_s", "only_with_events") if k in how}
        self._activations = [activation_of(cfg) for cfg in self._configs]
        self.activation = joined(self._activations, self.average)
        self.batch_size = batch_size or self.cfg.get("eval", {}).get("batch_size", 16)
        self.record = _record(self.paths, self.average, heads)
        members = [None] if self.average == "weights" else self.paths
        self._members = members  # None stands for the averaged weights
        # A single model stays loaded. Only one model of an ensemble is in memory at a time.
        self._loaded = lru_cache(maxsize=1)(self._load)

    def _head(self, path: str):
        """Config, label set and card of a member."""
        if path in self._stored:
            return self._stored[path].cfg, self._stored[path].label_set, {}
        cfg, label_set, _, card = model_dir.load_model(path)
        return config.to_plain(cfg), label_set, card

    def _check_architecture(self, path, cfg):
        changed = architecture_differs(self.cfg, cfg)
        if changed:
            raise AsjaxError(
                f"--average=weights: the model {path} has another config than {self.paths[0]}: "
                f"{'; '.join(changed[:5])}; average logits or probabilities instead"
            )

    def variables(self, path=None):
        """The weights of one member; without a path the average of all members."""

        if path is not None:
            return model_dir.load_model(path)[2]
        parts = (model_dir.load_model(p)[2] for p in self.paths)
        return average_weights(parts, self.weights, self.paths)

    def _load(self, path) -> _Member | Stored:
        from asjax import devices, sharding

        if path in self._stored:
            return self._stored[path]

        cfg = self.cfg if path is None else self._configs[self.paths.index(path)]
        devices.setup()
        mesh = sharding.make_mesh(batch_sizes=(self.batch_size,))
        frontend = build.make("frontend", cfg["frontend"])
        model = build.make("model", {**cfg["model"], "num_classes": len(self.label_set)})
        variables = infer.Forward(model, frontend, mesh).put(self.variables(path))
        return _Member(cfg, model, frontend, mesh, variables)

    def own_data(self) -> dict:
        """Spec of the test data in the models' configs, else of the evaluation data.

        Raises:
          AsjaxError: the configs name no such data, or not the same.
        """
        data = [cfg.get("data") or {} for cfg in self._configs]
        specs = [fields.get("test") or fields.get("eval") for fields in data]
        for path, spec in zip(self.paths, specs, strict=True):
            if not spec:
                raise AsjaxError(f"the config of {path} names no evaluation data; give --data")
            if spec != specs[0]:
                raise AsjaxError(
                    f"the configs of {self.paths[0]} and {path} evaluate on different data; give "
                    "--data with clips that none of the models was trained on"
                )
        return specs[0]

    def score(self, spec, out, *, clip_s=None, data_labels=None, wanted=None) -> dict:
        """Score a data set into `out/scores.npz`; returns a description of the data.

        For data with events in time, `events` of the result says why the frames were not scored;
        an empty text means that they were (`self.found`). Then `in_windows` is the number of
        recordings that are longer than `clip_s` and were scored in windows, and `cut` the number
        of those that are a little longer and were cut.

        Args:
          spec: a source of asjax.data.sources. clip_s: seconds per clip (default: the model's).
          data_labels: label set of the data; default: that of the records, else the model's.
          wanted: a `restrict.Wanted`; only its clips are scored.
        """

        theirs, shared, zero_shot = data_specs.fit(spec, data_labels, self.label_set)
        if spec["name"] == "hear" and "piece_s" not in spec:
            spec = {**spec, "piece_s": float(clip_s or self.cfg["data"]["clip_s"])}
        if spec["name"] == "annotated" and "piece_s" not in spec:
            whole = not self._without_frames(clip_s)  # frames are scored in windows, clips are not
            spec = {**spec, "piece_s": 0.0 if whole else clip_s or self.cfg["data"]["clip_s"]}
            if self._stored:  # ids are those of the pieces whose logits are stored
                spec["piece_s"] = next(iter(self._stored.values())).piece_of(clip_s)
        source = build.source(spec, theirs)
        source = self.source = source if wanted is None else wanted.source(source)
        if self._stored:
            members = list(self._stored.values())
            source, self.lost, self.notes = stored_logits.known(source, members)
        bad, self.found, about = [*self.lost], None, {}
        if getattr(source, "events", None) is not None:
            about["events"] = why = self._without_frames(clip_s)
            if not why:
                self.found, more = self._frames_of(source, len(theirs), clip_s, bad)
                about |= more
        if self.found is not None:
            ids, scores, targets = self.found.ids, self.found.logits, self.found.targets
        else:
            ids, scores, targets = self._clips_of(source, len(theirs), clip_s, bad)
        strict = bool(self.cfg.get("labels", {}).get("strict", False))
        extra = {"left_out": sorted({tuple(map(str, item)) for item in bad}), "strict": strict}
        if len(self.paths) > 1:
            extra["ensemble"] = described(self.average, self.paths, self.weights)
        self.scored_labels = self.label_set
        if zero_shot:
            self.scored_labels, extra["zero_shot"] = zero_shot["classes"], zero_shot["about"]
            about["zero_shot"] = extra["zero_shot"]
            scores = np.stack([scores[:, c].max(axis=1) for _, c in shared], axis=1)
            targets = targets[:, [i for i, _ in shared]]
            if self.found is not None:
                self.found = detection_sets.on_shared(self.found, shared, len(theirs))
        save_scores(
            Path(out) / "scores.npz",
            ids=ids,
            scores=scores,
            targets=targets,
            label_set=self.scored_labels,
            extra=extra,
            activation=self.activation,
            content=content.of_source(self.source, ids),
        )
        return {**about, "name": source.name, "clips": len(ids), "hash": source.hash}

    def _without_frames(self, clip_s) -> str:
        """Why frames cannot be scored, or nothing."""
        for path in self._members:
            member = self._loaded(path)
            name = f"the model {path}" if len(self._members) > 1 else "the model"
            if member.frames(clip_s or member.cfg["data"]["clip_s"]) is None:
                return f"{name} has no frame scores"
            if activation_of(member.cfg) != "sigmoid":
                return f"{name} decides for one class per clip, so its frames are no events"
        return ""

    def _clips_of(self, source, n_targets, clip_s, bad):
        """Ids, scores [N, C] and targets [N, n_targets] of the model or the ensemble."""
        ids, targets = None, None

        def members():
            nonlocal ids, targets
            for path in self._members:
                member = self._loaded(path)
                activation = activation_of(member.cfg)
                score = partial(infer.scores, activation=activation, bad=bad)
                if isinstance(member, Stored):
                    found = member.clips(source, n_targets)
                else:
                    data = _data(member.cfg, clip_s)
                    found = self.run(member, score, ("logits",), source, n_targets, data)
                if ids is None:
                    ids, targets = found[0], found[2]
                rows = same_clips(ids, found[0], self.paths[0], path)
                yield found[1][rows]

        if len(self._members) == 1:
            scores = average_scores(members(), "logits", [self.activation])
        else:
            scores = average_scores(members(), self.average, self._activations, self.weights)
        return ids, scores, targets

    def _frames_of(self, source, n_targets, clip_s, bad):
        """`Detections` of the model or the ensemble, and what was done with long recordings."""
        every, about = [], {}
        for path in self._members:
            member = self._loaded(path)
            if isinstance(member, Stored):
                found = member.detections(source, n_targets, **self._decides)
                every.append(recordings.joined(found, source, bad))
                about = {"in_windows": 0, "cut": 0, "clip_s": member.cfg["data"]["clip_s"], **about}
                continue
            data = _data(member.cfg, clip_s)
            seconds, frames = data["clip_s"], member.frames(data["clip_s"])
            data["ops"] = (
                f"decode | crop | strong(frames={frames}, frame_rate={frames / seconds!r})"
            )
            heard = {key: data[key] for key in ("sample_rate", "clip_s")} | self._decides
            score = partial(detections.detections, bad=bad, **heard)
            outputs = ("logits", "frame_logits")
            run = partial(self.run, member, score, outputs, n_targets=n_targets, data=data)
            found = run(source)
            if getattr(source, "recordings", None) is not None:  # pieces side by side
                every.append(recordings.joined(found, source, bad))
                about = {"in_windows": 0, "cut": 0, "clip_s": seconds}
                continue
            long = long_recordings.is_long(found, seconds)
            cut = found.cut() & ~long
            about = {"in_windows": int(long.sum()), "cut": int(cut.sum()), "clip_s": seconds}
            every.append(long_recordings.lengthened(found, source, run, seconds, bad))
        return detection_sets.averaged(every, self.average, self.paths, self.weights), about

    def take(self, variables) -> _Member:
        """Give a single model other weights; its compiled programs stay."""
        member = self._loaded(self.paths[0])
        placed = member.forward(("logits",)).put(variables)
        member = replace(member, variables=placed)
        self._loaded = lambda path: member
        return member

    def run(self, member, score, outputs, source, n_targets, data=None):
        """What `score` makes of the outputs of a member on a source."""
        from asjax import sharding

        data = _data(member.cfg, None) if data is None else data

        stream = build.pipeline(
            source,
            batch_size=self.batch_size,
            train=False,
            num_classes=n_targets,
            rows=sharding.local_rows(member.mesh, self.batch_size, "batch size"),
            **data,
        )
        with stream:
            forward = member.forward(outputs)
            return score(forward, member.variables, stream, len(self.label_set))


def _numbers(cfg, card):
    """The numbers of the config's own metric, with the setting that was chosen in the training."""
    own, events = step_metrics.of(cfg), card.get("events")
    if own is None or not hasattr(own, "numbers_with"):
        return own and own.numbers
    setting = own.stored((events or {}).get("onset_setting")) if isinstance(events, dict) else None
    if setting is None:
        return own.numbers
    return lambda found, tuning, **how: own.numbers_with(found, setting, "other clips", **how)


def _data(cfg, clip_s) -> dict:
    data = {k: cfg["data"][k] for k in _DATA if k in cfg["data"]}
    return {**data, "cache": False, **({"clip_s": clip_s} if clip_s else {})}


def _record(paths, average, heads) -> dict:
    """The card of a single model; for an ensemble, its members and their common fields."""
    numbers = ("scores", "events", "decoding")  # of other data
    cards = [{k: v for k, v in card.items() if k not in numbers} for *_, card in heads]
    models = [{k: cfg["model"].get(k) for k in ("name", "variant")} for cfg, *_ in heads]
    if len(paths) == 1:
        return {**cards[0], "model": models[0]}
    same = {k: cards[0][k] for k in ("hlp", "draw", "train_data") if k in cards[0]}
    same = {k: v for k, v in same.items() if all(card.get(k) == v for card in cards)}
    members = {f"{i + 1}": path for i, path in enumerate(paths)}
    name = models[0] if all(m == models[0] for m in models) else {"name": "ensemble"}
    return {**same, "model": name, "ensemble": {"average": average, **members}}

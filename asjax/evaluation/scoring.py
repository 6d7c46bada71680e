"""Scores of stored models on data sets: one model or an ensemble, also on other classes.

An ensemble is the mean of the members' logits (PaSST and its distilled models), of their
probabilities (AST, PSLA) or of their weights (AST's weight averaging, one architecture). Members
may have different sample rates and frontends: each reads the same clips with its own. A model with
a softmax (objective classify) and one with sigmoids can only be joined by their probabilities.

Data with another label set than the model's are scored *zero-shot*. The score of a data class is
the highest score of the model's classes that share a mid with it. Data classes without a shared mid
are left out. AudioSet's 527 classes cover 192 of FSD50K's 200, as in the HLP paper's Table III.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from asjax import build, config, labels
from asjax.config import AsjaxError, parse_call
from asjax.evaluation import infer
from asjax.metrics.probability import log_both
from asjax.store import model_dir
from asjax.store.scores import activation_of, load_scores, save_scores

AVERAGES = ("logits", "probabilities", "weights")
_DATA = ("sample_rate", "clip_s", "workers", "threads", "max_bad")

# ------------------------------------------------------------------------------- the averages


def average_scores(parts, kind: str = "logits", activations=("sigmoid",)) -> np.ndarray:
    """Average of several models' scores, as scores of `joined(activations, kind)`.

    Args:
      parts: iterable of float [N, C] scores, one per model.
      kind: "logits" or "probabilities". The latter is computed in the log domain, so that confident
        scores are not rounded to 0 or 1.
      activations: "sigmoid" or "softmax" of each part; one stands for all.

    Returns: float32 [N, C]: for sigmoids logits (of mean probabilities: their log-odds), for
      softmaxes log-probabilities.

    Raises:
      AsjaxError: no part, an unknown kind, or different activations whose logits are averaged.
    """
    if kind not in AVERAGES[:2]:
        raise config.unknown("average of scores", kind, AVERAGES[:2])
    softmax = joined(activations, kind) == "softmax"
    activations = list(activations)
    total, mass, n = None, -np.inf, 0
    for part in parts:
        part = np.asarray(part, np.float64)
        if kind == "logits":
            total = part if n == 0 else total + part
            mass = np.logaddexp(mass, _log_sum(part)) if softmax else mass
        else:  # the logs of the sum of p and of the sum of 1 - p
            both = log_both(part, activations[n if len(activations) > 1 else 0])
            total = both if n == 0 else tuple(map(np.logaddexp, total, both))
        n += 1
    if not n:
        raise AsjaxError("an ensemble needs at least one model's scores, got none")
    if kind == "probabilities":  # n cancels in the log-odds
        mean = total[0] - np.log(n) if softmax else total[0] - total[1]
    elif softmax and n > 1:  # a clip keeps its sum of probabilities, which is below 1 for a part
        mean = total / n  # of the classes
        mean = mean - _log_sum(mean) + mass - np.log(n)
    else:
        mean = total / n
    return mean.astype(np.float32)


def _log_sum(scores):
    return np.logaddexp.reduce(scores, axis=1, keepdims=True)


def joined(activations, kind: str) -> str:
    """The activation of an average. AsjaxError: logits of both a sigmoid and a softmax."""
    if len(set(activations)) == 1:
        return next(iter(activations))
    if kind != "probabilities":
        raise AsjaxError(
            "an ensemble of models with one label per clip (softmax) and with several (sigmoid) "
            "can only average their probabilities; give --average=probabilities"
        )
    return "sigmoid"  # the log-odds of the mean probabilities


def average_weights(parts) -> dict:
    """Plain mean of several models' variables (nested dicts of arrays of the same shapes).

    Float arrays are averaged in float64 and converted back to their dtype. Integer buffers, such as
    counters, are copied from the first model.

    Raises:
      AsjaxError: a different name or shape, with the number of the model and the name of the array.
    """
    from flax.traverse_util import flatten_dict, unflatten_dict

    first, total, n = None, {}, 0
    for part in parts:
        n += 1
        flat = {k: np.asarray(v) for k, v in flatten_dict(part, sep="/").items()}
        if first is None:
            first = flat
        for name in sorted({*first, *flat}):
            shapes = [f[name].shape if name in f else "no such array" for f in (first, flat)]
            if shapes[0] != shapes[1]:
                raise AsjaxError(
                    f"average of weights: {name} is {shapes[0]} in model 1 and {shapes[1]} in "
                    f"model {n}; only models of one architecture can be averaged"
                )
            if np.issubdtype(flat[name].dtype, np.floating):
                total[name] = total.get(name, 0.0) + flat[name].astype(np.float64)
    if first is None:
        raise AsjaxError("an average of weights needs at least one model, got none")
    mean = {k: (total[k] / n).astype(v.dtype) if k in total else v for k, v in first.items()}
    return unflatten_dict(mean, sep="/")


def average_files(paths, kind: str = "logits") -> dict:
    """Average of scores files with the same clips and classes, in the format of `load_scores`.

    The clips have the order of the first file.

    Raises:
      AsjaxError: a file has other classes, clips or targets than the first one.
    """
    first, parts, left_out, activations = load_scores(paths[0]), [], [], []
    for path in paths:
        loaded = load_scores(path, first["label_set"])
        rows = _same_clips(first["ids"], loaded["ids"], paths[0], path)
        if not np.array_equal(loaded["targets"][rows], first["targets"]):
            raise AsjaxError(f"the targets in {path} differ from those in {paths[0]}: other labels")
        parts.append(loaded["scores"][rows])
        activations.append(loaded["activation"])
        left_out += (loaded["extra"] or {}).get("left_out", [])
    extra = {
        **(first["extra"] or {}),
        "left_out": sorted({tuple(item) for item in left_out}),
        "ensemble": {"average": kind, "members": [str(p) for p in paths]},
    }
    scores, activation = average_scores(parts, kind, activations), joined(activations, kind)
    return {**first, "scores": scores, "extra": extra, "activation": activation}


def _same_clips(wanted: list, found: list, first, other) -> np.ndarray:
    """Rows of `found` in the order of `wanted`; AsjaxError unless they are the same clips."""
    if wanted == found:
        return np.arange(len(wanted))
    odd = sorted({*wanted} ^ {*found})
    if odd or len(wanted) != len(found) or len({*wanted}) != len(wanted):
        example = f"; for example, {odd[0]!r} is in only one of them" if odd else ""
        raise AsjaxError(
            f"the scores of an ensemble must have the same clips: {first} has {len(wanted)}, "
            f"{other} has {len(found)}{example}"
        )
    row = {clip: i for i, clip in enumerate(found)}
    return np.array([row[clip] for clip in wanted])


# --------------------------------------------------------------------------------- the models


class Models:
    """One stored model or an ensemble: `Models([dir, ...], average)`.

    Attributes:
      cfg: config of the first model. label_set: the label set of all models.
      activation: of the scores, "sigmoid" or "softmax".
      record: description of the model or the ensemble for reports.
      batch_size: clips per batch.
      source: the data of the last `score`.
    """

    def __init__(self, paths, average: str | None = None, batch_size: int | None = None):

        if average and len(paths) < 2:
            raise AsjaxError(f"--average={average} needs several models, got {len(paths)}")
        self.paths, self.average = [str(p) for p in paths], average or "logits"
        heads = [model_dir.load_model(path) for path in paths]
        heads = [(config.to_plain(cfg), label_set, card) for cfg, label_set, _, card in heads]
        self.cfg, self.label_set, _ = heads[0]
        for path, (cfg, label_set, _) in zip(paths, heads, strict=True):
            labels.check_hash(self.label_set.hash, label_set.hash, f"the model {path}")
            if self.average == "weights":
                self._check_architecture(path, cfg)
        self._configs = [cfg for cfg, *_ in heads]
        self._activations = [activation_of(cfg) for cfg in self._configs]
        self.activation = joined(self._activations, self.average)
        self.batch_size = batch_size or self.cfg.get("eval", {}).get("batch_size", 16)
        self.record = _record(self.paths, self.average, heads)
        members = [None] if self.average == "weights" else self.paths
        self._members = members  # None stands for the averaged weights
        # A single model stays loaded. Only one model of an ensemble is in memory at a time.
        self._loaded = lru_cache(maxsize=1)(self._load)

    def _check_architecture(self, path, cfg):
        same = [
            {"model": c["model"], "frontend": c["frontend"], "rate": c["data"]["sample_rate"]}
            for c in (self.cfg, cfg)
        ]
        changed = config.differences(*same)
        if changed:
            raise AsjaxError(
                f"--average=weights: the model {path} has another config than {self.paths[0]}: "
                f"{'; '.join(changed[:5])}; average logits or probabilities instead"
            )

    def variables(self, path=None):
        """The weights of one member; without a path the average of all members."""

        if path is not None:
            return model_dir.load_model(path)[2]
        return average_weights(model_dir.load_model(p)[2] for p in self.paths)

    def _load(self, path):
        """Config, forward pass and placed weights of a member."""
        from asjax import devices, sharding

        cfg = self.cfg if path is None else self._configs[self.paths.index(path)]
        devices.setup()
        mesh = sharding.make_mesh(batch_sizes=(self.batch_size,))
        frontend = build.make("frontend", cfg["frontend"])
        model = build.make("model", {**cfg["model"], "num_classes": len(self.label_set)})
        forward = infer.Forward(model, frontend, mesh)
        return cfg, forward, forward.put(self.variables(path))

    def own_data(self) -> dict:
        """Spec of the test data in the models' configs, else of the evaluation data.

        Raises:
          AsjaxError: the configs name no such data, or not the same.
        """
        data = [cfg.get("data") or {} for cfg in self._configs]
        specs = [fields.get("test") or fields.get("eval") for fields in data]
        if not specs[0]:
            raise AsjaxError(f"the config of {self.paths[0]} names no evaluation data; give --data")
        for path, spec in zip(self.paths, specs, strict=True):
            if spec != specs[0]:
                raise AsjaxError(
                    f"the configs of {self.paths[0]} and {path} evaluate on different data; give "
                    "--data with clips that none of the models was trained on"
                )
        return specs[0]

    def score(self, spec, out, *, clip_s=None, data_labels=None) -> dict:
        """Score a data set into `out/scores.npz`; returns a description of the data.

        Args:
          spec: a source of asjax.data.sources. clip_s: seconds per clip (default: the model's).
          data_labels: label set of the data; default: that of the records, else the model's.
        """

        theirs = labels_of(spec, data_labels, self.label_set)
        shared, zero_shot = _shared(theirs, self.label_set)
        source = self.source = build.source(spec, theirs)
        ids, targets, bad = None, None, []

        def members():
            nonlocal ids, targets
            for path in self._members:
                found = self._run(path, source, len(theirs), clip_s, bad)
                if ids is None:
                    ids, targets = found[0], found[2]
                rows = _same_clips(ids, found[0], self.paths[0], path)
                yield found[1][rows]

        if len(self._members) == 1:
            scores = average_scores(members(), "logits", [self.activation])
        else:
            scores = average_scores(members(), self.average, self._activations)
        strict = bool(self.cfg.get("labels", {}).get("strict", False))
        extra = {"left_out": sorted({tuple(map(str, item)) for item in bad}), "strict": strict}
        if len(self.paths) > 1:
            extra["ensemble"] = {"average": self.average, "members": self.paths}
        kept = self.label_set
        if zero_shot:
            kept, extra["zero_shot"] = zero_shot["classes"], zero_shot["about"]
            scores = np.stack([scores[:, c].max(axis=1) for _, c in shared], axis=1)
            targets = targets[:, [i for i, _ in shared]]
        save_scores(
            Path(out) / "scores.npz",
            ids=ids,
            scores=scores,
            targets=targets,
            label_set=kept,
            extra=extra,
            activation=self.activation,
        )
        about = {"name": source.name, "clips": len(ids), "hash": source.hash}
        return {**about, **({"zero_shot": extra["zero_shot"]} if zero_shot else {})}

    def _run(self, path, source, n_targets, clip_s, bad):
        """Ids, scores [N, C] and targets [N, n_targets] of one member."""
        from asjax import sharding

        cfg, forward, variables = self._loaded(path)
        data = {k: cfg["data"][k] for k in _DATA if k in cfg["data"]}
        stream = build.pipeline(
            source,
            batch_size=self.batch_size,
            train=False,
            num_classes=n_targets,
            rows=sharding.local_rows(forward.mesh, self.batch_size, "batch size"),
            **{**data, "cache": False, **({"clip_s": clip_s} if clip_s else {})},
        )
        with stream:
            return infer.scores(
                forward,
                variables,
                stream,
                len(self.label_set),
                activation=activation_of(cfg),
                bad=bad,
            )


def _record(paths, average, heads) -> dict:
    """The card of a single model; for an ensemble, its members and their common fields."""
    cards = [{k: v for k, v in card.items() if k != "scores"} for *_, card in heads]
    models = [{k: cfg["model"].get(k) for k in ("name", "variant")} for cfg, *_ in heads]
    if len(paths) == 1:
        return {**cards[0], "model": models[0]}
    same = {k: cards[0][k] for k in ("hlp", "draw", "train_data") if k in cards[0]}
    same = {k: v for k, v in same.items() if all(card.get(k) == v for card in cards)}
    members = {f"{i + 1}": path for i, path in enumerate(paths)}
    name = models[0] if all(m == models[0] for m in models) else {"name": "ensemble"}
    return {**same, "model": name, "ensemble": {"average": average, **members}}


# ----------------------------------------------------------------------------------- the data


def data_spec(text: str) -> tuple[dict, str]:
    """`--data` -> (spec, short name for folders).

    The text is a source, the folder of a record dataset, or the user's own clips as in `asjax
    train`: a CSV of file names and labels, or a folder with one such list or with class folders.
    """
    from asjax.data import records

    path = Path(text)
    if path.is_file() or (path.is_dir() and not records.is_dataset(path)):
        from asjax.own import data

        return data.spec_of(text), path.stem if path.is_file() else path.resolve().name
    if path.is_dir():
        folder = path.resolve()
        name = folder.parent.name if records.is_version(folder.name) else folder.name
        return dict(name="records", path=text), name
    try:
        name, fields = parse_call(text)
    except AsjaxError as error:
        what = f"--data {text!r} is neither a folder of records nor a source"
        raise AsjaxError(
            f"{what}, nor a CSV or a folder of class folders: {error}; for a CSV beside other "
            "audio give \"folder(csv='x.csv', root='audio')\""
        ) from None
    return dict(name=name, **fields), name


def labels_of(spec: dict, given, label_set):
    """The label set of the data: `given`, else that of a record dataset, else the model's."""
    if given:
        return labels.get(given)
    if spec["name"] != "records" or spec.get("convert") or "path" not in spec:
        return label_set
    from asjax.data import records

    manifest = records.Dataset(spec["path"]).manifest["label_set"]
    if manifest["hash"] == label_set.hash:
        return label_set
    path = records.find(spec["path"]) / "labels.csv"
    recorded = labels.LabelSet.from_csv(path, manifest["name"])
    labels.check_hash(manifest["hash"], recorded.hash, f"{path}")
    return recorded


def _shared(theirs, ours):
    """The mapping from the data's classes to the model's classes.

    Returns: `([], None)` for the same label set. Otherwise `[(their index, our indices), ...]` of
    the shared classes, and `{"classes": LabelSet, "about": dict for the scores file}`.
    """
    if theirs.hash == ours.hash:
        return [], None
    table = labels.mapping(theirs, ours)
    rows = np.flatnonzero(table.any(axis=1))
    if not len(rows):
        raise AsjaxError(
            f"the data's classes ({theirs.name}, label hash {theirs.hash}) and the model's "
            f"({ours.name}, label hash {ours.hash}) share no AudioSet mid, so nothing can be scored"
        )
    classes = labels.LabelSet(
        f"{theirs.name}_shared{len(rows)}",
        tuple(theirs.ids[i] for i in rows),
        tuple(theirs.names[i] for i in rows),
        tuple(theirs.mids[i] for i in rows) if theirs.mids else (),
    )
    about = {
        "label_set": theirs.name,
        "label_hash": theirs.hash,
        "shared": len(rows),
        "of": len(theirs),
        "left_out": [theirs.names[i] for i in np.flatnonzero(~table.any(axis=1))],
    }
    pairs = [(int(i), np.flatnonzero(table[i])) for i in rows]
    return pairs, {"classes": classes, "about": about}

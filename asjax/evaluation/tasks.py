"""What a model is trained for: tags of clips, or events in time. `asjax train` asks a task for its
forward outputs, its metric while it trains, and its report at the end.

The objective of the config chooses it: `Tags`, or `Events`, which scores the tags of clips too.
"""

from __future__ import annotations

import math

from asjax import config
from asjax.config import AsjaxError, split_spec
from asjax.data import content
from asjax.evaluation import (
    detection,
    detections,
    evaluate,
    infer,
    one_label,
    recordings,
    step_metrics,
)
from asjax.store import scores

_ABOUT_EVENTS = ("n_bootstrap", "history", "record", "listen")  # what the page of events needs
EVENTS = ("detection",)  # objectives, or bases of distillation, whose models give events in time


def of(cfg):
    """The task of a config: `Events` or `Tags`."""
    return (Events if is_detection(cfg) else Tags)(cfg)


def is_detection(cfg) -> bool:
    name, fields = split_spec(cfg.get("objective") or "tagging")
    return (fields.get("base", "tagging") if name == "distillation" else name) in EVENTS


class Tags:
    """Clips with labels."""

    outputs = ("logits",)
    option = ""  # of asjax tag, for the results of this task
    tunes = False  # whether the report wants the scores of the clips that chose the step
    known = ("mean_ap", "mean_auc", "d_prime", "accuracy")

    def __init__(self, cfg):
        self.cfg, self.activation = cfg, scores.activation_of(cfg)

    def metric(self, eval_source) -> str:
        """The logged metric that chooses the step.

        Raises:
          AsjaxError: it does not fit the task or the data.
        """
        default = "accuracy" if self.activation == "softmax" else self.known[0]
        metric = self.cfg["eval"]["metric"] or default
        if metric not in self.known:
            raise AsjaxError(
                f"eval.metric={config.quoted(metric)} does not fit objective "
                f"{split_spec(self.cfg['objective'])[0]}; take one of {', '.join(self.known)}"
            )
        if metric == "accuracy" and (eval_source.labels.sum(axis=1) != 1).any():
            raise AsjaxError(
                "eval.metric='accuracy' needs exactly one label for each clip of data.eval; take "
                "mean_ap, mean_auc or d_prime"
            )
        return metric

    def predict(self, forward, variables, data, num_classes, **how):
        """Scores of the clips of `data`: (ids, scores [N, C], targets [N, C])."""
        return infer.scores(
            forward, variables, data, num_classes, activation=self.activation, **how
        )

    def trace(self, found) -> dict:
        """The metrics that training logs."""
        return evaluate.trace(found[1], found[2], self.activation)

    def write(self, found, out, *, label_set, extra, tuning=None, source=None, **about):
        """Write scores, metrics and report to `out`.

        Args:
          found: of `predict`. extra: JSON for the scores file. about: as evaluate.evaluate_scores.
          tuning: of `predict` on other clips, for a task that `tunes`.
          source: of the clips, for the hashes of their audio.

        Returns: (record for the model's card, text for people, names of the tables).
        """
        ids, logits, targets = found
        path = out / "scores.npz"
        columns = dict(ids=ids, scores=logits, targets=targets)
        columns["content"] = None if source is None else content.of_source(source, ids)
        scores.save_scores(
            path, **columns, label_set=label_set, extra=extra, activation=self.activation
        )
        summary = evaluate.evaluate_scores(path, out, label_set=label_set, **about)
        text, tables = evaluate.table(summary), one_label.tables(summary)
        return {"scores": evaluate.headline(summary)}, text, tables


class Events(Tags):
    """Clips with events in time. The tags of the clips are scored too."""

    outputs = ("logits", "frame_logits")
    option = "--events"
    tunes = True
    known = ("psds1", "mean_ap", *step_metrics.__all__)

    def __init__(self, cfg):
        super().__init__(cfg)
        self.own = step_metrics.of(cfg)

    def metric(self, eval_source) -> str:
        if getattr(eval_source, "events", None) is None:
            name = split_spec(self.cfg["objective"])[0]
            raise AsjaxError(
                f"objective {name} needs events in time, and {eval_source.name} has only labels; "
                "asjax prepare strong writes records with events"
            )
        if getattr(eval_source, "recordings", None) is not None:
            recordings.check(eval_source, self.cfg["data"]["clip_s"])
        if self.own is None:
            return super().metric(eval_source)
        self.own.check(eval_source)
        return self.own.step_metric

    def predict(self, forward, variables, data, num_classes, bad=None, **how):
        fields = {key: self.cfg["data"][key] for key in ("sample_rate", "clip_s")}
        fields |= {key: self.cfg["eval"][key] for key in ("median_s", "only_with_events")}
        found = detections.detections(
            forward, variables, data, num_classes, bad=bad, **fields, **how
        )
        return recordings.joined(found, data.source, bad)

    def trace(self, found) -> dict:
        values = detections.trace(found)
        if self.own is None:
            return values
        if math.isnan(values["loss"]):  # the model has diverged
            return values | dict.fromkeys(self.own.names, math.nan)
        return values | self.own.trace(found)

    def write(self, found, out, *, label_set, extra, tuning=None, **about):
        tags = (found.ids, found.logits, found.targets)
        card, text, tables = super().write(tags, out, label_set=label_set, extra=extra, **about)
        more = {key: about[key] for key in _ABOUT_EVENTS if key in about}
        if self.own is not None:
            more["numbers"] = self.own.numbers
        summary = detection.evaluate(found, out, label_set=label_set, tuning=tuning, **more)
        card |= {"events": summary["events"], "decoding": summary["decoding"]}
        lines = [detection.table(summary), f"events       {out / 'events.html'}"]
        if (cut := found.cut()).any():
            first, most = config.shown(found.ids[cut.argmax()]), self.cfg["data"]["clip_s"]
            lines.append(
                f"clips longer than {most:g} s: {cut.sum()}, first {first}; only their beginning "
                "was scored here, asjax eval --model scores the whole of them"
            )
        text = "\n".join([*lines, "", text])
        return card, text, f"events.json, per_class_events.csv, {tables}"

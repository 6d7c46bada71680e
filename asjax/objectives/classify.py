"""One class per clip, one softmax over the classes; and the choice between this and tagging."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from asjax.config import AsjaxError, split_spec
from asjax.objectives.checks import (
    as_class_weights,
    check_classes,
    check_one_label,
    check_rows,
    check_share,
    label_counts,
)
from asjax.objectives.forward import of_clips
from asjax.objectives.losses import cross_entropy


def classify(
    *,
    model,
    frontend,
    augment: dict[str, Any] | None = None,
    closure: np.ndarray | None = None,
    source=None,
    label_smoothing: float = 0.0,
    class_weights=None,
):
    """One class per clip: softmax cross entropy, also of targets mixed by mixup.

    Args:
      model, frontend, augment: as in `tagging`.
      closure: must be None, because HLP gives several labels to a clip.
      source: the training clips, with `labels` (sparse [N, C]), `ids` and `name`: they are checked,
        and "balanced" counts them. None: no check.
      label_smoothing: a in `y (1 - a) + a / C`, after mixup.
      class_weights: None; "balanced": N / (K n_c) for the n_c clips of each of the K classes that
        have any (scikit-learn's rule; 0 for a class without clips); or a list with one weight per
        class. A draw that balances the classes does this too: use one of both.

    Returns:
      `loss_fn(params, stats, batch, rng) -> (loss, (scalars, new_stats))`.

    Raises:
      AsjaxError: HLP is on, a clip without exactly one label, fewer than two classes, weights that
        do not fit, or as `tagging`. Targets inside jit are not checked.
    """
    check_share("label_smoothing", label_smoothing)
    if closure is not None:
        raise AsjaxError(
            "objective classify needs one label per clip, and HLP gives a clip several; set "
            "--config.labels.hlp=False, or --config.objective.name=tagging"
        )
    if source is not None:
        check_one_label(source)
    counts = None if source is None else np.asarray(source.labels.sum(axis=0)).ravel()
    weights = as_class_weights(class_weights, counts)

    def hard(batch):
        if not isinstance(batch["target"], jax.core.Tracer):  # values are not known inside jit
            check_rows(np.asarray(batch["target"]), np.asarray(batch["mask"]))
        return {"target": batch["target"]}

    def loss(outputs, item):
        classes = item["target"].shape[-1]
        check_classes(classes, weights)
        target = item["target"] * (1.0 - label_smoothing) + label_smoothing / classes
        return {"loss": cross_entropy(outputs["logits"], target, item["mask"], weights)}

    return of_clips(model, frontend, augment, hard, loss)


def auto(*, label_smoothing: float = 0.0, class_weights=None):
    """`classify` if every training clip has exactly one label, else `tagging`; see `choose`.

    Raises:
      AsjaxError: always. `asjax train` replaces this name before it builds the objective.
    """
    raise AsjaxError(
        "objective auto stands for classify or tagging; choose one with asjax.objectives.choose"
    )


def choose(spec, source, *, hlp=False, multilabel=False) -> tuple[Any, str]:
    """The objective of a config for the training clips, and one line that says why ("": as given).

    Args:
      spec: the config's `objective`. source: the training clips, with `labels` (sparse [N, C]).
      hlp: labels are propagated. multilabel: the user wants `tagging`.

    Raises:
      AsjaxError: `multilabel` with `classify`, or `class_weights` for clips with several labels.
    """
    name, fields = split_spec(spec)
    if name == "classify" and multilabel:
        raise AsjaxError(
            "--multilabel trains with objective tagging, and the config names classify; leave out "
            "--multilabel, or set --config.objective.name=tagging"
        )
    if name != "auto":
        return spec, ""
    clips, classes = source.labels.shape
    others = int((label_counts(source) != 1).sum())
    if multilabel:
        why = "--multilabel is given"
    elif hlp:
        why = "labels.hlp gives a clip several labels"
    elif others:
        why = f"{others:,} of {clips:,} training clips have no label or several"
    elif classes < 2:
        why = "there is only one class"
    else:
        return {"name": "classify", **fields}, (
            "objective classify (softmax): every training clip has exactly one label; --multilabel "
            "trains one sigmoid per class instead"
        )
    if fields.pop("class_weights", None) is not None:
        raise AsjaxError(
            f"objective.class_weights needs objective classify, but {why}; remove class_weights"
        )
    return {"name": "tagging", **fields}, f"objective tagging (one sigmoid per class): {why}"

"""Distillation: a student learns from the labels and from the logits of a teacher."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asjax import hlp
from asjax.config import AsjaxError, unknown
from asjax.objectives.checks import check_loss_weights, check_share, frame_logits
from asjax.objectives.forward import of_clips, propagated
from asjax.objectives.losses import bce_of_rows, mean_of_rows

# base -> name of a loss: (output of the model, labels, teacher, flag of clips that have the labels)
PARTS = {
    "tagging": {"label": ("logits", "target", "clip_teacher", "has_weak")},
    "detection": {
        "strong": ("frame_logits", "frame_target", "teacher", "has_strong"),
        "weak": ("logits", "target", "clip_teacher", "has_weak"),
    },
}
LIMIT = 10.0  # largest logit of a teacher with on="logits"


def distillation(
    *,
    model,
    frontend,
    augment: dict[str, Any] | None = None,
    closure: np.ndarray | None = None,
    load=None,
    base: str = "tagging",
    teacher=None,
    weight: float = 0.9,
    weight_of: str = "teacher",
    temperature: float = 1.0,
    on: str = "probabilities",
    propagate_teacher: bool = True,
    strong_weight: float = 1.0,
    weak_weight: float = 1.0,
    class_mask: np.ndarray | None = None,
):
    """The loss of `tagging` or `detection` on labels, and the same on a teacher's probabilities.

        loss = w BCE(student, sigmoid(teacher)) + (1 - w) BCE(student, labels)

    PretrainedSED (frames): w = 0.9, `base="detection", weight=0.9, weak_weight=0`. EfficientAT
    (clips) names the weight of the labels, kd_lambda = 0.1: `weight=0.1, weight_of="labels"`. CED
    has no labels: `weight=1`. ATST-C2F: `weight=0.5`.

    A clip without a teacher learns from its labels with full weight, and a clip without labels from
    its teacher. (EfficientAT gives a clip without a teacher only the share of its labels.) The
    teacher's logits are stored (the host op `teacher`), or come from frozen models that hear the
    wave of the student after `augment.wave`. Augmentations move its probabilities as labels. So
    mixtures have mixed probabilities, and a mixture has a teacher only if both clips have one.

    Args:
      model, frontend, augment: as in `tagging`.
      closure: bool [C, C] for HLP on the labels; None: no HLP.
      load: from the program: (paths, names of outputs) -> the models as one, see
        asjax.teachers.online.
      base: "tagging": one loss of the clip. "detection": of the frames and of the clip; a loss
        whose teacher is missing is that of the labels.
      teacher: a model folder, or several: the mean of their logits. None: stored logits.
      weight, weight_of: the weight of the teacher's loss, or of the labels' loss ("labels").
      temperature: T in T^2 BCE(student / T, sigmoid(teacher / T)) (Hinton et al. 2015). It does not
        act on labels. The published recipes above have T = 1.
      on: "probabilities", as above. "logits": mean squared difference of the logits in place of the
        BCE (Ba and Caruana 2014), the teacher's limited to +-10.
      propagate_teacher: with a closure, an ancestor gets the maximum of its descendants'
        probabilities. A teacher that was trained with HLP hardly needs it.
      strong_weight, weak_weight: weights of frames and clip, as in `detection`.
      class_mask: [C], 0 leaves a class out of the loss.

    Returns:
      `loss_fn(params, stats, batch, rng, frozen=None) -> (loss, (scalars, new_stats))`. Scalars:
      losses of labels (label_loss, or strong_loss and weak_loss) and of the teacher (teacher_loss,
      or strong_teacher_loss and weak_teacher_loss), and with_teacher and with_labels, the shares
      of clips that have them. `loss_fn.frozen`: the weights of models, to pass in each call; None
      without models.

    Raises:
      AsjaxError: a field out of range, or as `tagging`. When traced: no teacher in the batch, or
        one of another shape.
    """
    _check(base, weight, weight_of, temperature, on, propagate_teacher)
    check_loss_weights(strong_weight, weak_weight)
    parts = PARTS[base]
    scale = {"label": 1.0, "strong": strong_weight, "weak": weak_weight}
    share = weight if weight_of == "teacher" else 1.0 - weight
    online = None if teacher is None else _loaded(load, teacher, parts)

    def soft(logits):
        scores = jax.nn.sigmoid(logits.astype(jnp.float32) / temperature)
        if closure is None or not propagate_teacher:
            return scores
        return hlp.propagate_scores(scores, closure)

    def hard(batch):
        _check_batch(batch, parts, online)
        out = propagated(batch, closure, *(labels for _, labels, *_ in parts.values()))
        if online is None:
            out |= {key: soft(batch[key]) for _, _, key, _ in parts.values() if key in batch}
            out["has_teacher"] = batch.get("has_teacher", jnp.ones_like(batch["mask"]))
        mask = batch["mask"]
        labels = [batch.get(flag, jnp.ones_like(mask)) for *_, flag in parts.values()]
        counts = {
            "with_teacher": out.get("has_teacher", jnp.ones_like(mask)),
            "with_labels": functools.reduce(jnp.maximum, labels),
        }  # before clips are mixed
        size = jnp.maximum(mask.sum(), 1.0)
        return out | {k: jnp.full(mask.shape, (v * mask).sum() / size) for k, v in counts.items()}

    def hear(item, frozen):
        outputs = online.apply(online.variables if frozen is None else frozen, item["wave"])
        out = {key: soft(outputs[name]) for name, _, key, _ in parts.values() if name in outputs}
        _check_shapes({**item, **out}, parts)
        return {**item, **out, "has_teacher": jnp.ones_like(item["mask"])}

    def distance(logits, scores):
        """The teacher's loss of every row, [B]."""
        if on == "probabilities":
            return temperature**2 * bce_of_rows(logits / temperature, scores, class_mask)
        wanted = jnp.clip(jnp.log(scores) - jnp.log1p(-scores), -LIMIT, LIMIT)
        return mean_of_rows(jnp.square(logits - wanted), class_mask)

    def loss(outputs, item):
        total, scalars = 0.0, {}
        for name, (output, labels, key, _) in parts.items():
            logits = outputs["logits"]
            if output == "frame_logits":
                logits = frame_logits(model, outputs, item[labels])
            logits, known = logits.astype(jnp.float32), _known(item, parts[name])
            plain = bce_of_rows(logits, item[labels], class_mask)
            scalars[f"{name}_loss"] = _mean(item, f"{name}_labels", known["labels"], plain)
            rows = known["labels"] * plain
            if key in item:
                far = distance(logits, item[key])
                to = known["teacher"] * jnp.where(known["labels"] > 0, share, 1.0)
                rows = (known["any"] - to) * plain + to * far
                title = "teacher_loss" if name == "label" else f"{name}_teacher_loss"
                scalars[title] = _mean(item, f"{name}_teacher", known["teacher"], far)
            total += scale[name] * _mean(item, f"{name}_any", known["any"], rows)
        mask = item["mask"]
        size = jnp.maximum(mask.sum(), 1.0)
        counts = {k: (item[k] * mask).sum() / size for k in ("with_teacher", "with_labels")}
        return {"loss": total, **scalars, **counts}

    loss_fn = of_clips(model, frontend, augment, hard, loss, hear if online else None)
    loss_fn.whole = lambda batch: _whole(batch, parts, online)
    loss_fn.frozen = online and online.variables
    loss_fn.notes, loss_fn.identity = (online.notes, online.identity) if online else ((), "")
    return loss_fn


# --------------------------------------------------------------------------------- clips that count


def _known(item, part) -> dict:
    """[B] of 0 and 1: which clips have labels, a teacher, any of them, for one loss."""
    _, _, key, flag = part
    ones = jnp.ones_like(item["mask"])
    labels = item.get(flag, ones)
    teacher = item.get("has_teacher", ones) if key in item else 0 * ones
    return {"labels": labels, "teacher": teacher, "any": jnp.maximum(labels, teacher)}


def _mean(item, name: str, counts, values):
    """Mean of values [B] over the clips that count; in a part of a batch, see `_whole`.

    Values of clips that do not count must be 0 or are left out.
    """
    mask = item["mask"] * counts
    total = (mask * values).sum()
    share = item.get(f"share_{name}")
    size = mask.sum() if share is None else share[0] * item["mask"].sum()
    return jnp.where(size > 0, total / jnp.where(size > 0, size, 1.0), 0.0)


def _whole(batch, parts, online):
    """`batch` with the shares of its clips that count for each mean, [B] each, as in `detection`.

    With the shares of the batch, the losses of its parts add up to the loss of the batch.
    """
    mask, shares = batch["mask"], {}
    real = jnp.maximum(mask.sum(), 1.0)
    for name, part in parts.items():
        seen = {**batch, part[2]: None} if online and part[0] in online.outputs else batch
        for kind, counts in _known(seen, part).items():
            shares[f"share_{name}_{kind}"] = jnp.full(mask.shape, (mask * counts).sum() / real)
    return {**batch, **shares}


# ------------------------------------------------------------------------------------------- checks


def _check(base, weight, weight_of, temperature, on, propagate_teacher) -> None:
    for name, value, known in (
        ("base", base, PARTS),
        ("weight_of", weight_of, ("teacher", "labels")),
        ("on", on, ("probabilities", "logits")),
    ):
        if value not in known:
            raise unknown(f"objective.{name}", value, known)
    check_share("weight", weight)
    number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    if not number or not 0.01 <= temperature <= 100:
        raise AsjaxError(
            f"objective.temperature must be a number from 0.01 to 100, got {temperature!r}"
        )
    if on == "logits" and temperature != 1:
        raise AsjaxError("objective.temperature has no meaning with on='logits'; leave it out")
    if not isinstance(propagate_teacher, bool):
        raise AsjaxError(
            f"objective.propagate_teacher must be True or False, got {propagate_teacher!r}"
        )


def _loaded(load, teacher, parts):
    """The models of an online teacher. AsjaxError: they have none of the outputs of this base."""
    paths = [teacher] if isinstance(teacher, str) else teacher
    texts = isinstance(paths, (list, tuple)) and all(isinstance(p, str) and p for p in paths)
    if not texts or not paths:
        raise AsjaxError(f"objective.teacher must be one or several model folders, got {teacher!r}")
    if load is None:
        raise AsjaxError("objective distillation with a teacher needs load, as in asjax train")
    wanted = {part[0] for part in parts.values()}
    online = load(list(paths), wanted)
    if not wanted & set(online.outputs):
        raise AsjaxError(f"objective.teacher {paths[0]!r} must give logits, got {online.outputs}")
    return online


def _check_batch(batch, parts, online) -> None:
    for name, (_, labels, *_) in parts.items():
        if labels not in batch:
            raise AsjaxError(
                f"objective distillation with base='detection' needs {labels} ({name} labels) from "
                'the host op strong; set --config.data.ops="decode | crop | strong | ..."'
            )
    keys = [key for _, _, key, _ in parts.values()]
    stored = [key for key in keys if key in batch]
    if online is not None:
        if {"teacher", "clip_teacher"} & batch.keys():
            raise AsjaxError(
                "objective distillation has two teachers, objective.teacher and the host op "
                "teacher in data.ops; leave one out"
            )
    elif not stored:
        other = ", the batch has frame logits only" if "teacher" in batch else ""
        raise AsjaxError(
            f"objective distillation needs a teacher: {' or '.join(keys)} from the host op teacher "
            f"(add teacher(path=FOLDER) to data.ops), or objective.teacher{other}"
        )
    else:
        _check_shapes(batch, parts)


def _check_shapes(batch, parts) -> None:
    for _, labels, key, _ in parts.values():
        if key in batch and batch[key].shape != batch[labels].shape:
            raise AsjaxError(
                f"objective distillation: {key} must have the shape of {labels}, "
                f"{list(batch[labels].shape)}, got {list(batch[key].shape)}; teacher and student "
                "must have the same classes and the same frames per second"
            )

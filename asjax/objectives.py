"""Objectives: batch + model -> loss, scalars, new statistics. Pure, run inside the jitted step.

A batch has `wave` [B, S], `target` [B, C], `mask` [B], and all other arrays [B, ...] from the host
ops of the config. A wave may be int16, so an objective begins with `to_float`. The host op `strong`
adds `frame_target` [B, T', C], `has_strong` [B] and `has_weak` [B].

The order for targets is fixed and tested: HLP on the hard labels, then mixup (in `augment`), then
label smoothing. HLP must come before mixup, because propagating mixed labels gives other targets
than mixing propagated labels.

`tagging` has one sigmoid per class: a clip may have no, one or several labels. `classify` has one
softmax over the classes: every clip has exactly one label. `auto` stands for one of them, and
`choose` decides by the labels of the training clips. `detection` has one sigmoid per class and
frame, and one per class and clip.
"""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from asjax import hlp
from asjax.config import AsjaxError, quoted, shown, split_spec
from asjax.frontends import to_float

__all__ = ["auto", "classify", "detection", "tagging"]

AUGMENT_PLACES = ("wave", "feats", "normed")


def bce(logits, target, mask=None, class_mask=None):
    """Mean binary cross-entropy of logits [B, C], in float32, without masked rows and classes.

    Args:
      mask: [B], 0 for padding rows. class_mask: [C], 0 for classes to leave out of the loss.
    """
    loss = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), target)  # [B, C]
    weight = jnp.ones_like(loss)
    if mask is not None:
        weight = weight * mask[:, None]
    if class_mask is not None:
        weight = weight * jnp.asarray(class_mask, jnp.float32)[None, :]
    return jnp.sum(loss * weight) / jnp.maximum(jnp.sum(weight), 1.0)


def cross_entropy(logits, target, mask=None, class_weights=None):
    """Mean softmax cross entropy of logits [B, C] in float32: -sum_c w_c t_c log p_c of each row.

    It is a mean over rows without the masked ones, also with weights. So parts of a batch add up.

    Args:
      target: [B, C], soft or hard, each row with sum 1. mask: [B], 0 for padding rows.
      class_weights: [C], the weight w_c of each class; None: 1.
    """
    target = target.astype(jnp.float32)
    if class_weights is not None:
        target = target * jnp.asarray(class_weights, jnp.float32)[None, :]
    loss = optax.softmax_cross_entropy(logits.astype(jnp.float32), target)  # [B]
    mask = jnp.ones_like(loss) if mask is None else mask
    return jnp.sum(loss * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def smooth(target, amount: float):
    """Label smoothing of independent binary targets: `y (1 - a) + a / 2`."""
    return target * (1.0 - amount) + 0.5 * amount if amount else target


def tagging(
    *,
    model,
    frontend,
    augment: dict[str, Any] | None = None,
    closure: np.ndarray | None = None,
    label_smoothing: float = 0.0,
    class_mask: np.ndarray | None = None,
):
    """Clip tagging with BCE (HLP paper; Dataset balancing paper; PANNs, ConvNeXt, PaSST recipes).

    Args:
      model: linen module, `feats [B, T, F] -> {"logits": [B, C], ...}`.
      frontend: `wave [B, S] -> feats [B, T, F]`.
      augment: place -> op chain `(rng, batch) -> batch`. Places: `wave`, `feats` (frontend output)
        and `normed` (after the model's input normalisation, where PANNs and ConvNeXt augment).
      closure: bool [C, C] (child, ancestor) for HLP; None: no HLP.
      class_mask: [C], 0 leaves a class out of the loss.

    Returns:
      `loss_fn(params, stats, batch, rng) -> (loss, (scalars, new_stats))`.

    Raises:
      AsjaxError: there are ops for `normed`, and the model's call takes no `augment`, or
        `label_smoothing` is not a share.
    """
    _check_share("label_smoothing", label_smoothing)

    def hard(batch):
        return {"target": _propagated(batch["target"], closure)}

    def loss(outputs, item):
        target = smooth(item["target"], label_smoothing)
        return {"loss": bce(outputs["logits"], target, item["mask"], class_mask)}

    return _of_clips(model, frontend, augment, hard, loss)


def detection(
    *,
    model,
    frontend,
    augment: dict[str, Any] | None = None,
    closure: np.ndarray | None = None,
    strong_weight: float = 1.0,
    weak_weight: float = 1.0,
    class_mask: np.ndarray | None = None,
):
    """Events in time: BCE of every frame plus BCE of the clip (PretrainedSED's strong training).

    A batch may mix three kinds of clips: with events in time (`has_strong`), with labels only
    (`has_weak`), with both. Each loss is a mean over the clips that have its labels.

    Args:
      model: `feats -> {"frame_logits": [B, T', C], "logits": [B, C], ...}`.
      frontend, augment: as in `tagging`.
      closure: bool [C, C] for HLP, on the frames and on the clips; None: no HLP.
      strong_weight, weak_weight: weights of the two losses.
      class_mask: [C], 0 leaves a class out of the loss.

    Returns:
      `loss_fn(params, stats, batch, rng) -> (loss, (scalars, new_stats))`; the scalars also have
      strong_loss and weak_loss.

    Raises:
      AsjaxError: a negative weight, or both are 0; as `tagging`. When traced: the batch has no
        frame_target, or the model's frame_logits have another shape.
    """
    _check_weights(strong_weight, weak_weight)

    def hard(batch):
        if "frame_target" not in batch:
            raise AsjaxError(
                "objective detection needs frame_target from the host op strong; set "
                '--config.data.ops="decode | crop | strong"'
            )
        return {key: _propagated(batch[key], closure) for key in ("target", "frame_target")}

    def loss(outputs, item):
        strong = frame_bce(
            _frame_logits(model, outputs, item["frame_target"]),
            item["frame_target"],
            item["mask"] * item["has_strong"],
            class_mask,
        )
        weak = bce(outputs["logits"], item["target"], item["mask"] * item["has_weak"], class_mask)
        value = strong_weight * strong + weak_weight * weak
        return {"loss": value, "strong_loss": strong, "weak_loss": weak}

    return _of_clips(model, frontend, augment, hard, loss)


def frame_bce(logits, target, mask=None, class_mask=None):
    """Mean binary cross-entropy of frame logits [B, T, C], without masked rows and classes."""
    b, t, c = logits.shape
    mask = None if mask is None else jnp.repeat(mask, t, total_repeat_length=b * t)
    return bce(logits.reshape(b * t, c), target.reshape(b * t, c), mask, class_mask)


def _frame_logits(model, outputs, target):
    """The model's frame logits. AsjaxError: they are not there, or have another shape."""
    logits = outputs.get("frame_logits")
    if getattr(logits, "shape", None) != target.shape:
        got = f"{list(logits.shape)}" if hasattr(logits, "shape") else "none"
        raise AsjaxError(
            f"model {type(model).__name__} must return frame_logits {list(target.shape)} (clips, "
            f"frames, classes), got {got}; frames is a field of the model, and frame_rate or "
            "frames a field of the host op strong"
        )
    return logits


def _propagated(target, closure):
    return target if closure is None else hlp.propagate_labels(target, closure)


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
    _check_share("label_smoothing", label_smoothing)
    if closure is not None:
        raise AsjaxError(
            "objective classify needs one label per clip, and HLP gives a clip several; set "
            "--config.labels.hlp=False, or --config.objective.name=tagging"
        )
    if source is not None:
        _check_one_label(source)
    counts = None if source is None else np.asarray(source.labels.sum(axis=0)).ravel()
    weights = _class_weights(class_weights, counts)

    def hard(batch):
        if not isinstance(batch["target"], jax.core.Tracer):  # values are not known inside jit
            _check_rows(np.asarray(batch["target"]), np.asarray(batch["mask"]))
        return {"target": batch["target"]}

    def loss(outputs, item):
        classes = item["target"].shape[-1]
        _check_classes(classes, weights)
        target = item["target"] * (1.0 - label_smoothing) + label_smoothing / classes
        return {"loss": cross_entropy(outputs["logits"], target, item["mask"], weights)}

    return _of_clips(model, frontend, augment, hard, loss)


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
    others = int((_label_counts(source) != 1).sum())
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


def _of_clips(model, frontend, augment, hard, loss):
    """The `loss_fn` of an objective.

    Args:
      hard: batch -> dict of the targets before the augmentation.
      loss: (outputs of the model, augmented batch) -> scalars; the one called loss is minimised.
    """
    chains = {place: (augment or {}).get(place) or _identity for place in AUGMENT_PLACES}
    normed = chains["normed"] is not _identity and getattr(chains["normed"], "names", True)
    if normed and "augment" not in inspect.signature(type(model).__call__).parameters:
        raise AsjaxError(
            "augment.normed needs a model whose __call__ takes augment, and "
            f"{type(model).__name__} does not; use augment.feats"
        )

    def loss_fn(params, stats, batch, rng):
        wave_rng, feats_rng, normed_rng, dropout_rng = jax.random.split(rng, 4)
        # Other arrays stay in the batch, because the augmentation may reorder its rows.
        item = {**batch, "wave": to_float(batch["wave"]), **hard(batch)}
        item = chains["wave"](wave_rng, item)
        item["feats"] = _features(frontend, item.pop("wave"), rng)
        item = chains["feats"](feats_rng, item)
        # The same key gives the same draws for features (inside the model) and for targets (here).
        feats = item.pop("feats")
        item = chains["normed"](normed_rng, item)
        inside = lambda x: chains["normed"](normed_rng, {"feats": x})["feats"]  # noqa: E731
        outputs, new_stats = model.apply(
            {"params": params, **stats},
            feats,
            train=True,
            **({"augment": inside} if normed else {}),
            mutable=list(stats),
            rngs={"dropout": dropout_rng},
        )
        logits = outputs.get("logits") if isinstance(outputs, dict) else None
        if getattr(logits, "shape", None) != item["target"].shape:
            got = f"{list(logits.shape)}" if hasattr(logits, "shape") else "none"
            raise AsjaxError(
                f"model {type(model).__name__} must return a dict with logits "
                f"{list(item['target'].shape)} (clips, classes), got {got}"
            )
        scalars = loss(outputs, item)
        return scalars["loss"], (scalars, new_stats)

    return loss_fn


def _features(frontend, wave, rng):
    """Features for training. Some frontends (PaSST's) draw a random filter bank per batch."""
    if not getattr(frontend, "draws_in_training", False):
        return frontend(wave)
    return frontend(wave, rng=jax.random.fold_in(rng, 4))


def _identity(rng, batch):
    return batch


# ---------------------------------------------------------------------------------- checks

_NEEDS_ONE = "objective classify needs exactly one label for each clip"
_INSTEAD = "give each clip one label, or set --config.objective.name=tagging"


def _label_counts(source) -> np.ndarray:
    return np.asarray(source.labels.sum(axis=1)).ravel()


def _check_one_label(source) -> None:
    """AsjaxError names the first clip that has not exactly one label."""
    counts = _label_counts(source)
    others = np.flatnonzero(counts != 1)
    if len(others):
        first, has = shown(source.ids[others[0]]), int(counts[others[0]]) or "no"
        raise AsjaxError(
            f"{_NEEDS_ONE}, but {len(others):,} of {len(counts):,} training clips of {source.name} "
            f"have no label or several (first {first}: {has} labels); {_INSTEAD}"
        )
    _check_classes(source.labels.shape[1])


def _check_rows(target, mask) -> None:
    """AsjaxError names the first real row of a batch whose targets do not sum to 1."""
    others = np.flatnonzero((mask > 0) & (np.abs(target.sum(axis=1) - 1) > 1e-3))
    if len(others):
        raise AsjaxError(
            f"{_NEEDS_ONE}, but row {others[0]} of the batch has none or several; {_INSTEAD}"
        )


def _check_classes(classes: int, weights=None) -> None:
    if classes < 2:
        raise AsjaxError(
            f"objective classify needs two or more classes, got {classes}; add a class, or take "
            "--config.objective.name=tagging"
        )
    if weights is not None and len(weights) != classes:
        raise AsjaxError(
            f"objective.class_weights must have one number for each of {classes} classes, got "
            f"{len(weights)}"
        )


def _class_weights(given, counts) -> np.ndarray | None:
    """float32 [C] or None. `counts`: training clips of each class, or None if not known."""
    if given is None:
        return None
    if isinstance(given, str):
        if given != "balanced":
            raise AsjaxError(
                f"objective.class_weights must be None, 'balanced' or a list, got {given!r}"
            )
        if counts is None:
            raise AsjaxError("objective.class_weights='balanced' needs the training clips, source")
        known = counts > 0
        weights = counts.sum() / (known.sum() * np.maximum(counts, 1))
        return np.where(known, weights, 0.0).astype(np.float32)
    try:
        weights = np.asarray(given, np.float64)
        fits = weights.ndim == 1 and np.isfinite(weights).all() and (weights >= 0).all()
    except (TypeError, ValueError):
        fits = False
    if not fits or not weights.any():
        raise AsjaxError(
            "objective.class_weights must be None, 'balanced' or one number of at least 0 for each "
            f"class, not all 0, got {quoted(given)}"
        )
    if counts is not None:
        _check_classes(len(counts), weights)
    return weights.astype(np.float32)


def _check_weights(strong, weak) -> None:
    for name, value in (("strong_weight", strong), ("weak_weight", weak)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value < float("inf"):
            raise AsjaxError(f"objective.{name} must be a number of at least 0, got {value!r}")
    if not strong + weak:
        raise AsjaxError("objective.strong_weight and weak_weight must not both be 0")


def _check_share(name: str, value) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise AsjaxError(f"objective.{name} must be a number from 0 to 1, got {value!r}")

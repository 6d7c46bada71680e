"""What the fields of an objective and the labels of its clips must be."""

from __future__ import annotations

import numpy as np

from asjax.config import AsjaxError, quoted, shown

_NEEDS_ONE = "objective classify needs exactly one label for each clip"
_INSTEAD = "give each clip one label, or set --config.objective.name=tagging"


def label_counts(source) -> np.ndarray:
    return np.asarray(source.labels.sum(axis=1)).ravel()


def check_one_label(source) -> None:
    """AsjaxError names the first clip that has not exactly one label."""
    counts = label_counts(source)
    others = np.flatnonzero(counts != 1)
    if len(others):
        first, has = shown(source.ids[others[0]]), int(counts[others[0]]) or "no"
        raise AsjaxError(
            f"{_NEEDS_ONE}, but {len(others):,} of {len(counts):,} training clips of {source.name} "
            f"have no label or several (first {first}: {has} labels); {_INSTEAD}"
        )
    check_classes(source.labels.shape[1])


def check_rows(target, mask) -> None:
    """AsjaxError names the first real row of a batch whose targets do not sum to 1."""
    others = np.flatnonzero((mask > 0) & (np.abs(target.sum(axis=1) - 1) > 1e-3))
    if len(others):
        raise AsjaxError(
            f"{_NEEDS_ONE}, but row {others[0]} of the batch has none or several; {_INSTEAD}"
        )


def check_classes(count: int, weights=None) -> None:
    if count < 2:
        raise AsjaxError(
            f"objective classify needs two or more classes, got {count}; add a class, or take "
            "--config.objective.name=tagging"
        )
    if weights is not None and len(weights) != count:
        raise AsjaxError(
            f"objective.class_weights must have one number for each of {count} classes, got "
            f"{len(weights)}"
        )


def as_class_weights(given, counts) -> np.ndarray | None:
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
        check_classes(len(counts), weights)
    return weights.astype(np.float32)


def check_loss_weights(strong, weak) -> None:
    for name, value in (("strong_weight", strong), ("weak_weight", weak)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value < float("inf"):
            raise AsjaxError(f"objective.{name} must be a number of at least 0, got {value!r}")
    if not strong + weak:
        raise AsjaxError("objective.strong_weight and weak_weight must not both be 0")


def check_share(name: str, value) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise AsjaxError(f"objective.{name} must be a number from 0 to 1, got {value!r}")


def frame_logits(model, outputs, target):
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

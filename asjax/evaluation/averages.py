"""Averages of several models: of their scores, of scores files, of their weights.

An ensemble is the mean of the members' logits (PaSST and its distilled models), of their
probabilities (AST, PSLA) or of their weights (AST's weight averaging, one architecture). A model
with a softmax (objective classify) and one with sigmoids can only be joined by their probabilities.
"""

from __future__ import annotations

import numpy as np

from asjax import config
from asjax.config import AsjaxError
from asjax.metrics.probability import log_both
from asjax.store.scores import load_scores

AVERAGES = ("logits", "probabilities", "weights")


def average_scores(parts, kind: str = "logits", activations=("sigmoid",), weights=None):
    """Average of several models' scores, as scores of `joined(activations, kind)`.

    Args:
      parts: iterable of float [N, C] scores, one per model.
      kind: "logits" or "probabilities". The latter is computed in the log domain, so that confident
        scores are not rounded to 0 or 1.
      activations: "sigmoid" or "softmax" of each part; one stands for all.
      weights: a number above 0 for each part; default: equal.

    Returns: float32 [N, C]: for sigmoids logits (of mean probabilities: their log-odds), for
      softmaxes log-probabilities.

    Raises:
      AsjaxError: no part, an unknown kind, or different activations whose logits are averaged.
    """
    if kind not in AVERAGES[:2]:
        raise config.unknown("average of scores", kind, AVERAGES[:2])
    softmax = joined(activations, kind) == "softmax"
    activations = list(activations)
    total, mass, sum_w, n = None, -np.inf, 0.0, 0
    for part in parts:
        part, weight = np.asarray(part, np.float64), 1.0 if weights is None else weights[n]
        sum_w += weight
        if kind == "logits":
            total = weight * part if n == 0 else total + weight * part
            mass = np.logaddexp(mass, _log_sum(part) + np.log(weight)) if softmax else mass
        else:  # the logs of the sum of p and of the sum of 1 - p
            both = log_both(part, activations[n if len(activations) > 1 else 0])
            both = tuple(one + np.log(weight) for one in both)
            total = both if n == 0 else tuple(map(np.logaddexp, total, both))
        n += 1
    if not n:
        raise AsjaxError("an ensemble needs at least one model's scores, got none")
    if kind == "probabilities":  # the sum of the weights cancels in the log-odds
        mean = total[0] - np.log(sum_w) if softmax else total[0] - total[1]
    elif softmax and n > 1:  # a clip keeps its sum of probabilities, which is below 1 for a part
        mean = total / sum_w  # of the classes
        mean = mean - _log_sum(mean) + mass - np.log(sum_w)
    else:
        mean = total / sum_w
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


def architecture_differs(first: dict, second: dict) -> list[str]:
    """The differences of two configs that forbid a mean of weights: the model and its input."""
    data = ("sample_rate", "clip_s")
    same = [
        {**{key: cfg[key] for key in ("model", "frontend")},
         "data": {key: cfg["data"][key] for key in data}}
        for cfg in (first, second)
    ]  # fmt: skip
    return config.differences(*same)


def average_weights(parts, weights=None, names=None) -> dict:
    """Mean of several models' variables (nested dicts of arrays of the same shapes).

    Float arrays, also the statistics of batch norms, are averaged in float64 and converted back to
    their dtype. Integer buffers, such as counters, are copied from the first model. One model is
    given back bit for bit.

    Args:
      weights: a number above 0 for each model; default: equal. names: of the models, for messages.

    Raises:
      AsjaxError: a different name or shape, or a value that is not finite, with the model and the
        name of the array.
    """
    from flax.traverse_util import flatten_dict, unflatten_dict
    from jax import numpy as jnp  # knows bfloat16 as a float

    first, total, sum_w, n = None, {}, 0.0, 0
    for part in parts:
        weight = 1.0 if weights is None else weights[n]
        sum_w, n = sum_w + weight, n + 1
        called = "model {}".format if names is None else lambda k: names[k - 1]
        flat = {k: np.asarray(v) for k, v in flatten_dict(part, sep="/").items()}
        if first is None:
            first = flat
        for name in sorted({*first, *flat}):
            shapes = [f[name].shape if name in f else "no such array" for f in (first, flat)]
            if shapes[0] != shapes[1]:
                raise AsjaxError(
                    f"average of weights: {name} is {shapes[0]} in {called(1)} and {shapes[1]} in "
                    f"{called(n)}; only models of one architecture can be averaged"
                )
            if jnp.issubdtype(flat[name].dtype, jnp.floating):
                wide = flat[name].astype(np.float64)
                if not np.isfinite(wide).all():
                    raise AsjaxError(
                        f"average of weights: {name} of {called(n)} has values that are not "
                        "finite; leave this model out"
                    )
                total[name] = total.get(name, 0.0) + weight * wide
    if first is None:
        raise AsjaxError("an average of weights needs at least one model, got none")
    mean = {k: (total[k] / sum_w).astype(v.dtype) if k in total else v for k, v in first.items()}
    return unflatten_dict(mean, sep="/")


def average_files(paths, kind: str = "logits", weights=None) -> dict:
    """Average of scores files with the same clips and classes, in the format of `load_scores`.

    The clips have the order of the first file.

    Raises:
      AsjaxError: a file has other classes, clips or targets than the first one.
    """
    first, parts, left_out, activations = load_scores(paths[0]), [], [], []
    same = True
    for path in paths:
        loaded = load_scores(path, first["label_set"])
        rows = same_clips(first["ids"], loaded["ids"], paths[0], path)
        if not np.array_equal(loaded["targets"][rows], first["targets"]):
            raise AsjaxError(f"the targets in {path} differ from those in {paths[0]}: other labels")
        parts.append(loaded["scores"][rows])
        activations.append(loaded["activation"])
        left_out += (loaded["extra"] or {}).get("left_out", [])
        same &= loaded["content"] is not None and first["content"] is not None
        same = same and np.array_equal(loaded["content"][rows], first["content"])
    extra = {
        **(first["extra"] or {}),
        "left_out": sorted({tuple(item) for item in left_out}),
        "ensemble": described(kind, paths, weights),
    }
    scores = average_scores(parts, kind, activations, weights)
    activation, content = joined(activations, kind), first["content"] if same else None
    return {**first, "scores": scores, "extra": extra, "activation": activation, "content": content}


def described(kind: str, paths, weights=None) -> dict:
    """An ensemble in a scores file."""
    found = {"average": kind, "members": [str(path) for path in paths]}
    return found if weights is None else {**found, "weights": list(weights)}


def same_clips(wanted: list, found: list, first, other) -> np.ndarray:
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

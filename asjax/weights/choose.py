"""Choose which part of a checkpoint is the model, and account for the rest.

A part (see `parts`) can be the model if a family knows all its names and one of the family's
variants has its shapes. If several parts can, we take the only one that is not an average. If the
file has a linear layer outside the part with a classifier's name, this layer replaces the model's
own head. PANNs' Transfer classes and modules with `backbone` and `classifier` are saved like this.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import NamedTuple

import numpy as np

from asjax import models
from asjax.config import AsjaxError, unknown
from asjax.weights import detect, parts, port

MAX_TRIES = 8  # at most so many parts are compared by shape
OWN = "own"  # `--head=own`: use the model's own head, whatever other layers the file has
_HEADS = r"(.*\.)?\w*(fc|head|classif|cls|linear|logit|out|pred|dense|transfer)\w*"


class Chosen(NamedTuple):
    """The model that was chosen from a checkpoint.

    weights: name -> array, under names that the family of `found` knows.
    head: (its name, the family's name for it) of the layer that replaced the family's head, or
      None.
    others: other parts that could have been chosen.
    outside: dotted place -> array, for the arrays that belong to no such part.
    hints: the given hints that the weights contradict.
    """

    part: parts.Part
    found: detect.Found
    weights: dict
    head: tuple[str, str] | None
    others: list[parts.Part]
    outside: dict
    hints: dict


class _Wanted(NamedTuple):
    """What the caller knows about the model."""

    head: str
    variant: str | None
    fields: dict
    hints: dict


def by_names(value, family: str) -> dict:
    """Name -> array of the part of a checkpoint with the most names that a family knows.

    Of a student and a teacher from pre-training we take the teacher, because authors fine-tune it.

    Raises:
      AsjaxError: the checkpoint has no array.
    """
    arrays = parts.flat(value)
    known = partial(detect.strangers, _file(family))
    ranked = parts.ranked(arrays, {family: known})
    best = max(ranked, key=lambda part: (part.known, -len(part.strangers), _is_teacher(part)))
    return _with_classes(
        {name: arrays[place] for name, place in best.places.items()}, arrays, known
    )


def choose(
    value, *, prefix="", head="", family=None, variant=None, fields=None, hints=None
) -> Chosen:
    """Choose the model in a checkpoint.

    Args:
      value: content of the file, nested maps of arrays.
      prefix: prefix of the part to take, in full or only its end; "" chooses a part.
      head: name of the linear layer to use as the head, or "own" for the model's own head. "" takes
        a layer outside the model with a classifier's name, if there is one.
      family, variant, fields: as for `detect.detect`.
      hints: fields to use unless the family lacks them or the weights contradict them.

    Raises:
      AsjaxError: no part fits (the error names the nearest), several parts fit (the error lists
        them), or layers outside the part would be lost.
    """
    arrays = parts.flat(value)
    root = parts.named(arrays, prefix) if prefix else ""
    names = models.families()
    if family:
        models.family(family)  # raises if there is no such family
        names = [family]
    shapes = {k: np.broadcast_to(np.float32(0), np.shape(v)) for k, v in arrays.items()}
    known = {name: partial(detect.strangers, _file(name)) for name in names}
    ranked = parts.ranked(shapes, known, root)
    complete = [part for part in ranked if part.known and not part.strangers]
    whole = parts.ranked(shapes, known) if root else ranked
    models_there = {p for part in whole if not part.strangers for p in part.places.values()}
    wanted = _Wanted(head, variant, fields or {}, hints or {})
    fits, trouble, memo = [], [], {}
    for part in complete[:MAX_TRIES]:
        if any(one.part.holds(part.prefix) or part.holds(one.part.prefix) for one in fits):
            continue
        try:
            fits.append(_fitted(part, arrays, models_there, wanted, memo))
        except AsjaxError as error:
            trouble.append(f"{part.prefix}: {error}" if part.prefix else str(error))
    if not fits:
        raise AsjaxError(
            trouble[0] if trouble else _nothing(value, ranked[0], arrays, family, wanted)
        )
    chosen = _one(fits, root)
    if not prefix and head != OWN:
        _nothing_lost(chosen, value, models_there)
    others = [one.part for one in fits if one is not chosen]
    outside = {
        place: array
        for place, array in chosen.outside.items()
        if not any(place in part.places.values() for part in others)
    }
    return chosen._replace(others=others, outside=outside)


def _is_teacher(part) -> bool:
    return "teacher" in part.prefix.split(".")


def _with_classes(weights: dict, arrays: Mapping, strangers) -> dict:
    """Add the checkpoint's list of classes to the weights, if the family understands it."""
    name = parts.CLASSES
    if name in weights or strangers({name: np.zeros(0)}):
        return weights
    lists = [array for place, array in arrays.items() if place.rpartition(".")[2] == name]
    return {**weights, name: lists[0]} if len(lists) == 1 else weights


def _file(family: str):
    return import_module(f"asjax.models.{family}")


def _fitted(part, arrays, elsewhere: set, wanted: _Wanted, memo: dict) -> Chosen:
    """Find the model and head of a part. AsjaxError: no model has these shapes."""
    taken = set(part.places.values())
    outside = {place: array for place, array in arrays.items() if place not in taken}
    weights = {name: arrays[place] for name, place in part.places.items()}
    weights = _with_classes(weights, arrays, partial(detect.strangers, _file(part.family)))
    beside = {place: a for place, a in outside.items() if place not in elsewhere}
    layer, own = _layer(part, weights, beside, wanted.head), None
    if layer:
        weights, own = _with_head(part, weights, beside, layer)
        outside = {p: a for p, a in outside.items() if p.rpartition(".")[0] != layer}
    shapes = frozenset((name, np.shape(array)) for name, array in weights.items())
    if shapes not in memo:  # averaged weights have the same shapes as the weights themselves
        memo[shapes] = _detected(part.family, weights, wanted)
    found, left = memo[shapes]
    return Chosen(part, found, weights, (layer, own) if layer else None, [], outside, left)


def _detected(family: str, weights, wanted: _Wanted) -> tuple[detect.Found, dict]:
    """Detect the model; also return the hints that its weights contradict."""
    module = models.family(family)
    known = module.model(next(iter(module.VARIANTS)))
    hints = {k: v for k, v in wanted.hints.items() if hasattr(known, k) and k not in wanted.fields}
    try:
        return detect.detect(weights, family, wanted.variant, **hints, **wanted.fields), {}
    except AsjaxError:
        if not hints:
            raise
    return detect.detect(weights, family, wanted.variant, **wanted.fields), hints


# ------------------------------------------------------------------------------------ the head


def _layer(part, weights, beside: Mapping, head: str) -> str | None:
    """Dotted name of the linear layer outside a part that is its head; None: use its own head."""
    if head == OWN:
        return None
    linear = {
        place.removesuffix(".weight"): np.shape(array)
        for place, array in beside.items()
        if place.endswith(".weight") and np.ndim(array) == 2 and not parts.table(place)
    }
    if head:
        fits = [n for n in linear if n == head] or [n for n in linear if n.endswith(f".{head}")]
        if len(fits) != 1:
            raise unknown("head", head, linear)
        return fits[0]
    own = _own_head(part.family, weights)
    if own is None:
        return None
    _, width = own
    fits = [
        name
        for name, (_, inputs) in linear.items()
        if re.fullmatch(_HEADS, name, re.IGNORECASE) and width in (None, inputs)
    ]
    if len(fits) > 1:
        raise AsjaxError(
            f"{len(fits)} layers outside the {part.family} model could be its head: "
            f"{', '.join(fits[:5])}; choose one by --head, or give --head={OWN} for the model's own"
        )
    return fits[0] if fits else None


def _own_head(family: str, weights) -> tuple[str, int | None] | None:
    """(torch name of a family's head, its input width or None); None if it is not linear."""
    name = port.linear(_file(family), "head")
    if name is None:
        return None
    shape = np.shape(detect.renamed(_file(family), weights).get(f"{name}.weight"))
    return name, shape[1] if len(shape) == 2 else None


def _with_head(part, weights, beside, layer: str) -> tuple[dict, str]:
    """Replace the head by another layer; also return the family's name for its head."""
    own = _own_head(part.family, weights)
    if own is None:
        raise AsjaxError(f"the head of {part.family} is not a linear layer; give --head={OWN}")
    kernel = beside[f"{layer}.weight"]
    bias = beside.get(f"{layer}.bias", np.zeros(len(kernel), np.float32))
    file, weights = _file(part.family), dict(weights)
    for name, array in ((f"{own[0]}.weight", kernel), (f"{own[0]}.bias", bias)):
        # use the name that this file has for it: it may follow another repository's naming
        there = [k for k, v in weights.items() if name in detect.renamed(file, {k: v})]
        weights[there[0] if there else name] = array
    return weights, own[0]


# ------------------------------------------------------------------------------------ messages


def _one(fits: list[Chosen], root: str) -> Chosen:
    """The only part that is not an average. AsjaxError: there are several."""
    first = [one for one in fits if not parts.averaged(one.part.prefix[len(root) :])] or fits
    if len(first) > 1:
        listed = ", ".join(f"{one.part.prefix or '(no prefix)'} ({one.found})" for one in first)
        raise AsjaxError(f"the file holds several models: {listed}; choose one by --prefix")
    return first[0]


def _nothing_lost(chosen: Chosen, value, elsewhere: set) -> None:
    """AsjaxError if layers outside the part look like layers of the model."""
    node = {
        f"{place}.{name}" if place else name: place
        for place, held in parts.maps(value)
        for name in held
    }
    here = node[next(iter(chosen.part.places.values()))]
    lost = []
    for place, array in chosen.outside.items():
        layer = place.removesuffix(".weight")
        if layer == place or np.ndim(array) < 2 or parts.table(place) or place in elsewhere:
            continue
        if parts.averaged(layer):
            continue
        if node[place] == here or re.fullmatch(_HEADS, layer, re.IGNORECASE):
            lost.append(f"{layer} {np.shape(array)}")
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise AsjaxError(
            f"the model is {chosen.found} below {chosen.part.prefix or 'no prefix'}, but the file "
            f"has layers that this model does not know: {', '.join(lost[:3])}{more}; --head=NAME "
            f"makes one linear layer its head, --head={OWN} leaves all of them out"
        )


def _nothing(value, best: parts.Part, arrays, family, wanted: _Wanted) -> str:
    """The error message when every part has names that no family knows."""
    weights = {name: arrays[place] for name, place in best.places.items()}
    if not best.known:
        weights = parts.plain(value)
    try:
        detect.detect(weights, family, wanted.variant, **wanted.fields)
    except AsjaxError as error:
        return f"{best.prefix}: {error}" if best.prefix and best.known else str(error)
    return f"no part of the file is a model; the nearest is the part below {best.prefix}"

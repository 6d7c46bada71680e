"""Detect which model a torch checkpoint belongs to, from its names and shapes.

We try every family's rules on the names. If a family knows all names, we compare the shapes with
those of each variant (by `jax.eval_shape`, without computation). A model file may offer two
functions for this. `torch_fields(weights)` gives the fields that the shapes imply (grids, widths).
`torch_variants(weights)` gives the variants that the names allow. If variants differ only in
training, we report the first.
"""

from __future__ import annotations

import dataclasses
import re
from importlib import import_module
from typing import NamedTuple

import numpy as np

from asjax import models
from asjax.config import AsjaxError
from asjax.weights import port

# module fields that change only training, or no number at all
_TRAINING = re.compile(r".*(dropout|drop_path|patchout|head_bias|layer_scale|remat|scan_layers).*")


class Found(NamedTuple):
    """A model that takes every entry of a checkpoint."""

    family: str
    variant: str
    fields: dict
    module: object
    unsure: tuple[dict, ...] = ()  # other field values that the shapes allow

    def __str__(self):
        fields = ", ".join(f"{k}={v}" for k, v in self.fields.items())
        return f"{self.family} {self.variant}" + (f" ({fields})" if fields else "")


def detect(weights, family: str | None = None, variant: str | None = None, **fields) -> Found:
    """Detect the model of a state dict (name -> array).

    Args:
      family, variant: None if not known.
      **fields: the known fields of the module.

    Raises:
      AsjaxError: no model fits (the error names the nearest family and the unknown entries), or
        several fit (the error lists them).
    """
    stand_ins = {k: np.broadcast_to(np.float32(0), np.shape(v)) for k, v in weights.items()}
    found, near = [], []
    if family:
        models.family(family)  # raises if there is no such family
    for name in [family] if family else models.families():
        file = import_module(f"asjax.models.{name}")
        shapes = renamed(file, stand_ins)
        strange = port.strangers(file, shapes)
        if len(strange) < len(stand_ins):  # some name is known; renaming may add constants
            near.append((len(strange), name, strange))
        if not strange or family:
            names = (
                [variant] if variant else _hook(file, "torch_variants", stand_ins, file.VARIANTS)
            )
            found += _readings(name, file, shapes, names, variant, fields)
    if not found:
        raise AsjaxError(_nothing(weights, family, variant, fields, near))
    fewest = min(len(f.fields) for f in found)
    found = _distinct([f for f in found if len(f.fields) == fewest])
    if len(found) > 1:
        listed = "; ".join(map(str, found))
        how = "--family and --variant" if len({f.family for f in found}) > 1 else "--variant"
        raise AsjaxError(f"names and shapes fit several models: {listed}; choose one by {how}")
    return found[0]


def strangers(file, weights: dict) -> list[str]:
    """The names that a model file does not know, also after `from_other_names`."""
    return port.strangers(file, renamed(file, weights))


def renamed(file, weights: dict) -> dict:
    """Weights after the model file's `from_other_names`, if it has this function."""
    try:
        return file.from_other_names(weights) if hasattr(file, "from_other_names") else weights
    except Exception:  # the names belong to another family
        return weights


def _readings(family: str, file, weights: dict, names, variant, fields) -> list[Found]:
    """Call `_variants` with the first reading of the shapes that fits; the others go to `unsure`.

    A tuple of readings means that none is more likely. AsjaxError: several readings of a tuple fit.
    """
    implied = _hook(file, "torch_fields", weights, {})
    readings = [implied] if isinstance(implied, dict) else implied
    if isinstance(readings, tuple):
        readings = [r for r in readings if r | {k: v for k, v in fields.items() if k in r} == r]
        if len(readings) > 1:
            listed = "; ".join(", ".join(f"{k}={v}" for k, v in r.items()) for r in readings)
            raise AsjaxError(f"the shapes of {family} allow several inputs: {listed}; give --field")
    if variant in file.VARIANTS:  # the shapes do not override fields that a named variant fixes
        fixed = file.VARIANTS[variant]
        readings = [{k: v for k, v in one.items() if k not in fixed} for one in readings]
    for i, one in enumerate(readings or [{}]):
        found = _variants(family, file, weights, names, one, fields)
        if found:
            given = {k: v for k, v in fields.items() if k in one}
            unsure = [r for r in readings[i + 1 :] if r | given == r]
            return [f._replace(unsure=tuple(unsure)) for f in found]
    return []


def _variants(family: str, file, weights: dict, names, implied, fields) -> list[Found]:
    """The variants of a family that take all of `weights`.

    `fields` are given by the caller and override `implied`, which follow from the shapes.
    """
    implied = {**implied, **fields}
    found, tried = [], {}
    for name in names:
        plain, _ = file.model(name), file.model(name, **fields)  # raises if `fields` are invalid
        needed = {k: v for k, v in implied.items() if getattr(plain, k, None) != v}
        try:
            module = file.model(name, **needed)
        except AsjaxError:
            continue
        if module not in tried:
            tried[module] = _classes(file, module, weights, "num_classes" in fields)
        if tried[module]:
            module, more = tried[module]
            found.append(Found(family, name, {**needed, **more}, module))
    return found


def _hook(file, name: str, weights, default):
    try:
        return getattr(file, name)(weights) if hasattr(file, name) else default
    except Exception:  # the names belong to another family
        return default


def _classes(file, module, weights, fixed: bool):
    """(module, {} or {"num_classes": n} if that must change) if `weights` fit, else None."""
    placed = port.place(file, weights, models.abstract(module))
    if not placed.trouble:
        return module, {}
    counts = set()
    for path, array in placed.found.items():
        want, got = placed.wanted[path], array.shape
        if want != got:
            odd = [(w, g) for w, g in zip(want, got, strict=False) if w != g]
            counts.add(
                odd[0][1] * module.num_classes / odd[0][0]
                if len(want) == len(got) and len(odd) == 1 and odd[0][0]
                else None
            )
    if fixed or len(counts) != 1 or None in counts or not next(iter(counts)).is_integer():
        return None
    more = {"num_classes": int(counts.pop())}
    if more["num_classes"] < 1:
        return None
    module = dataclasses.replace(module, **more)
    return None if port.place(file, weights, models.abstract(module)).trouble else (module, more)


def _distinct(found: list[Found]) -> list[Found]:
    """The first of each group of models that compute the same from audio."""
    distinct = {}
    for one in found:
        module = one.module
        fields = {
            f.name: getattr(module, f.name)
            for f in dataclasses.fields(module)
            if f.name not in ("parent", "name") and not _TRAINING.fullmatch(f.name)
        }
        frontend = models.family(one.family).FRONTENDS[one.variant]
        distinct.setdefault((one.family, repr(sorted(fields.items())), repr(frontend)), one)
    return list(distinct.values())


def _nothing(weights, family, variant, fields, near) -> str:
    if family and variant:  # list every entry that does not fit
        try:
            port.match(family, variant, weights, **fields)
        except AsjaxError as error:
            return str(error)
    if family:
        known = ", ".join(models.family(family).VARIANTS)
        return f"no variant of {family} has these names and shapes; for details give one: {known}"
    if not near:
        names = ", ".join(list(weights)[:3])
        return (
            f"no model family knows these names ({names}, ...); the names must be those of the "
            f"authors of one of {', '.join(models.families())}"
        )
    count, name, strange = min(near)
    if not count:
        known = ", ".join(models.family(name).VARIANTS)
        return (
            f"the names belong to {name}, but no variant has these shapes; for details give "
            f"--family={name} and one of {known} as --variant"
        )
    listed = ", ".join(strange[:5]) + (", ..." if count > 5 else "")
    return (
        f"no model takes all {len(weights)} entries; the nearest family is {name}, which does not "
        f"know {count} of them: {listed}"
    )

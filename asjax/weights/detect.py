"""Which model a torch checkpoint belongs to, told by its names and shapes.

Every family's rules are tried on the names; where they know them all, the shapes are compared with
those of each variant (`jax.eval_shape`, nothing is computed). A model file may help with two
functions: `torch_fields(weights)`, the fields that the shapes imply (grids, widths), and
`torch_variants(weights)`, the variants that the names allow. Variants that differ in nothing that
matters after training count as one, the first.
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

# fields of modules that change training only, or no number at all
_TRAINING = re.compile(r".*(dropout|drop_path|patchout|head_bias|layer_scale|remat|scan_layers).*")


class Found(NamedTuple):
    """A model that takes every entry of a checkpoint."""

    family: str
    variant: str
    fields: dict
    module: object
    unsure: tuple[dict, ...] = ()  # other fields that the shapes would allow

    def __str__(self):
        fields = ", ".join(f"{k}={v}" for k, v in self.fields.items())
        return f"{self.family} {self.variant}" + (f" ({fields})" if fields else "")


def detect(weights, family: str | None = None, variant: str | None = None, **fields) -> Found:
    """The model of a state dict (name -> array).

    Args:
      family, variant: what is known already; the rest is found.
      **fields: fields of the module that are known.

    Raises:
      AsjaxError: no model fits (the nearest family and what it lacks), or several do (they are
        listed).
    """
    stand_ins = {k: np.broadcast_to(np.float32(0), np.shape(v)) for k, v in weights.items()}
    found, near = [], []
    if family:
        models.family(family)  # an unknown one is an error
    for name in [family] if family else models.families():
        file = import_module(f"asjax.models.{name}")
        shapes = renamed(file, stand_ins)
        strange = port.strangers(file, shapes)
        if len(strange) < len(stand_ins):  # constants may have been added
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
        raise AsjaxError(f"names and shapes fit several models: {listed}; choose by {how}")
    return found[0]


def strangers(file, weights: dict) -> list[str]:
    """The names that a model file does not know, by its own rules or as another's names."""
    return port.strangers(file, renamed(file, weights))


def renamed(file, weights: dict) -> dict:
    """Weights under the names of a model file's authors, where it knows those of others."""
    try:
        return file.from_other_names(weights) if hasattr(file, "from_other_names") else weights
    except Exception:  # it met names of another family
        return weights


def _readings(family: str, file, weights: dict, names, variant, fields) -> list[Found]:
    """`_variants` by the first reading of the shapes that fits; the others go to `unsure`.

    AsjaxError: the readings are a tuple, which says that none is likelier, and several fit.
    """
    implied = _hook(file, "torch_fields", weights, {})
    readings = [implied] if isinstance(implied, dict) else implied
    if isinstance(readings, tuple):
        readings = [r for r in readings if r | {k: v for k, v in fields.items() if k in r} == r]
        if len(readings) > 1:
            listed = "; ".join(", ".join(f"{k}={v}" for k, v in r.items()) for r in readings)
            raise AsjaxError(f"the shapes of {family} allow several inputs: {listed}; give --field")
    if variant in file.VARIANTS:  # what a named variant fixes, the shapes do not overrule
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
    """Those variants of a family that take all of `weights`, with `fields` (which are given) and,
    where these say nothing, those that the shapes imply."""
    implied = {**implied, **fields}
    found, tried = [], {}
    for name in names:
        plain, _ = file.model(name), file.model(name, **fields)  # what is given must be possible
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
    except Exception:  # it met names of another family
        return default


def _classes(file, module, weights, fixed: bool):
    """(module, {"num_classes": n} if that is not its own) where `weights` fit, else None."""
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
    """Those that differ in what they compute from audio; the first of each."""
    kept = {}
    for one in found:
        module = one.module
        fields = {
            f.name: getattr(module, f.name)
            for f in dataclasses.fields(module)
            if f.name not in ("parent", "name") and not _TRAINING.fullmatch(f.name)
        }
        frontend = models.family(one.family).FRONTENDS[one.variant]
        kept.setdefault((one.family, repr(sorted(fields.items())), repr(frontend)), one)
    return list(kept.values())


def _nothing(weights, family, variant, fields, near) -> str:
    if family and variant:  # say precisely what does not fit
        try:
            port.match(family, variant, weights, **fields)
        except AsjaxError as error:
            return str(error)
    if family:
        known = ", ".join(models.family(family).VARIANTS)
        return f"no variant of {family} takes these names and shapes; for details give one: {known}"
    if not near:
        names = ", ".join(list(weights)[:3])
        return (
            f"no model family knows these names ({names}, ...); known are the authors' own of "
            f"{', '.join(models.families())}"
        )
    count, name, strange = min(near)
    if not count:
        known = ", ".join(models.family(name).VARIANTS)
        return (
            f"the names are those of {name}, but no variant has these shapes; for details give "
            f"--family={name} and one of {known} as --variant"
        )
    listed = ", ".join(strange[:5]) + (", ..." if count > 5 else "")
    return (
        f"no model takes all {len(weights)} entries; nearest is the family {name}, which does not "
        f"know {count} of them: {listed}"
    )

"""Convert torch checkpoints to our variables by the rule tables of the model files; without torch.

A model file has these names:
  TORCH: rules `(pattern, path, kind)`. The pattern must match the name of a torch module (the key
    without its last part). For kind "param" it must match the whole key. `path` is our module's
    path and may use the pattern's groups. `blocks[3]/attn/qkv` is slice 3 of an array stacked over
    the layers. A kind converts one torch array to ours and back, see `Kind`. A pair
    `(read, write)` is a bare parameter with another layout; model files do not import this file.
  TORCH_SKIP: patterns of keys that are not weights (DFT kernels, mel filters).
And it may have these:
  from_other_names(weights) -> weights: renames the keys of other repositories, and joins or splits
    arrays, before the rules apply. It does not change keys that it does not know.
  to_other_names(weights) -> weights: adds the entries that torch's state dict has twice.
  HEADLESS: a hint for users whose weights have no head.
  TORCH_HEAD: patterns of keys that are skipped if the model has no head.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from asjax import models
from asjax.config import AsjaxError, warn
from asjax.weights import parts

_COUNTER = r".*num_batches_tracked"


# ------------------------------------------------------------------------------------- kinds


class Kind(NamedTuple):
    """How torch and asjax store one kind of layer.

    read: `(torch leaf, array) -> ((collection, our leaf), array)`; ValueError for a wrong rank.
    write: `(our leaf, array) -> (torch leaf, array)`, the inverse of `read`.
    whole: the pattern must match the whole key, and the path includes the leaf.
    """

    read: Callable
    write: Callable
    whole: bool = False


def _layer(read: Callable, write: Callable) -> Kind:
    """A layer: `read` and `write` convert `weight` to `kernel` and back; other leaves stay."""

    def forth(leaf, x):
        return (("params", "kernel"), read(x)) if leaf == "weight" else (("params", leaf), x)

    def back(leaf, x):
        return ("weight", write(x)) if leaf == "kernel" else (leaf, x)

    return Kind(forth, back)


_NORM = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
_NORM_BACK = {ours: leaf for leaf, (_, ours) in _NORM.items()}


def param(read: Callable | None = None, write: Callable | None = None) -> Kind:
    """A bare parameter: its path includes the leaf; `read` and `write` change its layout."""
    read, write = read or (lambda x: x), write or (lambda x: x)
    return Kind(lambda _, x: (("params", ""), read(x)), lambda leaf, x: (leaf, write(x)), True)


KINDS = {
    # (O, I, *k) -> (*k, I, O): 1-d and 2-d, grouped and depthwise alike
    "conv": _layer(
        lambda x: np.moveaxis(x, (1, 0), (-2, -1)), lambda x: np.moveaxis(x, (-2, -1), (1, 0))
    ),
    # (O, I) -> (I, O)
    "linear": _layer(lambda x: np.swapaxes(x, -1, -2), lambda x: np.swapaxes(x, -1, -2)),
    # batch and layer norms: scale, bias and optional running statistics
    "norm": Kind(
        lambda leaf, x: (_NORM.get(leaf, ("params", leaf)), x),
        lambda leaf, x: (_NORM_BACK.get(leaf, leaf), x),
    ),
    "param": param(),
}


# -------------------------------------------------------------------------------------- port


class Leaf:
    """One float32 array of ours; `np.asarray` assembles it on request."""

    def __init__(self, shape: tuple, parts: list):
        self.shape, self.dtype, self._parts = shape, np.dtype(np.float32), parts

    def __array__(self, dtype=None, copy=None):
        first = self._parts[0]
        return np.asarray(first if first.shape == self.shape else np.stack(self._parts), dtype)


class Match(NamedTuple):
    """A torch state dict matched with a model.

    module: the linen module.
    arrays: our path -> Leaf, for every array of the model.
    matched: torch entry -> array, for the entries that were used.
    skipped: torch entry -> (array, reason), for the entries that the model does not need.
    """

    module: object
    arrays: dict[str, Leaf]
    matched: dict[str, np.ndarray]
    skipped: dict[str, tuple[object, str]]

    @property
    def variables(self) -> dict:
        """Nested dict of `Leaf`."""
        return unflatten_dict(self.arrays, sep="/")


def from_torch(family: str, variant: str, state_dict, **fields):
    """Convert a torch state dict to a linen module and its variables (float32).

    Args:
      family, variant: file and entry of `asjax.models`, e.g. "convnext", "femto".
      state_dict: name -> array (numpy, a tensor or parameter of torch, or anything `np.asarray`
        takes). It may be nested in dicts, and its names may have a prefix.
      **fields: fields of the module, e.g. num_classes=200, stem="56".

    Returns:
      (module, variables) for `module.apply(variables, feats, train=False)`.

    Raises:
      AsjaxError: not every weight of the model was filled exactly once; the error lists all
        unmatched, missing and misshapen entries, and the weights that are integers.

    NaN and infinite weights are kept; an AsjaxWarning counts them.
    """
    found = match(family, variant, state_dict, **fields)
    if text := parts.not_finite(found.matched):
        warn(f"{family} {variant}: {text}")
    flat = {path: jnp.array(np.asarray(leaf), leaf.dtype) for path, leaf in found.arrays.items()}
    return found.module, unflatten_dict(flat, sep="/")


def match(family: str, variant: str, state_dict, **fields) -> Match:
    """Like `from_torch`, but float32 arrays stay views of the given arrays until they are read."""
    module = models.build(family, variant, **fields)
    file = models.family(family)
    shapes = models.abstract(module)
    placed = place(file, _part(file, state_dict), shapes)
    if placed.trouble:
        raise AsjaxError(_report(family, variant, module, placed.trouble))
    arrays = {
        path: Leaf(leaf.shape, _parts(path, placed.found))
        for path, leaf in _flatten(shapes).items()
    }
    return Match(module, arrays, placed.matched, placed.skipped)


def _part(file, value) -> dict:
    """The part of a checkpoint with the most names that a model file knows."""
    arrays = parts.flat(value)
    shapes = {k: np.broadcast_to(np.float32(0), np.shape(v)) for k, v in arrays.items()}
    rename = getattr(file, "from_other_names", lambda weights: weights)
    best = parts.ranked(shapes, {"": lambda weights: strangers(file, rename(weights))})[0]
    return {name: arrays[place] for name, place in best.places.items()}


class Placed(NamedTuple):
    """Torch entries at our paths.

    wanted: our path -> shape in the model. found: our path -> array, also with a wrong shape.
    matched, skipped: as in `Match`. trouble: one line per misfit.
    """

    wanted: dict[str, tuple]
    found: dict[str, np.ndarray]
    matched: dict[str, np.ndarray]
    skipped: dict[str, tuple[object, str]]
    trouble: list[str]


def place(file, state_dict, shapes) -> Placed:
    """Put every torch entry at its place by the rules of a model file.

    Args:
      file: a module of `asjax.models`.
      shapes: the model's variables, or their shapes (`models.abstract`).
    """
    shapes = _flatten(shapes)
    weights = state_dict
    if hasattr(file, "from_other_names"):
        weights = file.from_other_names(weights)
    placed = Placed(_slices(shapes, file.TORCH), {}, {}, {}, [])
    bare = not any(path.startswith("params/detector/") for path in shapes)
    heads = getattr(file, "TORCH_HEAD", ()) if bare else ()
    for key, value in weights.items():
        if any(re.fullmatch(pattern, key) for pattern in heads):
            placed.skipped[key] = (value, "the model has no head")
        else:
            _place(key, value, file, placed)
    placed.trouble.extend(
        f"missing: {_torch_key(path, file.TORCH)} (for {path} {shape})"
        for path, shape in placed.wanted.items()
        if path not in placed.found
    )
    return placed


def strangers(file, weights) -> list[str]:
    """The torch entries that match no rule of a model file."""
    known = _known(file.TORCH, file.TORCH_SKIP)
    return [key for key in weights if not known.fullmatch(key)]


@lru_cache
def _known(rules, skipped) -> re.Pattern:
    """One pattern for all entries that a model file knows; one search is faster than many."""
    patterns = [p if _kind(kind).whole else rf"(?:{p})\.[^.]*" for p, _, kind in rules]
    return re.compile("|".join(f"(?:{p})" for p in (*patterns, *skipped, _COUNTER)))


def linear(file, path: str) -> str | None:
    """The torch name of our linear layer at a path; None if it is not a linear layer."""
    name, kind = _torch_name(f"params/{path}/kernel", file.TORCH)
    return name if kind is KINDS["linear"] else None


def skip(file, key: str) -> str | None:
    """The reason to skip a torch entry; None if the model needs it."""
    if re.fullmatch(_COUNTER, key):
        return "counts batches"
    return "not part of the model" if any(re.fullmatch(p, key) for p in file.TORCH_SKIP) else None


def to_torch(family: str, variables) -> dict[str, np.ndarray]:
    """Convert our variables to the names and layout of the family's authors: undo `from_torch`.

    The result lacks entries that our code does not need: `num_batches_tracked`, DFT kernels, unused
    heads.

    Raises:
      AsjaxError: no rule of the family names an array.
    """
    file = models.family(family)
    flat = _flatten(variables)
    out = {}
    for target in _slices(flat, file.TORCH):
        name, kind = _torch_name(target, file.TORCH)
        if kind is None:
            raise AsjaxError(f"{family}: no rule gives the torch name of {target}")
        base, index = _base(target)
        array = np.asarray(flat[base] if index is None else flat[base][index], np.float32)
        leaf, array = kind.write(target.rpartition("/")[2], array)
        out[name if kind.whole else f"{name}.{leaf}"] = np.ascontiguousarray(array)
    return file.to_other_names(out) if hasattr(file, "to_other_names") else out


# Arrays stacked over layers are handled slice by slice, under names like `blocks[3]/attn/qkv`.


def _slices(shapes, rules) -> dict[str, tuple]:
    """Path -> shape; an array that a rule addresses by `[index]` has one path per slice."""
    stacked = [
        re.sub(r"\\\\(\d)", "[^/]+", re.escape(re.sub(r"\[\\\d\]", "[]", template)))
        for _, template, _ in rules
        if "[" in template
    ]
    out = {}
    for path, leaf in shapes.items():
        collection, _, rest = path.partition("/")
        for pattern in stacked:
            before, after = pattern.split(r"\[\]")
            hit = re.fullmatch(rf"({before})({after}(?:/[^/]+)?)", rest)
            if hit:
                for i in range(leaf.shape[0]):
                    out[f"{collection}/{hit[1]}[{i}]{hit[2]}"] = leaf.shape[1:]
                break
        else:
            out[path] = leaf.shape
    return out


def _base(target: str) -> tuple[str, int | None]:
    """`a/blocks[3]/b` -> (`a/blocks/b`, 3); a path without an index -> (itself, None)."""
    hit = re.search(r"\[(\d+)\]", target)
    return (target[: hit.start()] + target[hit.end() :], int(hit[1])) if hit else (target, None)


def _parts(path: str, found: dict) -> list[np.ndarray]:
    """The array of `path` in a list, or its slices in order."""
    if path in found:
        return [found[path]]
    slices = {index: name for name in found for base, index in [_base(name)] if base == path}
    return [found[slices[i]] for i in range(len(slices))]


def _place(key, value, file, placed):
    """Put one torch entry at its place, or record why that is impossible."""
    wanted, trouble, why = placed.wanted, placed.trouble, skip(file, key)
    if why:
        placed.skipped[key] = (value, why)
        return
    match = _match(key, file.TORCH)
    if match is None:
        trouble.append(f"unmatched: {key} {np.shape(value)}")
        return
    path, leaf, kind = match
    try:
        array = _numbers(value)
    except (TypeError, ValueError, RuntimeError):
        trouble.append(f"misshapen: {key} {np.shape(value)} holds no numbers")
        return
    if array is None:
        kind = np.asarray(value).dtype
        trouble.append(f"misshapen: {key} {np.shape(value)} holds {kind}, not floating numbers")
        return
    try:
        (collection, name), part = kind.read(leaf, array)
    except ValueError as error:  # wrong rank for this kind
        trouble.append(f"misshapen: {key} {array.shape}: {error}")
        return
    target = "/".join(filter(None, (collection, path, name)))
    if target not in wanted:
        trouble.append(f"unmatched: {key} {array.shape}: this model has no {target}")
    elif target in placed.found:
        trouble.append(f"unmatched: {key}: {target} was filled by another entry")
    else:
        placed.found[target], placed.matched[key] = part, value
        if part.shape != wanted[target]:
            want = wanted[target]
            trouble.append(f"misshapen: {key} {array.shape}: {target} is {want}, not {part.shape}")


def _numbers(value) -> np.ndarray | None:
    """`value` in float32, without a copy if it already is; None for integers and truth values."""
    array = np.asarray(value)
    if array.dtype.kind == "c":
        raise TypeError
    if array.dtype.kind in "biu":
        return None
    return array if array.dtype == np.float32 else array.astype(np.float32)


def _match(key, rules):
    """(path, leaf, kind) of the first matching rule, else None."""
    owner, _, leaf = key.rpartition(".")
    for pattern, path, kind in rules:
        kind = _kind(kind)
        hit = re.fullmatch(pattern, key if kind.whole else owner)
        if hit:
            return hit.expand(path), leaf, kind
    return None


def _kind(kind) -> Kind:
    """The kind of a rule: a name in KINDS, a Kind, or the pair (read, write) of `param`."""
    if isinstance(kind, str):
        return KINDS[kind]
    return kind if isinstance(kind, Kind) else param(*kind)


def _flatten(tree) -> dict:
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(k.key for k in path): leaf for path, leaf in flat}


_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def _torch_key(target: str, rules) -> str:
    """The torch entry that belongs at `target`, for messages."""
    name, kind = _torch_name(target, rules)
    leaf = target.rpartition("/")[2]
    return name if kind is None or kind.whole else f"{name}.{_LEAVES.get(leaf, leaf)}"


def _torch_name(target: str, rules) -> tuple[str, Kind | None]:
    """(torch entry, kind) of our array: apply the rules backwards.

    A pattern must therefore consist of literal text and plain groups, and the path must use each
    group.
    """
    _, _, path = target.partition("/")
    owner, _, leaf = path.rpartition("/")
    for pattern, template, kind in rules:
        kind = _kind(kind)
        ours = re.sub(r"\\\\(\d)", r"(?P<g\1>[^/]+)", re.escape(template))
        hit = re.fullmatch(ours, path if kind.whole else owner)
        if hit is None:
            continue
        name = pattern
        for _, group in sorted(hit.groupdict().items()):
            name = re.sub(r"\([^)]*\)", group, name, count=1)
        name = name.replace("\\.", ".")
        if not re.fullmatch(pattern, name):  # a path of the same form that has another rule
            continue
        return name, kind
    return f"an entry that no rule names, {path}", None


def _report(family, variant, module, trouble) -> str:
    heads = [t for t in trouble if re.match(r"misshapen.* params/(head|detector)/", t)]
    hint = ""
    if len(heads) == len(trouble):
        hint = f". Only the number of classes differs: give num_classes (now {module.num_classes})"
    headless = getattr(models.family(family), "HEADLESS", None)
    if headless and all(re.match(r"missing.*/(head|detector)", t) for t in trouble):
        hint = f". These weights have no head: {headless}"
    listed = "; ".join(sorted(trouble))
    return f"{family} {variant}: {len(trouble)} entries do not fit: {listed}{hint}"

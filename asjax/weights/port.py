"""Torch checkpoints -> our variables, by the rule tables of the model files.

A table `TORCH` lists `(pattern, path, kind)`. The pattern must match the name of a torch module
(the key without its last part) or, for kind "param", the whole key; `path` is our module's path and
may use the pattern's groups. `blocks[3]/attn/qkv` is slice 3 of an array stacked over the layers.
A kind turns one torch array into arrays of ours and back: see `Kind`; a model file, which does not
import this one, may give a pair `(read, write)`: a bare parameter whose layout they change.
`TORCH_SKIP` lists patterns of keys that are not weights (DFT kernels, mel filters). A model
file may offer `from_other_names(weights) -> weights`, which renames what other repositories call
these weights (and joins or splits arrays) before the rules apply; it leaves alone what it does not
know. `to_other_names(weights) -> weights` adds what torch's state dict has twice. `HEADLESS` says
what to do about weights without a head; keys that match a pattern of `TORCH_HEAD` are left aside
where the model has none. Nothing here needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from asjax import models
from asjax.config import AsjaxError
from asjax.weights import torch_file

_COUNTER = r".*num_batches_tracked"


# ------------------------------------------------------------------------------------- kinds


class Kind(NamedTuple):
    """How one sort of layer is stored, there and here.

    read: `(torch leaf, array) -> ((collection, our leaf), array)`, ValueError for a wrong rank.
    write: `(our leaf, array) -> (torch leaf, array)`, its inverse.
    whole: the pattern must match the whole key, and the path names the leaf.
    """

    read: Callable
    write: Callable
    whole: bool = False


def _layer(read: Callable, write: Callable) -> Kind:
    """A layer whose `weight`, our `kernel`, is turned by `read` and `write`; other leaves stay."""

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
    """A bare parameter whose path names the leaf; `read` and `write` change its layout."""
    read, write = read or (lambda x: x), write or (lambda x: x)
    return Kind(lambda _, x: (("params", ""), read(x)), lambda leaf, x: (leaf, write(x)), True)


KINDS = {
    # (O, I, *k) -> (*k, I, O): 1-d and 2-d, grouped and depthwise alike
    "conv": _layer(
        lambda x: np.moveaxis(x, (1, 0), (-2, -1)), lambda x: np.moveaxis(x, (-2, -1), (1, 0))
    ),
    # (O, I) -> (I, O)
    "linear": _layer(lambda x: np.swapaxes(x, -1, -2), lambda x: np.swapaxes(x, -1, -2)),
    # batch and layer norms: scale, bias and, where there are any, running statistics
    "norm": Kind(
        lambda leaf, x: (_NORM.get(leaf, ("params", leaf)), x),
        lambda leaf, x: (_NORM_BACK.get(leaf, leaf), x),
    ),
    "param": param(),
}


# -------------------------------------------------------------------------------------- port


class Leaf:
    """One array of ours that is put together when it is asked for (`np.asarray`): float32."""

    def __init__(self, shape: tuple, parts: list):
        self.shape, self.dtype, self._parts = shape, np.dtype(np.float32), parts

    def __array__(self, dtype=None, copy=None):
        first = self._parts[0]
        return np.asarray(first if first.shape == self.shape else np.stack(self._parts), dtype)


class Match(NamedTuple):
    """A torch state dict laid against a model.

    module: the linen module.
    arrays: our path -> Leaf; every array of the model.
    matched: torch entry -> array, those that went in.
    skipped: torch entry -> (array, why it has no place in the model).
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
    """A torch state dict as a linen module and its variables (float32).

    Args:
      family, variant: file and entry of `asjax.models`, e.g. "convnext", "femto".
      state_dict: name -> array (numpy, or anything `np.asarray` takes). A checkpoint that wraps it
        under "model" or "state_dict" and names that begin with "module." are understood.
      **fields: fields of the module, e.g. num_classes=200, stem="56".

    Returns:
      (module, variables) for `module.apply(variables, feats, train=False)`.

    Raises:
      AsjaxError: one error that lists every unmatched, missing and misshapen entry. Nothing is
        returned unless every weight of the model was filled exactly once.
    """
    found = match(family, variant, state_dict, **fields)
    flat = {path: jnp.array(np.asarray(leaf), leaf.dtype) for path, leaf in found.arrays.items()}
    return found.module, unflatten_dict(flat, sep="/")


def match(family: str, variant: str, state_dict, **fields) -> Match:
    """As `from_torch`, but float32 arrays stay views of the given ones until they are asked for."""
    module = models.build(family, variant, **fields)
    file = models.family(family)
    shapes = models.abstract(module)
    placed = place(file, state_dict, shapes)
    if placed.trouble:
        raise AsjaxError(_report(family, variant, module, placed.trouble))
    arrays = {
        path: Leaf(leaf.shape, _parts(path, placed.found))
        for path, leaf in _flatten(shapes).items()
    }
    return Match(module, arrays, placed.matched, placed.skipped)


class Placed(NamedTuple):
    """Torch entries at their places: `found` our path -> array, `trouble` a line per misfit.

    Misshapen arrays are in `found` too; `wanted` says which shapes the model has.
    """

    wanted: dict[str, tuple]
    found: dict[str, np.ndarray]
    matched: dict[str, np.ndarray]
    skipped: dict[str, tuple[object, str]]
    trouble: list[str]


def place(file, state_dict, shapes) -> Placed:
    """Every torch entry where the rules of a model file say it belongs.

    Args:
      file: a module of `asjax.models`.
      shapes: variables of its model, or their shapes (`models.abstract`).
    """
    shapes = _flatten(shapes)
    weights = torch_file.unwrap(state_dict)
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
    """The torch entries that no rule of a model file knows."""
    return [k for k in weights if not skip(file, k) and _match(k, file.TORCH) is None]


def skip(file, key: str) -> str | None:
    """Why a torch entry has no place in the models of a file; None if it should have one."""
    if re.fullmatch(_COUNTER, key):
        return "counts batches"
    return "not part of the model" if any(re.fullmatch(p, key) for p in file.TORCH_SKIP) else None


def to_torch(family: str, variables) -> dict[str, np.ndarray]:
    """Our variables under the names and in the layout of the family's authors: `from_torch` back.

    Entries the authors' code has and ours does not need (`num_batches_tracked`, DFT kernels, unused
    heads) are not among them.

    Raises:
      AsjaxError: an array that no rule of the family names.
    """
    file = models.family(family)
    flat = _flatten(variables)
    out = {}
    for target in _slices(flat, file.TORCH):
        name, kind = _torch_name(target, file.TORCH)
        if kind is None:
            raise AsjaxError(f"{family}: no rule says what {target} is called in torch")
        base, index = _base(target)
        array = np.asarray(flat[base] if index is None else flat[base][index], np.float32)
        leaf, array = kind.write(target.rpartition("/")[2], array)
        out[name if kind.whole else f"{name}.{leaf}"] = np.ascontiguousarray(array)
    return file.to_other_names(out) if hasattr(file, "to_other_names") else out


# Arrays stacked over layers are handled slice by slice, under names like `blocks[3]/attn/qkv`.


def _slices(shapes, rules) -> dict[str, tuple]:
    """Path -> shape, with arrays that a rule addresses by `[index]` taken apart."""
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
    """The array of `path`, or its slices in order."""
    if path in found:
        return [found[path]]
    slices = {index: name for name in found for base, index in [_base(name)] if base == path}
    return [found[slices[i]] for i in range(len(slices))]


def _place(key, value, file, placed):
    """Put one torch entry where its rule says, or note what is wrong with it."""
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
    try:
        (collection, name), part = kind.read(leaf, array)
    except ValueError as error:  # a rank that the kind cannot take
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


def _numbers(value) -> np.ndarray:
    """`value` in float32, itself where it is that already."""
    array = np.asarray(value)
    if array.dtype.kind == "c":
        raise TypeError
    return array if array.dtype == np.float32 else array.astype(np.float32)


def _match(key, rules):
    """(path, leaf, kind) of the first rule that fits, else None."""
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
    """The torch entry that would have filled `target`, for messages."""
    name, kind = _torch_name(target, rules)
    leaf = target.rpartition("/")[2]
    return name if kind is None or kind.whole else f"{name}.{_LEAVES.get(leaf, leaf)}"


def _torch_name(target: str, rules) -> tuple[str, Kind | None]:
    """(torch entry, kind) of our array: the rules read backwards. For that, a pattern may hold only
    literal text and plain groups, each used in the path."""
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
        if not re.fullmatch(pattern, name):  # another rule's layer of the same shape of path
            continue
        return name, kind
    return f"an entry that no rule names, {path}", None


def _report(family, variant, module, trouble) -> str:
    heads = [t for t in trouble if re.match(r"misshapen.* params/(head|detector)/", t)]
    hint = ""
    if len(heads) == len(trouble):
        hint = f". Only the classes differ: give num_classes (it is {module.num_classes})"
    headless = getattr(models.family(family), "HEADLESS", None)
    if headless and all(re.match(r"missing.*/(head|detector)", t) for t in trouble):
        hint = f". These weights have no head: {headless}"
    listed = "; ".join(sorted(trouble))
    return f"{family} {variant}: {len(trouble)} entries do not fit: {listed}{hint}"

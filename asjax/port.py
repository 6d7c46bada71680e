"""Torch checkpoints -> our variables, by the rule tables of the model files.

A table `TORCH` lists `(pattern, path, kind)`. The pattern must match the name of a torch module
(the key without its last part) or, for kind "param", the whole key; `path` is our module's path and
may use the pattern's groups. A kind turns one torch array into arrays of ours: see `KINDS`; a model
file may give a function instead, `(leaf, array) -> {(collection, name): array}`. `TORCH_SKIP` lists
patterns of keys that are not weights (DFT kernels, mel filters). Nothing here needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from asjax import models
from asjax.config import AsjaxError

_ALWAYS_SKIP = (r".*num_batches_tracked",)


# ------------------------------------------------------------------------------------- kinds


def _conv(leaf, x):
    """(O, I, *k) -> (*k, I, O): 1-d and 2-d, grouped and depthwise alike."""
    if leaf == "weight":
        return {("params", "kernel"): np.moveaxis(x, (1, 0), (-2, -1))}
    return {("params", leaf): x}


def _linear(leaf, x):
    """(O, I) -> (I, O)."""
    if leaf == "weight":
        return {("params", "kernel"): np.swapaxes(x, -1, -2)}
    return {("params", leaf): x}


_NORM = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


def _norm(leaf, x):
    """Batch and layer norms: scale, bias and, where there are any, running statistics."""
    return {_NORM.get(leaf, ("params", leaf)): x}


def _param(_, x):
    """A bare parameter, as it is; the path names the leaf."""
    return {("params", ""): x}


KINDS = {"conv": _conv, "linear": _linear, "norm": _norm, "param": _param}


# -------------------------------------------------------------------------------------- port


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
    module = models.build(family, variant, **fields)
    file = models.family(family)
    wanted = _flatten(models.abstract(module))
    weights = _unwrap(state_dict)
    found, trouble = {}, []
    for key, value in weights.items():
        _place(key, value, file, wanted, found, trouble)
    trouble += [
        f"missing: {_torch_name(path, file.TORCH)} (for {path} {want.shape})"
        for path, want in wanted.items()
        if path not in found
    ]
    if trouble:
        raise AsjaxError(_report(family, variant, module, trouble))
    flat = {path: jnp.array(x, wanted[path].dtype) for path, x in found.items()}
    return module, unflatten_dict(flat, sep="/")


def _unwrap(state_dict) -> dict:
    for name in ("model", "state_dict"):
        if isinstance(state_dict, Mapping) and isinstance(state_dict.get(name), Mapping):
            state_dict = state_dict[name]
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise AsjaxError(
            "state_dict must map names to arrays (or wrap such a map under 'model' or "
            f"'state_dict'), got {type(state_dict).__name__}"
        )
    weights = {str(k): v for k, v in state_dict.items()}
    while all(k.startswith("module.") for k in weights):
        weights = {k.removeprefix("module."): v for k, v in weights.items()}
    return weights


def _place(key, value, file, wanted, found, trouble):
    """Put one torch entry where its rule says, or note what is wrong with it."""
    if any(re.fullmatch(p, key) for p in (*_ALWAYS_SKIP, *file.TORCH_SKIP)):
        return
    match = _match(key, file.TORCH)
    if match is None:
        trouble.append(f"unmatched: {key} {np.shape(value)}")
        return
    path, leaf, kind = match
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError, RuntimeError):
        trouble.append(f"misshapen: {key} {np.shape(value)} holds no numbers")
        return
    try:
        parts = kind(leaf, array)
    except ValueError as error:  # a rank that the kind cannot take
        trouble.append(f"misshapen: {key} {array.shape}: {error}")
        return
    for (collection, name), part in parts.items():
        target = "/".join(filter(None, (collection, path, name)))
        if target not in wanted:
            trouble.append(f"unmatched: {key} {array.shape}: this model has no {target}")
        elif part.shape != wanted[target].shape:
            want = wanted[target].shape
            trouble.append(f"misshapen: {key} {array.shape}: {target} is {want}, not {part.shape}")
            found[target] = None
        elif target in found:
            trouble.append(f"unmatched: {key}: {target} was filled by another entry")
        else:
            found[target] = part


def _match(key, rules):
    """(path, leaf, kind function) of the first rule that fits, else None."""
    owner, _, leaf = key.rpartition(".")
    for pattern, path, kind in rules:
        hit = re.fullmatch(pattern, key if kind == "param" else owner)
        if hit:
            return hit.expand(path), leaf, KINDS.get(kind, kind)
    return None


def _flatten(tree) -> dict:
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(k.key for k in path): leaf for path, leaf in flat}


_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def _torch_name(target: str, rules) -> str:
    """The torch entry that would have filled `target`: the rules read backwards."""
    _, _, path = target.partition("/")
    owner, _, leaf = path.rpartition("/")
    for pattern, template, kind in rules:
        ours = re.sub(r"\\\\(\d)", r"(?P<g\1>[^/]+)", re.escape(template))
        hit = re.fullmatch(ours, path if kind == "param" else owner)
        if hit is None:
            continue
        name = pattern
        for _, group in sorted(hit.groupdict().items()):
            name = re.sub(r"\([^)]*\)", group, name, count=1)
        name = name.replace("\\.", ".")
        return name if kind == "param" else f"{name}.{_LEAVES.get(leaf, leaf)}"
    return "an entry that no rule names"


def _report(family, variant, module, trouble) -> str:
    heads = [t for t in trouble if t.startswith("misshapen") and "params/head/" in t]
    hint = ""
    if len(heads) == len(trouble):
        hint = f". Only the classes differ: give num_classes (it is {module.num_classes})"
    listed = "; ".join(sorted(trouble))
    return f"{family} {variant}: {len(trouble)} entries do not fit: {listed}{hint}"

"""AST's weights: Hugging Face's names, fields from shapes, starts from other models."""

from __future__ import annotations

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from asjax.config import AsjaxError

_LAYER = r"(?:encoder\.layer|layers)\.(\d+)\."
_HUGGING_FACE = (
    (r"embeddings\.cls_token", "v.cls_token"),
    (r"embeddings\.distillation_token", "v.dist_token"),
    (r"embeddings\.position_embeddings", "v.pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(\w+)", r"v.patch_embed.proj.\1"),
    (_LAYER + r"layernorm_before\.(\w+)", r"v.blocks.\1.norm1.\2"),
    (_LAYER + r"layernorm_after\.(\w+)", r"v.blocks.\1.norm2.\2"),
    (_LAYER + r"attention\.(?:output\.dense|o_proj)\.(\w+)", r"v.blocks.\1.attn.proj.\2"),
    (_LAYER + r"(?:intermediate\.dense|mlp\.fc1)\.(\w+)", r"v.blocks.\1.mlp.fc1.\2"),
    (_LAYER + r"(?:output\.dense|mlp\.fc2)\.(\w+)", r"v.blocks.\1.mlp.fc2.\2"),
    (r"layernorm\.(\w+)", r"v.norm.\1"),
    (r"classifier\.layernorm\.(\w+)", r"mlp_head.0.\1"),
    (r"classifier\.dense\.(\w+)", r"mlp_head.1.\1"),
)
_QKV = re.compile(
    _LAYER + r"attention\.(?:attention\.(query|key|value)|(q|k|v)_proj)\.(weight|bias)"
)


def from_other_names(weights) -> dict:
    """Rename Hugging Face's names (Hub and transformers 5) to the authors'; join q, k and v."""
    out, parts = {}, {}
    for key, value in weights.items():
        name = key.removeprefix("audio_spectrogram_transformer.")
        hit = _QKV.fullmatch(name)
        if hit:
            part = (hit[2] or hit[3])[0]
            parts.setdefault(f"v.blocks.{hit[1]}.attn.qkv.{hit[4]}", {})[part] = (key, value)
        else:
            out[_renamed(name) or key] = value
    for name, found in parts.items():
        whole = _joined([found[p][1] for p in "qkv"]) if len(found) == 3 else None
        out.update(dict(found.values()) if whole is None else {name: whole})
    return out


def _renamed(name: str) -> str | None:
    for pattern, ours in _HUGGING_FACE:
        hit = re.fullmatch(pattern, name)
        if hit:
            return hit.expand(ours)
    return None


def _joined(arrays):
    """The rows of three arrays; None if their shapes differ or they hold no numbers."""
    try:
        arrays = [np.asarray(a, np.float32) for a in arrays]
    except (TypeError, ValueError, RuntimeError):
        return None
    same = arrays[0].ndim and all(a.shape == arrays[0].shape for a in arrays)
    return np.concatenate(arrays) if same else None


# (n_mels, frames) of the published AST and ATDR recipes
_INPUTS = ((128, 1024), (64, 400), (128, 512), (128, 128))
_STRIDES = (4, 6, 8, 10, 12, 14, 16)


def torch_fields(weights) -> list[dict] | tuple[dict, ...]:
    """The values of stride, n_mels and frames that fit the number of positions, likely ones first.

    The published input and stride with this number of patches come first. If two are published, we
    return only these, as a tuple: none is more likely. Then follow 128 bins of any length, first
    with stride 10, which nearly everybody uses. A grid fits a range of lengths, because the last
    frames may not fill a patch. We report the length that the highest power of two divides.
    """
    names = ("v.pos_embed", "embeddings.position_embeddings")
    shape = next((np.shape(v) for k, v in weights.items() if k.endswith(names)), ())
    patches = shape[1] - 2 if len(shape) == 3 else 0
    readings = _published(patches)
    if len(readings) > 1:
        return tuple(readings)
    for stride in (10, 16, 12, 14, 8, 6, 4) if patches > 0 else ():
        bands = _grid(stride, 128, 128)[0]
        if patches % bands == 0 and not any(r["stride"] == stride for r in readings):
            frames = _roundest(16 + (patches // bands - 1) * stride, stride)
            readings.append(dict(stride=stride, n_mels=128, frames=frames))
    return readings


def _published(patches: int) -> list[dict]:
    return [
        dict(stride=stride, n_mels=bins, frames=frames)
        for bins, frames in _INPUTS
        for stride in _STRIDES
        if math.prod(_grid(stride, bins, frames)) == patches
    ]


def _roundest(first: int, count: int) -> int:
    """The number in first ... first + count - 1 that the highest power of two divides."""
    return max(range(first, first + count), key=lambda n: n & -n)


def torch_variants(weights) -> list[str]:
    """The variants that the names allow; Hugging Face's conversions have another epsilon."""
    hugging_face = any(_QKV.search(key) for key in weights)
    return ["base384_hf"] if hugging_face else ["base384", "base224", "small224", "tiny224"]


def _grid(stride: int, n_mels: int, frames: int) -> tuple[int, int]:
    return (n_mels - 16) // stride + 1, (frames - 16) // stride + 1


# --------------------------------------------------------------------------------- positions


def adapt_positions(positions, old: tuple[int, int], new: tuple[int, int], prefix: int = 2):
    """Adapt positions to another grid: [1, prefix + old, D] -> [1, prefix + new, D] float32.

    First along time, then along frequency: a shorter axis takes the middle of the old one, a longer
    axis is interpolated (bilinear, half-pixel centres, no antialiasing). The rows of the `prefix`
    tokens do not change. AST's code does the same, from DeiT's square grid and from AudioSet's
    12x101 grid.

    Args:
      old, new: grids as (frequency, time).

    Raises:
      AsjaxError: the positions do not fit the old grid.
    """
    positions = np.asarray(positions, np.float32)
    if positions.ndim != 3 or positions.shape[:2] != (1, prefix + math.prod(old)):
        raise AsjaxError(
            f"positions of shape {positions.shape} do not fit a grid of {old[0]}x{old[1]} patches "
            f"after {prefix} tokens, which needs (1, {prefix + math.prod(old)}, width)"
        )
    head, grid = positions[:, :prefix], positions[0, prefix:].reshape(*old, -1)
    for axis in (1, 0):
        size, target = grid.shape[axis], new[axis]
        if target <= size:
            start = size // 2 - target // 2
            grid = np.take(grid, np.arange(start, start + target), axis)
        else:
            shape = grid.shape[:axis] + (target,) + grid.shape[axis + 1 :]
            grid = np.asarray(jax.image.resize(grid, shape, "bilinear", antialias=False))
    return np.concatenate([head, grid.reshape(1, math.prod(new), -1)], 1)


# ------------------------------------------------------------------------------------ starts


def init_from_imagenet(module, variables, weights) -> dict:
    """Replace all of `variables` but the head (norm and layer) by those of a distilled DeiT.

        deit = torch.load("deit_base_distilled_patch16_384-d0272ac0.pth")["model"]
        variables = ast.init_from_imagenet(module, module.init(rng, feats), deit)

    The patch kernel is summed over the colours. `adapt_positions` adapts the positions. base384
    starts from DeiT-B distilled 384, the others from the DeiT 224 of their size.

    Args:
      module: the AST to which `variables` belong.
      weights: name -> array of a distilled DeiT (timm's and the authors' names), possibly under
        "model". Its heads are not used.

    Raises:
      AsjaxError: lists every entry that is missing, left over or of another shape.
    """
    weights = _unwrapped(weights)
    weights = {k: v for k, v in weights.items() if not k.startswith(("head.", "head_dist."))}
    kernel = np.shape(weights.get("patch_embed.proj.weight"))
    if len(kernel) == 4 and kernel[1] == 3:
        kernel = np.asarray(weights["patch_embed.proj.weight"], np.float32)
        weights["patch_embed.proj.weight"] = kernel.sum(1, keepdims=True)
    places = np.shape(weights.get("pos_embed"))
    side = math.isqrt(max(places[1] - 2, 0)) if len(places) == 3 else 0
    return _started(module, variables, weights, (side, side), "AST from ImageNet", head=False)


def init_from_audioset(module, variables, weights, grid: tuple[int, int] | None = None) -> dict:
    """Replace `variables` by those of a trained AST, also with another grid or other classes.

    The head (norm and layer) is replaced only if the number of classes is the same.
    `adapt_positions` adapts the positions.

    Args:
      module: the AST to which `variables` belong.
      weights: name -> array with the authors' or Hugging Face's names, possibly under "model" or
        "state_dict" and with the prefix "module.".
      grid: patches along (frequency, time) of these weights. The default is the module's grid if
        the number of patches agrees, else the grid of the published input with this number:
        (12, 101) for stride 10.

    Raises:
      AsjaxError: lists every entry that is missing, left over or of another shape.
    """
    weights = from_other_names(_unwrapped(weights))
    unused = ("v.head.", "v.head_dist.")
    given = {k.removeprefix("v."): v for k, v in weights.items() if not k.startswith(unused)}
    if grid is None:
        places = np.shape(given.get("pos_embed"))
        own = len(places) == 3 and places[1] == 2 + math.prod(module.grid)
        readings = _published(places[1] - 2) if len(places) == 3 else []
        grid = module.grid if own or len(readings) != 1 else _grid(**readings[0])
    head = np.shape(given.get("mlp_head.1.bias")) == (module.num_classes,)
    if not head:
        given = {k: v for k, v in given.items() if not k.startswith("mlp_head.")}
    return _started(module, variables, given, tuple(grid), "AST from AudioSet", head=head)


def _unwrapped(weights) -> dict:
    """Copy the weights without the wrappers "model" and "state_dict" and the prefix "module."."""
    for name in ("model", "state_dict"):
        if hasattr(weights.get(name), "items"):
            weights = weights[name]
    weights = dict(weights)
    if weights and all(k.startswith("module.") for k in weights):
        weights = {k.removeprefix("module."): v for k, v in weights.items()}
    return weights


def _started(module, variables, given: dict, grid, label: str, *, head: bool) -> dict:
    """Put `given` (the authors' names without "v.") into `variables`, or raise one error."""
    ours = flatten_dict(variables["params"], sep="/")
    wanted = {}  # the authors' name -> (our path, shape there)
    for path, start in ours.items():
        if head or not path.startswith("head"):
            for name in _names(path, module.depth):
                shape = start.shape[1:] if "blocks." in name else start.shape
                kernel = path.endswith("kernel")
                wanted[name] = path, (*shape[:-3:-1], *shape[:-2]) if kernel else shape
    trouble, parts = [], {}
    for name, value in given.items():
        if name not in wanted:
            trouble.append(f"left over: {name} {np.shape(value)}")
            continue
        path, shape = wanted.pop(name)
        try:
            array = np.asarray(value, np.float32)
            array = adapt_positions(array, grid, module.grid) if path == "pos_embed" else array
        except AsjaxError as error:
            trouble.append(f"misshapen: {name}: {error}")
            continue
        except (TypeError, ValueError, RuntimeError):
            trouble.append(f"misshapen: {name} holds no numbers")
            continue
        if array.shape == shape:
            parts[name] = array
        else:
            trouble.append(f"misshapen: {name} {array.shape} should be {shape}")
    trouble += [f"missing: {name} {shape}" for name, (_, shape) in wanted.items()]
    if trouble:
        listed = "; ".join(sorted(trouble))
        raise AsjaxError(f"{label}: {len(trouble)} entries do not fit: {listed}")
    for path in ours if head else [p for p in ours if not p.startswith("head")]:
        arrays = [parts[name] for name in _names(path, module.depth)]
        if path.endswith("kernel"):  # (O, I, *k) -> (*k, I, O)
            arrays = [np.moveaxis(x, (1, 0), (-2, -1)) for x in arrays]
        stacked = path.startswith("encoder/blocks")
        ours[path] = jnp.asarray(np.stack(arrays) if stacked else arrays[0])
    return {**variables, "params": unflatten_dict(ours, sep="/")}


_PARTS = {"patches": "patch_embed/proj", "head_norm": "mlp_head/0", "head": "mlp_head/1"}


def _names(path: str, depth: int) -> list[str]:
    """The authors' names, without "v.", of the array at our `path` or of its slices."""
    first, _, rest = path.removeprefix("encoder/").partition("/")
    name = "/".join(filter(None, (_PARTS.get(first, first), rest)))
    name = re.sub(r"(kernel|scale)$", "weight", name).replace("/", ".")
    if first != "blocks":
        return [name]
    return [name.replace("blocks.", f"blocks.{i}.", 1) for i in range(depth)]

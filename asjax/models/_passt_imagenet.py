"""Start a PaSST from the weights of an ImageNet DeiT (Touvron et al. 2021)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from asjax.config import AsjaxError
from asjax.nn.resize import bicubic


def init_from_imagenet(module, variables, weights) -> dict:
    """Replace all of `variables` but the head (norm and layer) by those of an ImageNet DeiT.

        deit = torch.load("deit_base_distilled_patch16_384-d0272ac0.pth")["model"]
        variables = passt.init_from_imagenet(module, module.init(rng, feats), deit)

    The patch kernel is summed over the colours. The grid of positions is resized by torch's bicubic
    interpolation without align_corners. As in the authors' code, its mean over time becomes the
    frequency encoding and its mean over frequency the time encoding. PaSST starts from DeiT-B
    distilled 384.

    Args:
      module: the PaSST to which `variables` belong.
      weights: name -> array of a DeiT with a class token and, if the module is `distilled`, a
        distillation token. Its heads are not used.

    Raises:
      AsjaxError: lists every entry that is missing, left over or of another shape.
    """
    given = {k: np.asarray(v, np.float32) for k, v in weights.items() if not k.startswith("head")}
    shapes = _deit_shapes(module, np.shape(given.get("pos_embed")))
    trouble = [f"missing: {k} {shapes[k]}" for k in shapes if k not in given]
    for name, array in given.items():
        if name not in shapes:
            trouble.append(f"left over: {name} {array.shape}")
        elif array.shape != shapes[name]:
            trouble.append(f"misshapen: {name} {array.shape} should be {shapes[name]}")
    if trouble:
        listed = "; ".join(sorted(trouble))
        raise AsjaxError(f"PaSST from ImageNet: {len(trouble)} entries do not fit: {listed}")

    def stack(name):
        return np.stack([given[f"blocks.{i}.{name}"] for i in range(module.depth)])

    def norm(name):
        return {"scale": stack(f"{name}.weight"), "bias": stack(f"{name}.bias")}

    def dense(name):
        return {"kernel": stack(f"{name}.weight").swapaxes(1, 2), "bias": stack(f"{name}.bias")}

    tokens, places = np.split(given["pos_embed"], [2 if module.distilled else 1], 1)
    side = math.isqrt(places.shape[1])
    rows, columns = (bicubic(side, new) for new in module.grid)
    places = rows @ places.reshape(side, side, -1).transpose(2, 0, 1) @ columns.T  # [D, F, T]
    kernel = given["patch_embed.proj.weight"].sum(1)  # [D, 16, 16]
    started = {
        **{name: given[name] for name in ("cls_token", "dist_token") if name in shapes},
        "token_encoding": tokens,
        "freq_encoding": places.mean(2).T[None, :, None],
        "time_encoding": places.mean(1).T[None, None],
        "patches": {
            "kernel": kernel.transpose(1, 2, 0)[:, :, None],
            "bias": given["patch_embed.proj.bias"],
        },
        "encoder": {
            "blocks": {
                "norm1": norm("norm1"),
                "norm2": norm("norm2"),
                "attn": {"qkv": dense("attn.qkv"), "proj": dense("attn.proj")},
                "mlp": {"fc1": dense("mlp.fc1"), "fc2": dense("mlp.fc2")},
            }
        },
        "norm": {"scale": given["norm.weight"], "bias": given["norm.bias"]},
    }
    started = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), started)
    return {**variables, "params": {**variables["params"], **started}}


def _deit_shapes(module, places: tuple) -> dict[str, tuple]:
    """Entry -> shape of a DeiT with the module's width and depth and a square grid of positions."""
    width, tokens = module.width, 2 if module.distilled else 1
    side = math.isqrt(max(1, places[1] - tokens)) if len(places) == 3 else 24
    layer = {
        **{f"norm{i}": (width,) for i in (1, 2)},
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "mlp.fc1": (4 * width, width),
        "mlp.fc2": (width, 4 * width),
    }
    parts = {f"blocks.{i}.{k}": v for i in range(module.depth) for k, v in layer.items()}
    parts |= {"patch_embed.proj": (width, 3, 16, 16), "norm": (width,)}
    names = ("cls_token", "dist_token")[:tokens]
    return {
        **{name: (1, 1, width) for name in names},
        "pos_embed": (1, tokens + side**2, width),
        **{f"{k}.weight": v for k, v in parts.items()},
        **{f"{k}.bias": v[:1] for k, v in parts.items()},
    }

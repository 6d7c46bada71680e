"""Parity cases of PaSST; those in training mode have a stored choice of patches."""

import jax
import numpy as np
import parity_table

FAMILY = "passt"
DEPTHS = {12: "passt_s", 7: "passt_l"}


def spec(case, manifest):
    """(variant, fields) of a case from the authors' class and its arguments; None if another's."""
    reference = manifest.get("reference")
    given = reference.get("args") if isinstance(reference, dict) else None
    if not isinstance(given, dict) or reference.get("class") != "PaSST":
        return None
    n_mels, frames = given["img_size"]
    fields = dict(
        stride=tuple(given["stride"]),
        frames=frames,
        n_mels=n_mels,
        width=given["embed_dim"],
        heads=given["num_heads"],
        depth=given["depth"],
        distilled=given["distilled"],
    )
    fields |= {k: v for k, v in given.items() if "patchout" in k}
    return DEPTHS.get(given["depth"], "passt_s"), fields


def kept(expected):
    """The stored choice of patches for the model's `kept`; None in evaluation mode."""
    names = ("kept_time", "kept_freq", "kept_tokens", "time_offset")
    return {k.removeprefix("kept_"): expected[k] for k in names if k in expected} or None


def run(case, manifest, module, variables):
    """The reference's names and layouts: (B, D, F, T) patches, (B, S, D) tokens."""
    given = manifest["input"]
    x = parity_table.rule.array(
        given["name"], given["shape"], salt=manifest["salt"], scale=given.get("scale", 1.0)
    )
    choice = kept(manifest["stored"])
    train = manifest["mode"].startswith("train")
    apply = jax.jit(
        lambda v, x, kept: module.apply(v, x, train=train, kept=kept, capture_intermediates=True)
    )
    out, state = apply(variables, x[:, 0].swapaxes(1, 2), choice)
    inner = parity_table.captured(state["intermediates"])
    blocks = inner["encoder/blocks"]  # [depth, B, S, D]
    return {
        **{k: v for k, v in manifest["stored"].items() if v.dtype.kind == "i"},  # the given choice
        **{f"block{i}": blocks[i] for i in range(len(blocks))},
        "patch_embed": inner["patches"].transpose(0, 3, 1, 2),
        "norm": inner["norm"],
        "logits": np.asarray(out["logits"]),
        "features": np.asarray(out["embedding"]),
    }

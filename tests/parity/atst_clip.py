"""Parity cases of ATST-Clip: the bare encoder on one chunk and on clips of several lengths."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import parity_table

FAMILY = "atst_clip"


def spec(case, manifest):
    """(variant, fields) of a case from the reference's constructor; None if it is another's."""
    reference = manifest.get("reference")
    name = reference.get("class", "") if isinstance(reference, dict) else ""
    hit = re.search(r"atst\.audio_transformer\.AST_(\w+)\(use_cls=True\)", name)
    if hit is None:
        return None
    meaning = manifest["outputs"]["clip"]["meaning"]
    blocks, chunk = (int(re.search(rf"{k}=(\d+)", meaning)[1]) for k in ("n", "chunk_len"))
    return f"atst_clip_{hit[1]}", dict(num_classes=0, blocks_used=blocks, chunk_frames=chunk)


def run(case, manifest, module, variables):
    """The last block's tokens of the first chunk, and the embedding of every clip."""
    shape = re.search(r"\[[\d,]+\]", manifest["input"]["mel"])[0]
    x = parity_table.rule.array("input", json.loads(shape), salt=manifest["salt"])
    x = x[:, 0].swapaxes(1, 2)
    apply = jax.jit(lambda v, x, n: module.apply(v, x, lengths=n, capture_intermediates=True))
    lengths = jnp.asarray(manifest["input"]["lengths"])
    out, state = apply(variables, x, lengths)
    first = x[:, : module.chunk_frames]
    _, state = apply(variables, first, jnp.full(len(x), first.shape[1]))
    tokens = parity_table.captured(state["intermediates"])["norm"][-1]
    return {"clip": np.asarray(out["embedding"]), "tokens601": tokens[:, ::3, ::4]}

"""Parity cases of fPaSST: `sed_fpasst_backbone` etc. and a small one of several lengths."""

import numpy as np
from parity import _sed

FAMILY = "fpasst"
TOLERANCE = _sed.TOLERANCE
TINY = dict(width=48, heads=4, depth=2, num_classes=0)


def spec(case, manifest):
    """(variant, fields) of a case from its name; None if it is another family's."""
    if case == "sed_tiny_fpasst":
        return "fpasst_base", TINY
    return _sed.spec(case, manifest, FAMILY)


def run(case, manifest, module, variables):
    """Maps as (B, C, F, T), tokens with encodings, blocks and the outputs."""

    def inner(captured):
        blocks, patches = captured["encoder/blocks"], captured["patches"]
        found = {f"block{i}": blocks[i] for i in range(module.depth)}
        return found | {
            "conv_in_3_before_gelu": captured["conv3"].transpose(0, 3, 1, 2),
            "patch_embed": patches.swapaxes(1, 2)[:, :, None],
            "tokens_in": np.asarray(captured["Dropout_0"]),
            "norm_all_tokens": captured["norm"],
        }

    return _sed.run(manifest, module, variables, FAMILY, inner)

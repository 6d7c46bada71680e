"""Parity cases of PSLA's EfficientNets: `psla_effnet_b2_h4_128x1056`."""

import numpy as np

FAMILY = "efficientnet"


def spec(case, manifest):
    """(variant, fields) of a case from the manifest; None if it is another family's."""
    if "EffNetAttention" not in manifest.get("reference", {}).get("cls", ""):
        return None
    args = manifest["reference"]["args"]
    # the authors' class makes four heads for any number above one
    heads = args["head_num"] if args["head_num"] < 2 else 4
    return f"effnet_b{args['b']}", {"heads": heads}


def outputs(out, inner, feats):
    """The reference's names and layouts, (B, C, F, T) for feature maps."""
    maps = {k: v.transpose(0, 3, 1, 2) for k, v in inner.items() if v.ndim == 4}
    blocks = sorted((k for k in maps if "/" not in k and k.startswith("block")), key=len)
    count = len(blocks)
    return {
        "prob": out["prob"],
        "stem_bn": maps["stem_bn"],
        "block0": maps["block0"][:, ::8, ::9, ::31],
        "block_mid": maps[f"block{count // 2}"],
        "block_last": maps[f"block{count - 1}"],
        "pooled": np.swapaxes(out["frame_embedding"], 1, 2)[:, :, None],
    }

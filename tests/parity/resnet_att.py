"""Parity cases of the ResNets with attention pooling."""

import re

FAMILY = "resnet_att"


def spec(case, manifest):
    """(variant, fields) of a case from the reference's class and arguments."""
    path, _, cls = manifest["reference"].get("cls", "").rpartition(":")
    args = manifest["reference"].get("args", {})
    if path.endswith("AudioResNet.py"):
        return f"{cls}_asdr", {}
    if cls != "ResNetAttention":
        return None
    variant = "resnet50_scrambled" if args["n_mels"] == 64 else "resnet50"
    return variant, dict(activation=args["att_activation"])


def outputs(out, inner, feats):
    """Feature maps as the reference's (B, C, H, W); classifiers of the two repositories."""
    found = {"prob": out["prob"], "conv1": inner["stem"].transpose(0, 3, 1, 2)}
    for stage in range(1, 5):
        blocks = [k for k in inner if re.fullmatch(rf"layer{stage}_block\d+", k)]
        last = max(blocks, key=lambda k: int(k.rpartition("block")[2]))
        found[f"layer{stage}"] = inner[last].transpose(0, 3, 1, 2)
    frames, att, cla = out["frame_embedding"], inner["head/att"], inner["head/cla"]
    if feats.shape[2] == 64 and found["conv1"].shape[2] == feats.shape[1]:  # ASDR
        return {**found, "frame_logits": cla, "att_logits": att}
    return {
        **found,
        "pooled": frames.swapaxes(1, 2)[:, :, None],
        "att_logits": att.swapaxes(1, 2)[..., None][:, ::8, :, 0],
        "cla_logits": cla.swapaxes(1, 2)[..., None][:, ::8, :, 0],
    }

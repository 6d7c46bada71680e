"""Parity cases of the audio ConvNeXts."""

FAMILY = "convnext"


def spec(case, manifest):
    """(None, fields) of a case from the authors' class; shapes give the size; None if another's."""
    reference = manifest["reference"]
    if reference.get("class") != "ConvNeXt":
        return None
    stem = reference.get("stem")
    return None, {"stem": stem["after_stem_dim"]} if stem else {}


def outputs(out, inner, feats):
    """The reference's names and layouts, (B, C, T, F) for feature maps."""
    found = {}
    for stage in range(4):
        blocks = [k for k in inner if k.startswith(f"stage{stage}_block") and "/" not in k]
        last = max(blocks, key=lambda k: int(k.rpartition("block")[2]))
        found[f"stage{stage}"] = inner[last].transpose(0, 3, 1, 2)
    return {
        **found,
        "frame_embeddings": found["stage3"],
        "stem": inner["stem"].transpose(0, 3, 1, 2),
        "branch0": inner["stage0_block1/pwconv2"],
        "branch2": inner["stage2_block0/pwconv2"],
        "logmel": feats[:, None],
        "bn0": inner["bn0"].transpose(0, 2, 1)[..., None],
    }

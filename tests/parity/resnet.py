"""Parity cases of the PANNs ResNets."""

FAMILY = "resnet"


def spec(case, manifest):
    """(variant, fields) of a case by the authors' class; None if it is another family's."""
    name = str(manifest["reference"].get("class", ""))
    return (name.lower(), {}) if name in ("ResNet22", "ResNet38", "ResNet54") else None


def outputs(out, inner, feats):
    """The reference's names and layouts, (B, C, T, F) for feature maps."""
    last = max(k for k in inner if k.startswith("layer4_") and "/" not in k)
    return {
        "logmel": feats[:, None],
        "bn0": inner["bn0"].transpose(0, 2, 1)[..., None],
        "conv_block1": inner["block1"].transpose(0, 3, 1, 2),
        "resnet": inner[last].transpose(0, 3, 1, 2),
        "conv_block_after1": inner["after"].transpose(0, 3, 1, 2),
    }

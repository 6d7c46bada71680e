"""Parity cases of PANNs' Wavegram-Logmel-CNN14."""

FAMILY = "wavegram"

_CLASSES = {
    "Wavegram_Logmel_Cnn14": "wavegram_logmel_cnn14",
    "Wavegram_Logmel128_Cnn14": "wavegram_logmel128_cnn14",
}


def spec(case, manifest):
    """(variant, fields) of a case by the authors' class; None if it is another family's."""
    variant = _CLASSES.get(manifest["reference"].get("class"))
    return (variant, {}) if variant else None


def outputs(out, inner, feats):
    """The reference's names and layouts, (B, C, T, F) for feature maps."""
    maps = {k: v.transpose(0, 3, 1, 2) for k, v in inner.items() if v.ndim == 4}
    return {
        **{k if k.startswith("pre_") else f"conv_{k}": v for k, v in maps.items()},
        "logmel": feats[:, None, :, : inner["bn0"].shape[-1]],
        "bn0": inner["bn0"].transpose(0, 2, 1)[..., None],
    }

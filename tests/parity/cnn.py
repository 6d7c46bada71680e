"""Parity cases of the PANNs CNNs."""

FAMILY = "cnn"


def spec(case, manifest):
    """(variant, fields) of a case by its name, `cnn6_mel`; None when it is not ours."""
    word = case.split("_")[0]
    return (word, {}) if word in ("cnn6", "cnn10", "cnn14") else None


def outputs(out, inner, feats):
    """The reference's names and layouts, (B, C, T, F) for feature maps."""
    maps = {f"conv_{k}": v.transpose(0, 3, 1, 2) for k, v in inner.items() if v.ndim == 4}
    return {
        **maps,
        "logmel": feats[:, None],
        "bn0": inner["bn0"].transpose(0, 2, 1)[..., None],
    }

"""Parity cases of the PANNs CNNs."""

FAMILY = "cnn"

# the authors' classes -> variants; the others have our names
_CLASSES = {
    "Cnn14_DecisionLevelMax": "cnn14_decision_max",
    "Cnn14_DecisionLevelAvg": "cnn14_decision_avg",
    "Cnn14_DecisionLevelAtt": "cnn14_decision_att",
}


def spec(case, manifest):
    """(variant, fields) of a case by the authors' class; None if it is another family's."""
    name = str(manifest["reference"].get("class", ""))
    if not name.startswith("Cnn"):
        return None
    return _CLASSES.get(name, name.lower()), {}


def outputs(out, inner, feats):
    """The reference's names and layouts, (B, C, T, F) for feature maps."""
    maps = {f"conv_{k}": v.transpose(0, 3, 1, 2) for k, v in inner.items() if v.ndim == 4}
    return {
        **maps,
        "logmel": feats[:, None],
        "bn0": inner["bn0"].transpose(0, 2, 1)[..., None],
    }

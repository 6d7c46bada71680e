"""Parity cases of Frame-MobileNet: `sed_frame_mn06_backbone` etc."""

from parity import _sed

from asjax import models

FAMILY = "frame_mn"
TOLERANCE = _sed.TOLERANCE


def spec(case, manifest):
    """(variant, fields) of a case from its name; None if it is another family's."""
    found = (_sed.spec(case, manifest, FAMILY, name) for name in models.family(FAMILY).VARIANTS)
    return next((spec for spec in found if spec), None)


def run(case, manifest, module, variables):
    """Maps as (B, C, F, T) and the outputs."""

    def inner(captured):
        maps = {f"features{i}": captured[f"block{i}"] for i in range(1, 16)}
        maps["features0"] = captured["stem"]
        return {name: x.transpose(0, 3, 1, 2) for name, x in maps.items()}

    return _sed.run(manifest, module, variables, FAMILY, inner)

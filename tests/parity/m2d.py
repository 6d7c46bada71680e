"""Parity cases of M2D: `sed_m2d_backbone` etc. and a small one of several lengths."""

from parity import _sed

FAMILY = "m2d"
TOLERANCE = _sed.TOLERANCE
TINY = dict(width=48, heads=4, depth=2, num_classes=0)


def spec(case, manifest):
    """(variant, fields) of a case from its name; None if it is another family's."""
    if case == "sed_tiny_m2d":
        return "m2d_base", TINY
    return _sed.spec(case, manifest, FAMILY)


def run(case, manifest, module, variables):
    """Patches (B, S, D), blocks, all tokens after the norm, and the outputs."""

    def inner(captured):
        blocks, patches = captured["encoder/blocks"], captured["patches"]
        found = {"patch_embed": patches.reshape(len(patches), -1, module.width)}
        found["norm_all_tokens"] = captured["norm"]
        return found | {f"block{i}": blocks[i] for i in range(module.depth)}

    return _sed.run(manifest, module, variables, FAMILY, inner)

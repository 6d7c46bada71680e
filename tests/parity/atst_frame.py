"""Parity cases of ATST-Frame: `sed_atst_frame_backbone` etc. and a small one of several lengths."""

from parity import _sed

FAMILY = "atst_frame"
TOLERANCE = _sed.TOLERANCE
TINY = dict(width=48, heads=4, depth=2, num_classes=0)


def spec(case, manifest):
    """(variant, fields) of a case from its name; None if it is another family's."""
    if case == "sed_tiny_atst_frame":
        return "atst_frame_base", TINY
    return _sed.spec(case, manifest, FAMILY)


def run(case, manifest, module, variables):
    """Tokens with positions, blocks and the outputs."""

    def inner(captured):
        blocks = captured["encoder/blocks"]
        places = variables["params"]["pos_embed"][:, 1:]
        tokens = captured["patches"]
        found = {"patch_tokens_plus_pos": tokens + places[:, : tokens.shape[1]]}
        return found | {f"block{i}": blocks[i] for i in range(module.depth)}

    return _sed.run(manifest, module, variables, FAMILY, inner)

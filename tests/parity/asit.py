"""Parity cases of ASiT: `sed_asit_backbone` etc. and a small one of several lengths."""

import numpy as np
from parity import _sed

FAMILY = "asit"
TOLERANCE = _sed.TOLERANCE
TINY = dict(width=48, heads=4, depth=2, num_classes=0)


def spec(case, manifest):
    """(variant, fields) of a case from its name; None if it is another family's."""
    if case == "sed_tiny_asit":
        return "asit_base", TINY
    return _sed.spec(case, manifest, FAMILY)


def run(case, manifest, module, variables):
    """Tokens with positions, blocks and the outputs."""

    def inner(captured):
        blocks = captured["encoder/blocks"]
        found = {f"block{i}": blocks[i] for i in range(module.depth)}
        return found | {"tokens_in": np.asarray(captured["Dropout_0"])}

    return _sed.run(manifest, module, variables, FAMILY, inner)

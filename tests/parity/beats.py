"""Parity cases of BEATs: `sed_beats_backbone` etc. and a small one of several lengths."""

from parity import _sed

from asjax.nn import relative

FAMILY = "beats"
TOLERANCE = _sed.TOLERANCE
TINY = dict(
    width=48, heads=4, depth=3, mlp_ratio=2, patch_width=32, position_taps=16, position_groups=4,
    buckets=32, farthest=80, num_classes=0,
)  # fmt: skip


def spec(case, manifest):
    """(variant, fields) of a case from its name; None if it is another family's."""
    if case == "sed_tiny_beats":
        return "beats_base", TINY
    return _sed.spec(case, manifest, FAMILY)


def run(case, manifest, module, variables):
    """Stages of the patches, layers (B, S, D) and the outputs."""

    def inner(captured):
        layers, table = captured["layers"], variables["params"]["relative_bias"]
        tokens = layers.shape[2]
        found = {f"layer{i}": layers[i] for i in range(module.depth)}
        return found | {
            "patch_layer_norm": captured["patch_norm"],
            "post_extract_proj": captured["patch_proj"],
            "encoder_input_norm": captured["norm"],
            "layer0_position_bias": relative.position_bias(table, tokens, module.farthest),
            "layer0_attn": captured["layers/out"][0],
        }

    return _sed.run(manifest, module, variables, FAMILY, inner)

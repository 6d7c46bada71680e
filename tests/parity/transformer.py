"""Parity cases of the Transformer of AudioTagging Done Right."""

from parity import talnet

FAMILY = "transformer"


def spec(case, manifest):
    """(variant, fields) of a case from the reference's class, arguments and shapes."""
    if not manifest["reference"].get("cls", "").endswith("Net_mModal_mgpu.py:Transformer"):
        return None
    shapes = {name: shape for name, shape, _ in manifest["state_dict"]}
    names = dict(n_mels="n_mels", embedding_size="width", n_trans_layers="depth")
    fields = talnet.fields(manifest, names)
    return "transformer", {**fields, "mlp": shapes["layer_stack.0.pos_ffn.w_1.weight"][0]}


def outputs(out, inner, feats):
    """Inner outputs of the stacked layers, and the clip probability by every pooling function."""
    stack = inner["layers"]
    return {
        "ln_in": inner["norm_in"],
        "layer0": stack[0],
        "layer_last": stack[-1],
        **talnet.pooled(out),
    }

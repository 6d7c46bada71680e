"""Parity cases of the Transformer of AudioTagging Done Right."""

from parity import talnet

FAMILY = "transformer"


def spec(case, manifest):
    """(variant, fields) of a case from the reference's class, arguments and shapes."""
    if not manifest["reference"].get("cls", "").endswith("Net_mModal_mgpu.py:Transformer"):
        return None
    args = manifest["reference"]["args"]
    shapes = {name: shape for name, shape, _ in manifest["state_dict"]}
    fields = dict(
        n_mels=args["n_mels"],
        width=args["embedding_size"],
        depth=args["n_trans_layers"],
        mlp=shapes["layer_stack.0.pos_ffn.w_1.weight"][0],
    )
    return "transformer", fields


def outputs(out, inner, feats):
    """Inner outputs of the stacked layers, and the clip probability by every pooling function."""
    stack = inner["layers"]
    return {
        "ln_in": inner["norm_in"],
        "layer0": stack[0],
        "layer_last": stack[-1],
        **talnet.pooled(out),
    }

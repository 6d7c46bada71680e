"""Parity cases of TALNet and CNN + Transformer."""

from asjax.nn import pooling

FAMILY = "talnet"
SEQUENCES = {"TALNet": "crnn", "TransformerEncoder": "cnn_transformer"}


def spec(case, manifest):
    """(variant, fields) of a case from the reference's class and arguments."""
    path, _, cls = manifest["reference"].get("cls", "").rpartition(":")
    if not path.endswith("Net_mModal_mgpu.py") or cls not in SEQUENCES:
        return None
    args = manifest["reference"]["args"]
    fields = dict(
        n_mels=args["n_mels"],
        width=args["embedding_size"],
        convs=args["n_conv_layers"],
        pools=args["n_pool_layers"],
    )
    if cls == "TransformerEncoder":
        fields |= dict(passes=args["n_trans_layers"], positions=args["addpos"])
    return SEQUENCES[cls], fields


def outputs(out, inner, feats):
    """Feature maps as (B, C, T, F); the clip probability by every pooling function."""
    blocks = sorted(
        (k for k in inner if k[:5] == "block" and "/" not in k), key=lambda k: int(k[5:])
    )
    maps = {f"conv{i}": inner[k].transpose(0, 3, 1, 2) for i, k in enumerate(blocks)}
    first = inner.get("layer")
    return {
        **maps,
        "conv_last": maps[f"conv{len(blocks) - 1}"],
        "seq": out["frame_embedding"],
        **({} if first is None else {"seq_pass0": first}),
        **pooled(out),
    }


def pooled(out):
    """prob and prob_max ... from the outputs of a model with TAL attention."""
    names = dict(max="max", ave="mean", lin="linear_softmax", exp="exp_softmax")
    found = {f"prob_{k}": pooling.pool(v)(out["frame_logits"])[0] for k, v in names.items()}
    return {"prob": out["clipwise"], **found}

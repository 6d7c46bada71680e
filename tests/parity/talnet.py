"""Parity cases of TALNet and CNN + Transformer."""

from asjax.nn import pooling

FAMILY = "talnet"
SEQUENCES = {"TALNet": "crnn", "TransformerEncoder": "cnn_transformer"}
POOLINGS = dict(max="max", ave="mean", lin="linear_softmax", exp="exp_softmax", att="tal_attention")
_FIELDS = dict(
    n_mels="n_mels", embedding_size="width", n_conv_layers="convs", n_pool_layers="pools"
)


def spec(case, manifest):
    """(variant, fields) of a case from the reference's class and arguments."""
    path, _, cls = manifest["reference"].get("cls", "").rpartition(":")
    if not path.endswith("Net_mModal_mgpu.py") or cls not in SEQUENCES:
        return None
    names = _FIELDS
    if cls == "TransformerEncoder":
        names = names | dict(n_trans_layers="passes", addpos="positions")
    return SEQUENCES[cls], fields(manifest, names)


def fields(manifest, names):
    """Our fields, pooling included, from the arguments that the reference has."""
    args = manifest["reference"].get("args", {})
    found = {ours: args[theirs] for theirs, ours in names.items() if theirs in args}
    return {**found, **({"pooling": POOLINGS[args["pooling"]]} if "pooling" in args else {})}


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
    """prob by the model's pooling; prob_max etc. by the poolings without weights."""
    names = {k: v for k, v in POOLINGS.items() if k != "att"}  # it has weights
    found = {f"prob_{k}": pooling.pool(v)(out["frame_logits"])[0] for k, v in names.items()}
    return {"prob": out["clipwise"], **found}

"""Parity cases of the Conformer: torchaudio's class, without projection and head."""

FAMILY = "conformer"


def spec(case, manifest):
    """(variant, fields) of a case from the reference's arguments."""
    reference = manifest["reference"]
    if not reference.get("cls", "").endswith("models.Conformer"):
        return None
    args = reference["args"]
    fields = dict(
        width=args["input_dim"],
        n_mels=args["input_dim"],
        heads=args["num_heads"],
        mlp=args["ffn_dim"],
        depth=args["num_layers"],
        kernel=args["depthwise_conv_kernel_size"],
    )
    return "conformer_encoder", fields


def run(case, manifest, module, variables):
    """The encoder with the padding mask of the manifest; inner outputs are those of block 0."""
    import jax
    import jax.numpy as jnp
    import parity_table
    import rule

    given = manifest["input"]
    x = rule.array(given["name"], given["shape"], salt=manifest["salt"])
    lengths = jnp.full(len(x), x.shape[1]).at[-1].add(-manifest.get("lengths_last_short", 0))
    mask = jnp.arange(x.shape[1])[None] < lengths[:, None]
    out, state = jax.jit(lambda v, x: module.apply(v, x, mask=mask, capture_intermediates=True))(
        variables, x
    )
    inner = parity_table.captured(state["intermediates"])
    return {
        "out": out["frame_embedding"][:, ::7, ::8],
        "layer0": inner["layers"][0][:, ::7, ::8],
        **{k: inner[f"layers/{k}"][0][:, ::7, ::8] for k in ("ffn1", "conv", "attn")},
    }

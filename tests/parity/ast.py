"""Parity cases of AST, the authors' and Hugging Face's."""

FAMILY = "ast"


def spec(case, manifest):
    """(variant, fields) of a case by the reference's arguments; None if it is another family's."""
    cls = manifest["reference"].get("cls", "")
    given = manifest["reference"].get("args", {})
    if cls == "ASTForAudioClassification":
        return "base384_hf", dict(
            frames=given["max_length"],
            n_mels=given["num_mel_bins"],
            stride=(given["frequency_stride"], given["time_stride"]),
        )
    if cls.endswith(":ASTModel"):
        return given.get("model_size", "base384"), dict(
            frames=given.get("input_tdim", 1024),
            n_mels=given.get("input_fdim", 128),
            stride=(given.get("fstride", 10), given.get("tstride", 10)),
        )
    return None


def outputs(out, inner, feats):
    """The reference's names; patches in a row, frequency-major."""
    patches, blocks = inner["patches"], inner["encoder/blocks"]
    return {
        "patch_embed": patches.reshape(patches.shape[0], -1, patches.shape[-1]),
        "hidden0": inner["pos_drop"],
        "block0": blocks[0],
        "block_last": blocks[-1],
        "hidden_last": blocks[-1],
        "norm_cls_dist": inner["norm"][:, :2],
    }

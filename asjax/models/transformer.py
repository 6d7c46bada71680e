"""The Transformer of AudioTagging Done Right: post-norm layers on single frames, then pooling.

feats [B, T, F] -> linear, norm -> layers -> maximum over 4 frames -> classifier and attention per
frame -> clip. The authors' class has no positional encoding and 2d-wide feed-forwards; no depth of
it has the 28.5 M parameters printed. 768 wide throughout has 28,473,600 without the classifier at
128 mels: that is the default here. `EncoderLayer` serves the CNN + Transformer too (talnet.py).
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from asjax.nn import layers, pooling, vit

VARIANTS = {
    "transformer": dict(depth=8, width=768, mlp=768),
    "transformer_64x400": dict(depth=8, width=512, mlp=1024, n_mels=64),
    # ours: for a few thousand clips
    "transformer_mini": dict(depth=3, width=96, mlp=192, n_mels=64),
}
FRONTENDS = {
    "transformer": dict(name="kaldi_fbank128"),
    "transformer_64x400": dict(name="atdr_logmel64"),
    "transformer_mini": dict(name="atdr_logmel64"),
}


def encoder_rules(theirs: str, ours: str, group: int) -> tuple:
    """Port rules of an `EncoderLayer`: pattern of its torch module, our path, and the number of the
    first group that is free (one more than `theirs` has)."""
    return (
        (theirs + r"\.slf_attn\.w_(q|k|v)s", rf"{ours}/w_\{group}", "linear"),
        (theirs + r"\.slf_attn\.fc", ours + "/proj", "linear"),
        (theirs + r"\.slf_attn\.layer_norm", ours + "/norm1", "norm"),
        (theirs + r"\.pos_ffn\.w_(1|2)", rf"{ours}/fc\{group}", "linear"),
        (theirs + r"\.pos_ffn\.layer_norm", ours + "/norm2", "norm"),
    )


TORCH = (
    (r"linear_in", "linear_in", "linear"),
    (r"layer_norm_in", "norm_in", "norm"),
    *encoder_rules(r"layer_stack\.(\d+)", r"layers[\1]", 2),
    (r"(fc_prob|fc_att)", r"head/\1", "linear"),
)
TORCH_SKIP = ()

xavier = nn.initializers.xavier_uniform()


def model(variant: str, **over) -> Transformer:
    """The linen module of a variant; `over` replaces fields."""
    return layers.make(Transformer, VARIANTS, variant, over)


class EncoderLayer(nn.Module):
    """y = norm(x + attention(x)); norm(y + fc2(relu(fc1(y)))): [B, T, D] -> same, for `nn.scan`.

    `dropout` acts on attention weights and on both branches.
    """

    mlp: int
    heads: int = 8
    dropout: float = 0.0
    backend: str = "auto"
    dtype: str = "float32"
    train: bool = False

    @nn.compact
    def __call__(self, x, mask=None):
        b, t, width = x.shape
        if width % self.heads:
            raise layers.AsjaxError(f"width {width} must be a multiple of heads={self.heads}")
        drop = nn.Dropout(self.dropout, deterministic=not self.train)
        dense = lambda n, name: layers.Dense(n, dtype=self.dtype, kernel_init=xavier, name=name)  # noqa: E731
        norm = lambda name, y: layers.layer_norm(name, self.dtype, 1e-5)(y)  # noqa: E731
        heads = lambda y: y.reshape(b, t, self.heads, width // self.heads)  # noqa: E731
        q, k, v = (heads(dense(width, f"w_{name}")(x)) for name in "qkv")
        hidden = None if mask is None else mask[:, None, None, :]
        if self.train and self.dropout:
            y = self._attend_dropping(q, k, v, hidden, drop)
        else:
            y = vit.attend(q, k, v, mask=hidden, backend=self.backend)
        x = norm("norm1", x + drop(dense(width, "proj")(y.reshape(b, t, width))))
        y = dense(width, "fc2")(nn.relu(dense(self.mlp, "fc1")(x)))
        return norm("norm2", x + drop(y)), None

    def _attend_dropping(self, q, k, v, mask, drop):
        scores = jnp.einsum("bqnd,bknd->bnqk", q, k) * q.shape[-1] ** -0.5
        if mask is not None:
            scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
        return jnp.einsum("bnqk,bknd->bqnd", drop(nn.softmax(scores)), v)


class Transformer(nn.Module):
    """feats [B, T, n_mels] -> logits [B, C], frame_logits [B, T // 4, C] and frame_embedding.

    `mask` [B, T] marks the frames of each clip (padding at the end then has no influence). Fewer
    than 4 frames are filled up with zeros.
    """

    depth: int
    width: int
    mlp: int
    heads: int = 8
    num_classes: int = 527
    n_mels: int = 128
    pooling: str = "tal_attention"
    dropout: float = 0.0
    head_bias: float = 0.0
    scan_layers: bool | None = None
    remat: bool = False
    attention: str = "auto"
    dtype: str = "float32"

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, for shape inference."""
        return (8, self.n_mels)

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None, mask=None):
        layers.check_feats(feats, self.n_mels, "Transformer")
        x = layers.pad_frames(feats if augment is None else augment(feats), 4)
        if mask is not None:
            mask = layers.pad_frames(mask > 0, 4)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        x = layers.Dense(self.width, dtype=self.dtype, kernel_init=xavier, name="linear_in")(x)
        x = drop(layers.layer_norm("norm_in", self.dtype, 1e-5)(x))
        options = (self.mlp, self.heads, self.dropout, self.attention, self.dtype, train)
        x, _ = vit.stacked(EncoderLayer, self, nn.broadcast, train)(*options, name="layers")(
            x, mask
        )
        frames = layers.max_pool(drop(x)[:, :, None], (4, 1))[:, :, 0].astype(jnp.float32)
        return frame_head(self, frames, None if mask is None else mask[:, 3::4])


def frame_head(module, frames, mask) -> dict:
    """Outputs of a frame classifier with pooling: frames [B, T', D], mask [B, T'] or None.

    `module` gives num_classes, pooling and head_bias. The parameters are head/fc_prob and, where
    the pooling has attention, head/fc_att.
    """
    pool = pooling.FramePool(
        module.num_classes,
        module.pooling,
        "fc_prob",
        "fc_att",
        kernel_init=xavier,
        bias_init=nn.initializers.constant(module.head_bias),
        name="head",
    )
    pooled = pool(frames, mask)
    weight = jnp.ones(frames.shape[:2]) if mask is None else mask.astype(jnp.float32)
    total = jnp.maximum(weight.sum(1), 1)[:, None]
    return {
        "logits": pooling.logit(pooled.prob),
        "embedding": jnp.einsum("btd,bt->bd", frames, weight) / total,
        "frame_embedding": frames,
        "frame_logits": pooled.frame_logits,
    }

"""The Transformer of AudioTagging Done Right: post-norm layers on single frames, then pooling.

feats [B, T, F] -> linear, norm -> layers -> maximum over 4 frames -> classifier and attention per
frame -> clip. The authors' class has no positional encoding, and its feed-forward layers have twice
the width. With this class no depth gives the published 28.5 M parameters. Our default has 768
everywhere: 28,473,600 parameters without the classifier at 128 mels. The CNN + Transformer shares
its layer and head (nn/postnorm.py).
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from asjax.nn import layers, postnorm, vit

VARIANTS = {
    "transformer": dict(depth=8, width=768, mlp=768),
    "transformer_64x400": dict(depth=8, width=512, mlp=1024, n_mels=64),
    # our own variant, for a few thousand clips
    "transformer_mini": dict(depth=3, width=96, mlp=192, n_mels=64),
}
FRONTENDS = {
    "transformer": dict(name="kaldi_fbank128"),
    "transformer_64x400": dict(name="atdr_logmel64"),
    "transformer_mini": dict(name="atdr_logmel64"),
}


TORCH = (
    (r"linear_in", "linear_in", "linear"),
    (r"layer_norm_in", "norm_in", "norm"),
    *postnorm.encoder_rules(r"layer_stack\.(\d+)", r"layers[\1]", 2),
    (r"(fc_prob|fc_att)", r"head/\1", "linear"),
)
TORCH_SKIP = ()


def model(variant: str, **over) -> Transformer:
    """The linen module of a variant; `over` replaces fields."""
    return layers.make(Transformer, VARIANTS, variant, over)


class Transformer(nn.Module):
    """feats [B, T, n_mels] -> logits [B, C], frame_logits [B, T // 4, C] and frame_embedding.

    `mask` [B, T] marks the frames of each clip; padding at the end then has no influence. Input
    with fewer than 4 frames is zero-padded.
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
        x = layers.Dense(
            self.width, dtype=self.dtype, kernel_init=postnorm.xavier, name="linear_in"
        )(x)
        x = drop(layers.layer_norm("norm_in", self.dtype, 1e-5)(x))
        options = (self.mlp, self.heads, self.dropout, self.attention, self.dtype, train)
        x, _ = vit.stacked(postnorm.EncoderLayer, self, nn.broadcast, train, x)(
            *options, name="layers"
        )(x, mask)
        frames = layers.max_pool(drop(x)[:, :, None], (4, 1))[:, :, 0].astype(jnp.float32)
        return postnorm.frame_head(self, frames, None if mask is None else mask[:, 3::4])

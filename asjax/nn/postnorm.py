"""The post-norm encoder layer and the frame classifier of AudioTagging Done Right."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from asjax.nn import attention, layers, pooling


def encoder_rules(theirs: str, ours: str, group: int) -> tuple:
    """Port rules of an `EncoderLayer`.

    Args: `theirs` is the pattern of the torch module, `ours` our path, `group` the number of groups
    in `theirs` plus one.
    """
    return (
        (theirs + r"\.slf_attn\.w_(q|k|v)s", rf"{ours}/w_\{group}", "linear"),
        (theirs + r"\.slf_attn\.fc", ours + "/proj", "linear"),
        (theirs + r"\.slf_attn\.layer_norm", ours + "/norm1", "norm"),
        (theirs + r"\.pos_ffn\.w_(1|2)", rf"{ours}/fc\{group}", "linear"),
        (theirs + r"\.pos_ffn\.layer_norm", ours + "/norm2", "norm"),
    )


xavier = nn.initializers.xavier_uniform()


class EncoderLayer(nn.Module):
    """y = norm(x + attention(x)); norm(y + fc2(relu(fc1(y)))): [B, T, D] -> same, for `nn.scan`.

    `dropout` applies to the attention weights and to both branches.
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
            y = attention.attend(q, k, v, mask=hidden, backend=self.backend)
        x = norm("norm1", x + drop(dense(width, "proj")(y.reshape(b, t, width))))
        y = dense(width, "fc2")(nn.relu(dense(self.mlp, "fc1")(x)))
        return norm("norm2", x + drop(y)), None

    def _attend_dropping(self, q, k, v, mask, drop):
        f32 = dict(preferred_element_type=jnp.float32)
        scores = jnp.einsum("bqnd,bknd->bnqk", q, k, **f32) * q.shape[-1] ** -0.5
        if mask is not None:
            scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
        weights = drop(nn.softmax(scores)).astype(v.dtype)
        return jnp.einsum("bnqk,bknd->bqnd", weights, v)


def frame_head(module, frames, mask) -> dict:
    """Outputs of a frame classifier with pooling: frames [B, T', D], mask [B, T'] or None.

    num_classes, pooling and head_bias are fields of `module`. The parameters are head/fc_prob and,
    if the pooling has attention, head/fc_att.
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

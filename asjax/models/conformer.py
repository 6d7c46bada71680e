"""The Conformer (Gulati et al. 2020) of AudioTagging Done Right, as far as it is known.

The authors published no code for it. They give 88.1 M parameters, 12 blocks, width 768, 12 heads.
torchaudio's Conformer with feed-forward width 1024, kernel 15, a linear input and a linear head has
88,114,703 parameters, the only simple setting that rounds to this number. Subsampling and pooling
are not known. We use no subsampling, and the mean over frames of the probabilities
(`pooling="tal_attention"` adds 0.4 M). Attention has no positions, as in torchaudio's class.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from asjax.nn import frames, layers, ops, pooling, vit

VARIANTS = {
    "conformer": dict(depth=12, width=768, heads=12, mlp=1024, kernel=15),
    # our own variant, for a few thousand clips
    "conformer_mini": dict(depth=3, width=96, heads=4, mlp=192, kernel=15),
    # only torchaudio's class: feats are [B, T, 768], no head
    "conformer_encoder": dict(
        depth=12,
        width=768,
        heads=12,
        mlp=1024,
        kernel=15,
        n_mels=768,
        num_classes=0,
        mask_convolution=False,
    ),
}
FRONTENDS = {
    "conformer": dict(name="atdr_logmel64"),
    "conformer_mini": dict(name="atdr_logmel64"),
    "conformer_encoder": dict(name="atdr_logmel64"),
}

_swap = (lambda x: np.swapaxes(x, -1, -2),) * 2


def _pointwise(key, path) -> tuple:
    """Port rules for a torch convolution of kernel size 1, (O, I, 1), as our linear layer."""
    kernel = (lambda x: np.squeeze(x, 2).T, lambda x: x.T[:, :, None])
    return (
        (key + r"\.weight", path + "/kernel", kernel),
        (key + r"\.bias", path + "/bias", "param"),
    )


_L = r"conformer_layers\.(\d+)\."
TORCH = (
    (r"linear_in", "linear_in", "linear"),
    (_L + r"ffn([12])\.sequential\.0", r"layers[\1]/ffn\2/norm", "norm"),
    (_L + r"ffn([12])\.sequential\.1", r"layers[\1]/ffn\2/up", "linear"),
    (_L + r"ffn([12])\.sequential\.4", r"layers[\1]/ffn\2/down", "linear"),
    (_L + r"self_attn_layer_norm", r"layers[\1]/attn_norm", "norm"),
    (_L + r"self_attn\.in_proj_weight", r"layers[\1]/attn/qkv/kernel", _swap),
    (_L + r"self_attn\.in_proj_bias", r"layers[\1]/attn/qkv/bias", "param"),
    (_L + r"self_attn\.out_proj", r"layers[\1]/attn/proj", "linear"),
    (_L + r"conv_module\.layer_norm", r"layers[\1]/conv/norm", "norm"),
    *_pointwise(_L + r"conv_module\.sequential\.0", r"layers[\1]/conv/gate"),
    (_L + r"conv_module\.sequential\.2", r"layers[\1]/conv/depthwise", "conv"),
    (_L + r"conv_module\.sequential\.3", r"layers[\1]/conv/bn", "norm"),
    *_pointwise(_L + r"conv_module\.sequential\.5", r"layers[\1]/conv/out"),
    (_L + r"final_layer_norm", r"layers[\1]/norm", "norm"),
    (r"(fc_prob|fc_att)", r"head/\1", "linear"),
    *frames.TORCH,
)
torch_fields = frames.torch_fields
TORCH_SKIP = ()


def model(variant: str, **over) -> Conformer:
    """The linen module of a variant; `over` replaces fields."""
    module = layers.make(Conformer, VARIANTS, variant, over)
    return frames.checked(module, "Conformer", off=True)


def _dense(width, dtype, name):
    return layers.Dense(width, dtype=dtype, kernel_init=vit.torch_uniform, name=name)


class FeedForward(nn.Module):
    """Norm, up, SiLU, dropout, down, dropout; returns (branch, residual stream)."""

    mlp: int
    dropout: float
    train: bool
    dtype: str

    @nn.compact
    def __call__(self, x):
        drop = nn.Dropout(self.dropout, deterministic=not self.train)
        x, y = layers.layer_norm("norm", self.dtype, 1e-5, fork=True)(x)
        y = drop(nn.silu(_dense(self.mlp, self.dtype, "up")(y)))
        return drop(_dense(x.shape[-1], self.dtype, "down")(y)), x


class DepthwiseOverTime(nn.Module):
    """Odd depthwise convolution with zero padding: [B, T, D] -> [B, T, D]."""

    size: int
    dtype: str

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", vit.torch_uniform, (self.size, 1, x.shape[-1]))
        y = ops.depthwise(
            x.astype(self.dtype)[:, :, None],
            kernel.astype(self.dtype)[:, None],
            (1, 1),
            ((self.size // 2,) * 2, (0, 0)),
        )
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return y[:, :, 0] + layers.expand(bias.astype(self.dtype), 3)


class ConvModule(nn.Module):
    """Norm, pointwise to 2D, GLU, depthwise over time, batch norm, SiLU, pointwise, dropout.

    Returns (branch, residual stream).
    """

    kernel: int
    dropout: float
    train: bool
    dtype: str

    @nn.compact
    def __call__(self, x, mask):
        width = x.shape[-1]
        x, y = layers.layer_norm("norm", self.dtype, 1e-5, fork=True)(x)
        value, gate = jnp.split(_dense(2 * width, self.dtype, "gate")(y), 2, -1)
        y = value * nn.sigmoid(gate)
        if mask is not None:
            y = jnp.where(mask[..., None], y, 0)  # as zero padding at the clip's end
        y = DepthwiseOverTime(self.kernel, self.dtype, name="depthwise")(y)
        y = nn.silu(layers.BatchNorm(dtype=self.dtype, name="bn")(y, self.train))
        y = _dense(width, self.dtype, "out")(y)
        return nn.Dropout(self.dropout, deterministic=not self.train)(y), x


class Layer(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward, norm; for `nn.scan`."""

    heads: int
    mlp: int
    kernel: int
    dropout: float
    mask_convolution: bool
    backend: str
    train: bool
    dtype: str

    @nn.compact
    def __call__(self, x, mask):
        feed = functools.partial(FeedForward, self.mlp, self.dropout, self.train, self.dtype)
        hidden = None if mask is None else mask[:, None, None, :]
        attention = vit.Attention(
            self.heads,
            backend=self.backend,
            dtype=self.dtype,
            kernel_init=vit.torch_uniform,
            name="attn",
        )
        convolution = ConvModule(self.kernel, self.dropout, self.train, self.dtype, name="conv")
        y, x = feed(name="ffn1")(x)
        x = x + 0.5 * y
        x, y = layers.layer_norm("attn_norm", self.dtype, 1e-5, fork=True)(x)
        y = attention(y, mask=hidden)
        x = x + nn.Dropout(self.dropout, deterministic=not self.train)(y)
        y, x = convolution(x, mask if self.mask_convolution else None)
        x = x + y
        y, x = feed(name="ffn2")(x)
        x = x + 0.5 * y
        return layers.layer_norm("norm", self.dtype, 1e-5)(x), None


class Conformer(nn.Module):
    """feats [B, T, n_mels] -> logits [B, C], frame_logits [B, T, C], one frame per input frame.

    `mask` [B, T] marks the frames of each clip. Padding at the end then has no influence, so a
    padded batch gives the same outputs as single clips. With `mask_convolution=False`, as in
    torchaudio, convolutions do read the padding. With num_classes=0 there is no head and no logits.
    With n_mels == width there is no input projection. With `frames` a detector replaces the
    pooling: see `frames.Detector` for its outputs and fields.
    """

    depth: int
    width: int
    heads: int
    mlp: int
    kernel: int
    num_classes: int = 527
    n_mels: int = 64
    pooling: str = "mean"
    mask_convolution: bool = True
    dropout: float = 0.0
    head_bias: float = 0.0
    scan_layers: bool | None = None
    remat: bool = False
    attention: str = "auto"
    frames: int | None = None
    weak_classes: int | None = None
    sequence: str | None = None
    sequence_width: int = 2048
    sequence_depth: int = 2
    head: str = "linear"
    dtype: str = "float32"

    input_frames = None  # any

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, for shape inference."""
        return (8, self.n_mels)

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None, mask=None):
        layers.check_feats(feats, self.n_mels, "Conformer")
        x = feats if augment is None else augment(feats)
        if self.n_mels != self.width:
            x = _dense(self.width, self.dtype, "linear_in")(x)
        mask = None if mask is None else mask > 0
        options = (
            self.heads,
            self.mlp,
            self.kernel,
            self.dropout,
            self.mask_convolution,
            self.attention,
            train,
            self.dtype,
        )
        x = x.astype(self.dtype)
        x, _ = vit.stacked(Layer, self, nn.broadcast, train, x)(*options, name="layers")(x, mask)
        x = x.astype(jnp.float32)
        if self.frames:
            return frames.detect(self, x, mask=mask, train=train)
        weight = jnp.ones(x.shape[:2]) if mask is None else mask.astype(jnp.float32)
        mean = jnp.einsum("btd,bt->bd", x, weight) / jnp.maximum(weight.sum(1), 1)[:, None]
        out = {"embedding": mean, "frame_embedding": x}
        if not self.num_classes:
            return out
        pool = pooling.FramePool(
            self.num_classes,
            self.pooling,
            "fc_prob",
            "fc_att",
            kernel_init=nn.initializers.xavier_uniform(),
            bias_init=nn.initializers.constant(self.head_bias),
            name="head",
        )
        pooled = pool(x, mask)
        return {
            **out,
            "logits": pooling.logit(pooled.prob),
            "frame_logits": pooled.frame_logits,
        }

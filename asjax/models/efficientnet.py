"""EfficientNet with attention pooling (PSLA: Gong, Chung & Glass 2021; Tan & Le 2019).

feats [B, T, 128] -> 3x3 convolution of stride 2 -> MBConv blocks (expand, depthwise, squeeze and
excite, project) -> 1x1 convolution -> mean over the four rows of frequency -> attention pooling
over frames, or the detector of nn/frames.py. Inside, maps are [B, F, T, C], as in the authors'
code. The padding is that of a square image of the nominal size for every input
(efficientnet_pytorch's static padding).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from asjax.config import AsjaxError
from asjax.nn import frames, layers, pooling
from asjax.nn.vit import torch_uniform

# width and depth multipliers, nominal image size
VARIANTS = {
    "effnet_b0": dict(width=1.0, depth=1.0, image=224),
    "effnet_b1": dict(width=1.0, depth=1.1, image=240),
    "effnet_b2": dict(width=1.1, depth=1.2, image=260),
}

_PSLA = dict(name="kaldi_fbank128", mean=-4.6476, std=4.5699, divide=1, frames=1056)
FRONTENDS = {variant: _PSLA for variant in VARIANTS}

# repeats, kernel, stride, expansion, width: EfficientNet-B0
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

# (pattern of the torch module or key, our path, kind): see asjax/weights/port.py
TORCH = (
    (r"effnet\._conv_stem", "stem", "conv"),
    (r"effnet\._bn0", "stem_bn", "norm"),
    (r"effnet\._conv_head", "last", "conv"),
    (r"effnet\._bn1", "last_bn", "norm"),
    (
        r"effnet\._blocks\.(\d+)\._(expand_conv|depthwise_conv|project_conv)",
        r"block\1/\2",
        "conv",
    ),
    (r"effnet\._blocks\.(\d+)\._bn([012])", r"block\1/bn\2", "norm"),
    *pooling.torch_pointwise(r"effnet\._blocks\.(\d+)\._(se_reduce|se_expand)", r"block\1/\2"),
    *pooling.torch_pointwise(r"attention\.att", "attention/att"),
    *pooling.torch_pointwise(r"attention\.cla", "attention/cla"),
    *pooling.torch_pointwise(r"attention\.att\.(\d+)", r"attention/att_heads[\1]"),
    *pooling.torch_pointwise(r"attention\.cla\.(\d+)", r"attention/cla_heads[\1]"),
    (r"attention\.head_weight", "attention/head_weight", "param"),
    *frames.TORCH,
)
TORCH_SKIP = (r"effnet\._fc\..*",)  # the ImageNet classifier that some checkpoints still have


def model(variant: str, **over) -> EfficientNet:
    """The linen module of a variant; `over` replaces fields (num_classes=200, heads=1, ...)."""
    heads = over.get("heads", 4)
    if not isinstance(heads, int) or heads < 0:
        raise AsjaxError(
            f"EfficientNet heads must be 0 (mean), 1 (attention) or more, got {heads!r}"
        )
    module = layers.make(EfficientNet, VARIANTS, variant, over)
    return frames.checked(module, "EfficientNet", off=True)


def torch_fields(weights) -> dict:
    """Fields that a checkpoint's names imply: the number of attention heads, or a detector's."""
    heads = sum(k.startswith("attention.att.") and k.endswith(".weight") for k in weights)
    return frames.torch_fields(weights) or dict(heads=heads)


def rename_from_imagenet(own: dict, weights: dict) -> dict:
    """State dict of a new model that starts from ImageNet, for `port.from_torch`.

        own = port.to_torch("efficientnet", variables)  # a new model
        start = efficientnet.rename_from_imagenet(own, weights)
        module, variables = port.from_torch("efficientnet", "effnet_b2", start)

    `weights` are efficientnet_pytorch's (`_conv_stem.weight`, ...). As in the authors' code, the
    stem convolution keeps its initial weights (colours are not summed), but its batch norm is
    taken. The classifier is not used.
    """
    dropped = ("_fc.", "_conv_stem.")
    taken = {f"effnet.{k}": v for k, v in weights.items() if not k.startswith(dropped)}
    return {**own, **taken}


# ------------------------------------------------------------------------------------------- blocks


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis of `size` that give ceil(size / stride) outputs."""
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


def _norm(name: str, dtype: str) -> layers.BatchNorm:
    return layers.BatchNorm(momentum=0.99, epsilon=1e-3, dtype=dtype, name=name)


def _pointwise(width: int, dtype: str, name: str) -> layers.Conv:
    """1x1 convolution without bias."""
    return layers.Conv(width, 1, dtype, torch_uniform, name=name)


class MBConv(nn.Module):
    """[B, F, T, C] -> [B, F', T', width]; `pad` is the zeros (before, after) on both axes."""

    kernel: int
    stride: int
    expansion: int
    width: int
    pad: tuple[int, int]
    drop_path: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train: bool):
        y, wide = x, x.shape[-1] * self.expansion
        if self.expansion != 1:
            y = _pointwise(wide, self.dtype, "expand_conv")(y)
            y = nn.silu(_norm("bn0", self.dtype)(y, train))
        y = layers.DepthwiseConv(
            self.kernel,
            self.dtype,
            torch_uniform,
            strides=(self.stride, self.stride),
            pads=(self.pad, self.pad),
            use_bias=False,
            name="depthwise_conv",
        )(y)
        y = nn.silu(_norm("bn1", self.dtype)(y, train))
        y = self._excite(y, max(1, x.shape[-1] // 4))
        y = _norm("bn2", self.dtype)(_pointwise(self.width, self.dtype, "project_conv")(y), train)
        if self.stride == 1 and x.shape[-1] == self.width:
            y = x + layers.DropPath(self.drop_path)(y, train)
        return y

    def _excite(self, y, narrow):
        s = y.astype(jnp.float32).mean((1, 2), keepdims=True)
        s = nn.silu(_linear(narrow, s.shape[-1], "se_reduce")(s))
        s = nn.sigmoid(_linear(y.shape[-1], narrow, "se_expand")(s))
        return y * s.astype(y.dtype)


def _linear(width: int, fan_in: int, name: str) -> nn.Dense:
    """A linear layer with torch's initial weights."""
    bound = fan_in**-0.5
    start = lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)  # noqa: E731
    return layers.Dense(width, kernel_init=torch_uniform, bias_init=start, name=name)


# -------------------------------------------------------------------------------------------- model


class EfficientNet(nn.Module):
    """PSLA's EfficientNet on normalised log-mel features.

    Args of the call:
      feats: [B, T, n_mels]. Input that is too short for one output frame is padded at the end with
        zeros, the mean of normalised features.
      augment: a function [B, T, F] -> [B, T, F], applied first; there is no input norm.
      mask: [B, T], the frames of each clip; only with a detector.

    The head averages the lowest four rows of frequency; 128 bins have exactly four. As in the
    authors' code, higher rows are ignored.

    Returns:
      logits: float32 [B, num_classes], of `prob` clipped to [1e-7, 1 - 1e-7].
      prob: [B, num_classes], the authors' output; it may exceed 1, because head weights are free.
      embedding: [B, D], the mean of the frames.
      frame_embedding: [B, T', D]; 33 frames for 10 s.
      frame_logits: [B, T', num_classes], see asjax/nn/pooling.py.

    Attributes:
      width, depth: multipliers of channels and repeats.
      image: nominal size for which the padding is computed.
      heads: attention heads; 1 is one attention without head weight, 0 the mean of the frames.
      drop_path_rate: stochastic depth, linear from 0 to almost this rate.
      frames, weak_classes, sequence ... head: with `frames` a detector replaces the attention, see
        `frames.Detector`.
    """

    width: float
    depth: float
    image: int
    heads: int = 4
    num_classes: int = 527
    n_mels: int = 128
    drop_path_rate: float = 0.2
    frames: int | None = None
    weak_classes: int | None = None
    sequence: str | None = None
    sequence_width: int = 2048
    sequence_depth: int = 2
    head: str = "linear"
    remat: bool = False
    dtype: str = "float32"

    input_frames = None  # any

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, for shape inference."""
        return (self.min_frames, self.n_mels)

    @property
    def min_frames(self) -> int:
        """Smallest number of frames (or bins) that gives one output."""
        return next(n for n in range(1, 1000) if self._left(n) > 0)

    def _left(self, size: int) -> int:
        """Frames (or rows) of the last map for an input of `size`."""
        stem = (3, 2, same_padding(self.image, 3, 2))
        for kernel, stride, pad in [stem, *((b[0], b[1], b[4]) for b in self._blocks())]:
            size = max(0, size + sum(pad) - kernel + stride) // stride
        return size

    def _channels(self, width: int) -> int:
        return layers.divisible(width * self.width)

    def _blocks(self):
        """Fields of every block: kernel, stride, expansion, width, pad."""
        image = -(-self.image // 2)
        for repeats, kernel, stride, expansion, width in STAGES:
            for i in range(-int(-self.depth * repeats // 1)):
                step = stride if i == 0 else 1
                pad = same_padding(image, kernel, step)
                yield kernel, step, expansion, self._channels(width), pad
                image = -(-image // step)

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None, mask=None):
        layers.check_feats(feats, self.n_mels, "EfficientNet")
        frames.check_mask(mask, self, "EfficientNet")
        if self.n_mels < self.min_frames:
            raise AsjaxError(
                f"EfficientNet n_mels must be at least {self.min_frames}, got {self.n_mels}"
            )
        if augment is not None:
            feats = augment(feats)
        x = layers.pad_frames(feats, self.min_frames).astype(self.dtype)
        x = x.swapaxes(1, 2)[..., None]  # [B, F, T, 1]
        x = nn.Conv(
            self._channels(32),
            (3, 3),
            strides=2,
            padding=(same_padding(self.image, 3, 2),) * 2,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=torch_uniform,
            name="stem",
        )(x)
        x = nn.silu(_norm("stem_bn", self.dtype)(x, train))
        blocks = list(self._blocks())
        for i, fields in enumerate(blocks):
            rate = self.drop_path_rate * i / len(blocks)
            block = layers.remat(MBConv, self)
            x = block(*fields, drop_path=rate, dtype=self.dtype, name=f"block{i}")(x, train)
        x = _pointwise(self._channels(1280), self.dtype, "last")(x)
        x = nn.silu(_norm("last_bn", self.dtype)(x, train)).astype(jnp.float32)
        tokens = x[:, :4].mean(1)  # [B, T', D]
        if self.frames:
            return frames.detect(self, tokens, mask=mask, train=train)
        prob, frame_logits, _ = self._pool()(tokens)
        return {
            "logits": pooling.logit(prob),
            "prob": prob,
            "embedding": tokens.mean(1),
            "frame_embedding": tokens,
            "frame_logits": frame_logits,
        }

    def _pool(self):
        if self.heads > 1:
            return pooling.MultiHeadPool(self.num_classes, self.heads, name="attention")
        kind = ("psla_mean", "psla_attention")[self.heads]
        return pooling.FramePool(self.num_classes, kind, name="attention")

"""ResNets with attention pooling, of AudioTagging Done Right and its forerunner AudioSetDoneRight.

resnet50: torchvision's v1.5 (the 3x3 has the stride) on maps [B, F, T, C], mean over frequency,
  PSLA attention over the frames.
resnet50_scrambled: the published code on 64 x 400. It reshapes the map (2048, 2, 13) to
  (832, 4, 16), which mixes channels, frequency and time. We have it only for parity.
resnet34_asdr, resnet50_asdr: stem with stride 1, maps [B, T, F, C], ASDR attention. The four
  remaining bins of 64 mels are averaged.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from asjax.nn import layers, pooling, vit

_34, _50 = dict(depths=(3, 4, 6, 3), bottleneck=False), dict(depths=(3, 4, 6, 3), bottleneck=True)
_ASDR = dict(n_mels=64, stem_stride=1, time_first=True, pooling="asdr_attention")
VARIANTS = {
    "resnet50": _50,
    "resnet50_64x400": dict(_50, n_mels=64),
    "resnet50_scrambled": dict(_50, n_mels=64, scrambled=True),
    "resnet34_asdr": dict(_34, **_ASDR),
    "resnet50_asdr": dict(_50, **_ASDR),
    # our own variant, for a few hundred clips
    "resnet_mini": dict(depths=(1, 1, 1, 1), bottleneck=False, width=16, n_mels=64),
}
FRONTENDS = {
    name: dict(name="atdr_logmel64" if fields.get("n_mels") == 64 else "kaldi_fbank128")
    for name, fields in VARIANTS.items()
}

# torch's `model.layer1.0.downsample.1` and the forerunner's `layer1.0.downsample.1`
_RULES = (
    (r"conv1", "stem", "conv"),
    (r"bn1", "stem_bn", "norm"),
    (r"layer(\d)\.(\d+)\.conv(\d)", r"layer\1_block\2/conv\3", "conv"),
    (r"layer(\d)\.(\d+)\.bn(\d)", r"layer\1_block\2/bn\3", "norm"),
    (r"layer(\d)\.(\d+)\.downsample\.0", r"layer\1_block\2/shortcut", "conv"),
    (r"layer(\d)\.(\d+)\.downsample\.1", r"layer\1_block\2/shortcut_bn", "norm"),
)
TORCH = (
    *((r"model\." + pattern, path, kind) for pattern, path, kind in _RULES),
    *pooling.torch_pointwise(r"attention\.(att|cla)", r"head/\1"),
)
TORCH_SKIP = ()


def from_other_names(weights: dict) -> dict:
    """Rename the forerunner's weights: they have no `model.`, and linear `att` and `fc`."""
    if any(key.startswith("model.") for key in weights) or "fc.weight" not in weights:
        return weights
    names = {"att": "attention.att", "fc": "attention.cla"}
    out = {}
    for key, value in weights.items():
        owner, _, leaf = key.rpartition(".")
        if owner in names:
            value = np.asarray(value)[..., None, None] if leaf == "weight" else value
            out[f"{names[owner]}.{leaf}"] = value
        else:
            out[f"model.{key}"] = value
    return out


def rename_from_imagenet(own: dict, weights: dict) -> dict:
    """State dict of a new model that starts from torchvision's, for `port.from_torch`.

    `own` is `port.to_torch` of a new model. As in the authors' code, the stem convolution keeps its
    initial weights (colours are not summed). The classifier is not used.
    """
    dropped = ("fc.", "conv1.")
    return {**own, **{f"model.{k}": v for k, v in weights.items() if not k.startswith(dropped)}}


def model(variant: str, **over) -> ResNet:
    """The linen module of a variant; `over` replaces fields."""
    return layers.make(ResNet, VARIANTS, variant, over)


_he = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _conv(width: int, size: int, stride: int, dtype: str, name: str):
    """Convolution without bias; the padding preserves the size for stride 1."""
    if stride == 1:
        return layers.Conv(width, size, dtype, _he, name=name)
    pad = ((size // 2,) * 2,) * 2
    options = dict(padding=pad, use_bias=False, dtype=dtype, kernel_init=_he, name=name)
    return nn.Conv(width, (size, size), (stride, stride), **options)


class Block(nn.Module):
    """Basic block (3x3, 3x3) or bottleneck (1x1, 3x3, 1x1 to 4 x width), added to its input."""

    width: int
    stride: int
    bottleneck: bool
    dtype: str

    @nn.compact
    def __call__(self, x, train: bool):
        norm = lambda name: layers.BatchNorm(dtype=self.dtype, name=name)  # noqa: E731
        if self.bottleneck:
            plan = ((self.width, 1, 1), (self.width, 3, self.stride), (4 * self.width, 1, 1))
        else:
            plan = ((self.width, 3, self.stride), (self.width, 3, 1))
        y = x
        for i, (width, size, stride) in enumerate(plan, 1):
            y = norm(f"bn{i}")(_conv(width, size, stride, self.dtype, f"conv{i}")(y), train)
            y = nn.relu(y) if i < len(plan) else y
        if self.stride > 1 or x.shape[-1] != y.shape[-1]:
            x = x[:, :: self.stride, :: self.stride]  # as a 1x1 convolution with this stride
            x = norm("shortcut_bn")(_conv(y.shape[-1], 1, 1, self.dtype, "shortcut")(x), train)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """feats [B, T, n_mels] -> logits [B, C], frame_logits [B, T', C] and frame_embedding.

    T' is T / 32, or T / 16 with `stem_stride=1`, rounded up. The published code needs 1024 or 400
    frames. Here any number works; `scrambled` pads or cuts to 400.

    Attributes:
      activation: for PSLA attention: sigmoid, relu, linear, or softmax over classes as in the
        authors' scripts.
    """

    depths: tuple[int, ...]
    bottleneck: bool
    width: int = 64
    num_classes: int = 527
    n_mels: int = 128
    stem_stride: int = 2
    time_first: bool = False
    scrambled: bool = False
    pooling: str = "psla_attention"
    activation: str = "sigmoid"
    head_bias: float = 0.0
    remat: bool = False
    dtype: str = "float32"

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, for shape inference."""
        return (400 if self.scrambled else 32, self.n_mels)

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None):
        layers.check_feats(feats, self.n_mels, "ResNet")
        x = feats if augment is None else augment(feats)
        if self.scrambled:
            x = layers.pad_frames(x, 400)[:, :400]
        x = (x if self.time_first else x.swapaxes(1, 2))[..., None]
        if self.stem_stride == 1:
            x = layers.Conv(self.width, 7, self.dtype, _he, name="stem")(x)
        else:
            x = _conv(self.width, 7, self.stem_stride, self.dtype, "stem")(x)
        x = nn.relu(layers.BatchNorm(dtype=self.dtype, name="stem_bn")(x, train))
        x = layers.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, depth in enumerate(self.depths):
            for i in range(depth):
                stride = 2 if stage and not i else 1
                fields = (self.width * 2**stage, stride, self.bottleneck, self.dtype)
                x = layers.remat(Block, self)(*fields, name=f"layer{stage + 1}_block{i}")(x, train)
        frames = self._frames(x.astype(jnp.float32))
        options = dict(bias_init=nn.initializers.constant(self.head_bias), name="head")
        if self.pooling == "psla_attention":
            options["options"] = (("activation", self.activation),)
        else:
            options["kernel_init"] = vit.torch_uniform
        prob, frame_logits, _ = pooling.FramePool(self.num_classes, self.pooling, **options)(frames)
        return {
            "logits": pooling.logit(prob),
            "prob": prob,
            "embedding": frames.mean(1),
            "frame_embedding": frames,
            "frame_logits": frame_logits,
        }

    def _frames(self, x: jax.Array) -> jax.Array:
        """Last map -> [B, T', D]."""
        if self.scrambled:  # (B, C, F, T) read as (B, C F T / 64, 4, 16), mean over the 4
            x = x.transpose(0, 3, 1, 2)
            return x.reshape(x.shape[0], -1, 4, self.n_mels // 4).mean(2).swapaxes(1, 2)
        return x.mean(2 if self.time_first else 1)

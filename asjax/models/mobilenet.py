"""EfficientAT's MobileNetV3-Large (Schmid, Koutini & Widmer 2023; Howard et al. 2019): mn10 etc.

feats [B, T, 128] -> 3x3 convolution of stride 2 -> 15 inverted bottlenecks (expand, depthwise,
squeeze and excite, project) -> 1x1 convolution -> mean over time and frequency -> linear,
hardswish, dropout, linear. Inside, maps are [B, F, T, C], as in the authors' code.

EfficientAT's ImageNet files (mn10_im.pt ...) have the same names and one input channel, see
`rename_from_imagenet`.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from asjax.config import AsjaxError, unknown
from asjax.nn import layers, mobile, pooling

VARIANTS = {
    "mn01": dict(width=0.1),
    "mn02": dict(width=0.2),
    "mn04": dict(width=0.4),
    "mn05": dict(width=0.5),
    "mn10": dict(width=1.0),
    "mn20": dict(width=2.0),
    "mn30": dict(width=3.0),
    "mn40": dict(width=4.0),
}

FRONTENDS = {variant: dict(name="mn_mel128") for variant in VARIANTS}

STRIDED = (1, 3, 6, 12)  # the blocks C1..C4, which halve both axes in the published models

HEADS = ("mlp", "convolution", "attention")

# (pattern of the torch module or key, our path, kind): see asjax/weights/port.py
TORCH = (
    *mobile.rules(),
    (r"classifier\.2", "fc", "linear"),
    (r"classifier\.5", "head", "linear"),
    (r"classifier\.0", "class_map", "conv"),
    (r"classifier\.1", "class_map_bn", "norm"),
    (r"classifier\.subspace_proj", "subspaces", "linear"),
    (
        r"classifier\.head_weight",
        "head_weight",
        (lambda x: x.reshape(-1), lambda x: x.reshape(1, -1, 1)),
    ),
)
TORCH_SKIP = ()


def model(variant: str, **over) -> MobileNet:
    """The linen module of a variant; `over` replaces fields (num_classes=200, strides=...)."""
    if over.get("head", "mlp") not in HEADS:
        raise unknown("MobileNet head", over["head"], HEADS)
    if "strides" in over:
        over["strides"] = tuple(tuple(s) if hasattr(s, "__len__") else s for s in over["strides"])
    return layers.make(MobileNet, VARIANTS, variant, over)


def torch_fields(weights) -> dict:
    """Fields that a checkpoint's names and shapes imply; they do not show the strides."""
    fields = {}
    if "classifier.head_weight" in weights:
        fields = dict(head="attention", heads=weights["classifier.head_weight"].shape[1])
    elif "classifier.0.weight" in weights:
        fields = dict(head="convolution")
    return fields


def torch_variants(weights) -> list[str]:
    """The variants whose last map has as many channels as the checkpoint's."""
    width = (*np.shape(weights.get("features.16.0.weight")), 0)[0]
    fit = [
        v for v, fields in VARIANTS.items() if 6 * layers.divisible(160 * fields["width"]) == width
    ]
    return fit or list(VARIANTS)


def rename_from_imagenet(own: dict, weights: dict) -> dict:
    """State dict of a new model that starts from ImageNet, for `port.from_torch`.

        own = port.to_torch("mobilenet", variables)  # a new model
        start = mobilenet.rename_from_imagenet(own, weights)
        module, variables = port.from_torch("mobilenet", "mn10", start)

    Classifier layers that do not fit (other classes, another head) keep their initial weights, as
    in the authors' code. If other layers do not fit, `from_torch` raises an error.
    """
    fits = lambda k, v: k in own and np.shape(own[k]) == np.shape(v)  # noqa: E731
    taken = {k: v for k, v in weights.items() if not k.startswith("classifier.") or fits(k, v)}
    return {**own, **taken}


# -------------------------------------------------------------------------------------------- model


class MobileNet(nn.Module):
    """An EfficientAT MobileNet on normalised log-mel features.

    Args of the call:
      feats: [B, T, n_mels] of any length, because every convolution is padded.
      augment: a function [B, T, F] -> [B, T, F], applied first; there is no input norm.

    Returns:
      logits: float32 [B, num_classes].
      embedding: [B, D], the mean over time and frequency of the last map; the authors' features.
      frame_embedding: [B, T', D], the mean over frequency; 32 frames for 10 s.
      frame_logits: [B, T', num_classes], for the heads "convolution" and "attention" only.

    Attributes:
      width: multiplier of the channels of every layer (0.4 in mn04).
      strides: of the four blocks that halve time and frequency, as in the authors' code, or 15
        pairs (frequency, time), one per block.
      reduced_tail: the last blocks have half the channels.
      head: "mlp" (published mn*_as), "convolution" (mn10_as_fc*: per-frame class maps, batch norm,
        mean) or "attention" (PSLA's over frames with `heads` heads and linear class values).
    """

    width: float = 1.0
    num_classes: int = 527
    n_mels: int = 128
    strides: tuple = (2, 2, 2, 2)
    reduced_tail: bool = False
    head: str = "mlp"
    heads: int = 4
    dropout: float = 0.2
    remat: bool = False
    dtype: str = "float32"

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, for shape inference."""
        return (32, self.n_mels)

    def _channels(self, width: int) -> int:
        return layers.divisible(width * self.width)

    def _blocks(self):
        """Fields of every block."""
        given = tuple(s if isinstance(s, tuple) else (s, s) for s in self.strides)
        strides = given
        if len(given) == len(STRIDED):
            at = dict(zip(STRIDED, given, strict=True))
            strides = tuple(at.get(i, (1, 1)) for i in range(len(mobile.BLOCKS)))
        if len(strides) != len(mobile.BLOCKS) or any(len(s) != 2 or min(s) < 1 for s in strides):
            raise AsjaxError(
                f"MobileNet strides must be {len(STRIDED)} numbers or {len(mobile.BLOCKS)} pairs "
                f"(frequency, time), got {self.strides}"
            )
        for i, (block, stride) in enumerate(zip(mobile.BLOCKS, strides, strict=True)):
            kernel, expanded, width, squeeze, activation = block
            tail = 2 if self.reduced_tail else 1
            expanded //= tail if i > STRIDED[-1] else 1
            width //= tail if i >= STRIDED[-1] else 1
            sizes = self._channels(expanded), self._channels(width)
            yield kernel, *sizes, squeeze, activation, stride

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None):
        layers.check_feats(feats, self.n_mels, "MobileNet")
        if augment is not None:
            feats = augment(feats)
        x = feats.astype(self.dtype).swapaxes(1, 2)[..., None]  # [B, F, T, 1]
        x = mobile.ConvNorm(self._channels(16), 3, 2, self.dtype, name="stem")(x, train)
        for i, fields in enumerate(self._blocks(), 1):
            block = layers.remat(mobile.Bottleneck, self)
            x = block(*fields, dtype=self.dtype, name=f"block{i}")(x, train)
        x = mobile.ConvNorm(6 * x.shape[-1], dtype=self.dtype, name="last")(x, train)
        frames = x.astype(jnp.float32).mean(1)  # [B, T', D]
        embedding = frames.mean(1)
        out = self._head(x.astype(jnp.float32), frames, embedding, train)
        return {**out, "embedding": embedding, "frame_embedding": frames}

    def _head(self, x, frames, embedding, train):
        if self.head == "convolution":
            y = mobile.pointwise(self.num_classes, "float32", "class_map")(x)
            frame_logits = layers.BatchNorm(name="class_map_bn")(y, train).mean(1)
            return {"logits": frame_logits.mean(1), "frame_logits": frame_logits}
        if self.head == "attention":
            return self._attention(frames)
        width = self._channels(1280 // (2 if self.reduced_tail else 1))
        y = jax.nn.hard_swish(layers.Dense(width, kernel_init=mobile.small, name="fc")(embedding))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return {"logits": layers.Dense(self.num_classes, kernel_init=mobile.small, name="head")(y)}

    def _attention(self, frames):
        b, t, _ = frames.shape
        shape = (2, self.heads, self.num_classes)
        width = 2 * self.heads * self.num_classes
        y = layers.Dense(width, kernel_init=mobile.small, name="subspaces")(frames).reshape(
            b, t, *shape
        )
        start = nn.initializers.constant(1 / self.heads)
        weight = self.param("head_weight", start, (self.heads,))
        attention, values = y[:, :, 0], y[:, :, 1]
        logits, _ = pooling.multi_head_attention(
            values, attention, weight, logit_activation="linear"
        )
        return {"logits": logits, "frame_logits": jnp.einsum("bthc,h->btc", values, weight)}

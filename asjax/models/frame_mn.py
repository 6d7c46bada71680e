"""Frame-MobileNet (Schmid, PretrainedSED, 2025): a MobileNetV3 with one frame per 40 ms.

feats [B, T, 128] -> 3x3 convolution of stride 2 -> 15 inverted bottlenecks that halve frequency six
times and time once -> 1x1 convolution to six times the last width -> frames [B, T // 4, D], with
one row of frequency -> detector (nn/frames.py). Maps are [B, F, T, C].
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from asjax.nn import frames, layers, mobile

VARIANTS = {
    "frame_mn06": dict(width=0.6),
    "frame_mn10": dict(width=1.0),
}
FRONTENDS = {variant: dict(name="frame_mn_mel128") for variant in VARIANTS}

# (frequency, time) of every block
STRIDES = tuple(
    zip(
        (1, 2, 2, 1, 1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 2),
        (1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
        strict=True,
    )
)

# (pattern of the torch module or key, our path, kind): see asjax/weights/port.py
TORCH = (*mobile.rules(r"model\.frame_mn\."), *frames.TORCH)
TORCH_SKIP = ()
TORCH_HEAD, HEADLESS = frames.TORCH_HEAD, frames.HEADLESS


def from_other_names(weights: dict) -> dict:
    """Rename the weights of PretrainedSED's backbone to the names of its detector."""
    return frames.renamed(weights, "frame_mn")


def rename_from_backbone(own: dict, weights: dict) -> dict:
    """State dict of a new model that starts from a checkpoint, see `frames.started`."""
    return frames.started(from_other_names(own), from_other_names(weights))


def torch_fields(weights: dict) -> dict:
    """The detector's fields; num_classes=0 for a bare backbone."""
    return frames.torch_fields(from_other_names(weights)) or {"num_classes": 0}


def torch_variants(weights: dict) -> list[str]:
    """The variants whose last map has as many channels as the checkpoint's."""
    key = "model.frame_mn.features.16.0.weight"
    channels = (*np.shape(from_other_names(weights).get(key)), 0)[0]
    fit = [v for v, f in VARIANTS.items() if 6 * layers.divisible(160 * f["width"]) == channels]
    return fit or list(VARIANTS)


def rename_from_imagenet(own: dict, weights: dict) -> dict:
    """State dict of a new model that starts from EfficientAT's mn10_im, for `port.from_torch`.

    It takes the `features` but not the classifier. The detector keeps its initial weights.
    """
    taken = {k: v for k, v in weights.items() if not k.startswith("classifier.")}
    return {**own, **{f"model.frame_mn.{k}": v for k, v in taken.items()}}


def model(variant: str, **over) -> FrameMobileNet:
    """The linen module of a variant; `over` replaces fields (num_classes=447, sequence="gru")."""
    return frames.checked(layers.make(FrameMobileNet, VARIANTS, variant, over), "Frame-MobileNet")


class FrameMobileNet(nn.Module):
    """feats [B, T, n_mels] -> frame_embedding [B, S, D], S = T / 4 rounded up, and the detector's
    logits, frame_logits and embedding.

    Args of the call:
      feats: any length.
      mask: [B, T], the frames of each clip, for the detector; convolutions do not mask padding.
      augment: a function on feats, applied first.

    Attributes:
      width: multiplier of the channels of every layer.
      num_classes ... head: see `frames.Detector`; num_classes=0 is the bare backbone.
    """

    width: float = 1.0
    n_mels: int = 128
    num_classes: int = 527
    weak_classes: int | None = None
    frames: int | None = 250
    sequence: str | None = None
    sequence_width: int = 2048
    sequence_depth: int = 2
    head: str = "linear"
    head_bias: float = 0.0
    attention: str = "auto"
    remat: bool = False
    dtype: str = "float32"

    input_frames = 1000  # 10 s, the input of the published models

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, for shape inference."""
        return (32, self.n_mels)

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None, mask=None):
        layers.check_feats(feats, self.n_mels, "Frame-MobileNet")
        x = jnp.asarray(feats) if augment is None else augment(jnp.asarray(feats))
        x = x.astype(self.dtype).swapaxes(1, 2)[..., None]  # [B, F, T, 1]
        wide = lambda channels: layers.divisible(channels * self.width)  # noqa: E731
        x = mobile.ConvNorm(wide(16), 3, 2, self.dtype, name="stem")(x, train)
        for i, (block, strides) in enumerate(zip(mobile.BLOCKS, STRIDES, strict=True), 1):
            kernel, expanded, width, squeeze, act = block
            fields = (kernel, wide(expanded), wide(width), squeeze, act, strides, self.dtype)
            x = layers.remat(mobile.Bottleneck, self)(*fields, name=f"block{i}")(x, train)
        x = mobile.ConvNorm(6 * x.shape[-1], dtype=self.dtype, name="last")(x, train)
        tokens = x.astype(jnp.float32).mean(1)  # one row of frequency for 128 bins
        return frames.detect(self, tokens, mask=mask, train=train)

"""CNN6, CNN10 and CNN14 of PANNs (Kong et al. 2020, table II) and a small one for small data.

feats [B, T, F] -> bn0 over mel bins -> blocks of [conv, BN, relu] x convs and average pooling
-> mean over frequency -> max + mean over time -> fc1, relu -> head.
"""

from __future__ import annotations

from math import prod

import flax.linen as nn
import jax.numpy as jnp

from asjax.models import layers

VARIANTS = {
    "cnn6": dict(channels=(64, 128, 256, 512), convs=1, kernel=5, pools=(2, 2, 2, 2), width=512),
    "cnn10": dict(channels=(64, 128, 256, 512), convs=2, kernel=3, pools=(2, 2, 2, 2), width=512),
    "cnn14": dict(
        channels=(64, 128, 256, 512, 1024, 2048),
        convs=2,
        kernel=3,
        pools=(2, 2, 2, 2, 2, 1),
        width=2048,
    ),
    # ours: a tenth of a million parameters, for a few hundred clips and a laptop
    "mini": dict(channels=(16, 32, 64, 128), convs=1, kernel=3, pools=(2, 2, 2, 2), width=128),
}

FRONTENDS = {
    "cnn6": dict(name="panns_logmel64"),
    "cnn10": dict(name="panns_logmel64"),
    "cnn14": dict(name="panns_logmel64"),
    "mini": dict(name="panns_logmel64_16k", hop=320),
}

# (pattern of the torch module or key, our path, kind): see asjax/port.py
TORCH = (
    (r"bn0", "bn0", "norm"),
    (r"conv_block(\d)\.conv(\d)", r"block\1/conv\2", "conv"),
    (r"conv_block(\d)\.bn(\d)", r"block\1/bn\2", "norm"),
    (r"fc1", "fc1", "linear"),
    (r"fc_audioset", "head", "linear"),
)
TORCH_SKIP = (r"spectrogram_extractor\..*", r"logmel_extractor\..*")

_xavier = nn.initializers.xavier_uniform()


def model(variant: str, **over) -> Cnn:
    """The linen module of a variant; `over` replaces fields (num_classes=200, dtype=...)."""
    return layers.make(Cnn, VARIANTS, variant, over)


class Block(nn.Module):
    """[conv -> BN -> relu] x convs -> average pool: [B, T, F, C] -> [B, T // p, F // p, width]."""

    width: int
    convs: int
    kernel: int
    pool: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train: bool):
        for i in range(1, self.convs + 1):
            x = layers.Conv(self.width, self.kernel, self.dtype, _xavier, name=f"conv{i}")(x)
            x = nn.relu(layers.BatchNorm(dtype=self.dtype, name=f"bn{i}")(x, train))
        return layers.avg_pool(x, (self.pool, self.pool))


class Cnn(nn.Module):
    """A PANNs CNN on log-mel features in dB.

    Args of the call: feats [B, T, n_mels]; `augment`, a function [B, T, F] -> [B, T, F] applied
    right after bn0 (there SpecAugment's zero is the mean). Input of fewer frames than the pools
    take (16 for CNN6 and CNN10, 32 for CNN14) is padded at the end with zeros after bn0.

    Returns: logits [B, num_classes] float32, embedding [B, width] (relu of fc1, dropped out in
    training; the head reads it whole, as in the authors' code), frame_embedding [B, T', channels]
    (mean over frequency, before pooling over time).
    """

    channels: tuple[int, ...]
    convs: int
    kernel: int
    pools: tuple[int, ...]
    width: int
    num_classes: int = 527
    n_mels: int = 64
    block_dropout: float = 0.2
    head_dropout: float = 0.5
    head_bias: float = 0.0  # initial; log(p / (1 - p)) starts every class at probability p
    dtype: str = "float32"

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, for shape inference."""
        return (prod(self.pools), self.n_mels)

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None):
        layers.check_feats(feats, self.n_mels, "CNN")
        if self.n_mels < prod(self.pools):
            raise layers.AsjaxError(f"n_mels must be at least {prod(self.pools)} for these pools")
        x = layers.BatchNorm(name="bn0")(feats, train)
        if augment is not None:
            x = augment(x)
        x = layers.pad_frames(x, prod(self.pools)).astype(self.dtype)[..., None]
        for i, (width, pool) in enumerate(zip(self.channels, self.pools, strict=True), 1):
            x = Block(width, self.convs, self.kernel, pool, self.dtype, name=f"block{i}")(x, train)
            x = self._drop(self.block_dropout, x, train)
        frames = x.mean(2).astype(jnp.float32)  # [B, T', C]
        x = self._drop(self.head_dropout, layers.max_mean(frames), train)
        x = nn.relu(nn.Dense(self.width, kernel_init=_xavier, name="fc1")(x))
        start = nn.initializers.constant(self.head_bias)
        logits = nn.Dense(self.num_classes, kernel_init=_xavier, bias_init=start, name="head")(x)
        embedding = self._drop(self.head_dropout, x, train)
        return {"logits": logits, "embedding": embedding, "frame_embedding": frames}

    def _drop(self, rate, x, train):
        return nn.Dropout(rate, deterministic=not train)(x)

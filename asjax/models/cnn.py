"""CNN6, CNN10 and CNN14 of PANNs (Kong et al. 2020, table II) and a small one for small data.

feats [B, T, F] -> bn0 over mel bins -> blocks of [conv, BN, relu] x convs and average pooling
-> mean over frequency -> one of

    pooling="clip"                        max + mean over time -> fc1, relu -> head
    pooling="max", "mean", "attention"    max + mean of three frames -> fc1, relu -> head for every
                                          frame -> clip (PANNs' "decision level")
    `frames` is set                       the detector of nn/frames.py
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from asjax.nn import frames, layers, panns

_CNN14 = dict(
    channels=(64, 128, 256, 512, 1024, 2048),
    convs=2,
    kernel=3,
    pools=(2, 2, 2, 2, 2, 1),
    width=2048,
)

VARIANTS = {
    "cnn6": dict(channels=(64, 128, 256, 512), convs=1, kernel=5, pools=(2, 2, 2, 2), width=512),
    "cnn10": dict(channels=(64, 128, 256, 512), convs=2, kernel=3, pools=(2, 2, 2, 2), width=512),
    "cnn14": _CNN14,
    "cnn14_16k": _CNN14,
    "cnn14_8k": _CNN14,
    "cnn14_mel32": dict(**_CNN14, n_mels=32),
    "cnn14_mel128": dict(**_CNN14, n_mels=128),
    "cnn14_decision_max": dict(**_CNN14, pooling="max"),
    "cnn14_decision_avg": dict(**_CNN14, pooling="mean"),
    "cnn14_decision_att": dict(**_CNN14, pooling="attention"),
    # our own variant: about 0.1 M parameters, for a few hundred clips and a laptop
    "mini": dict(channels=(16, 32, 64, 128), convs=1, kernel=3, pools=(2, 2, 2, 2), width=128),
}

FRONTENDS = {variant: dict(name="panns_logmel64") for variant in VARIANTS} | {
    "cnn14_16k": dict(name="panns_logmel64_16k"),
    "cnn14_8k": dict(name="panns_logmel64_8k"),
    "cnn14_mel32": dict(name="panns_logmel", n_mels=32),
    "cnn14_mel128": dict(name="panns_logmel", n_mels=128),
    "mini": dict(name="panns_logmel64_16k", hop=320),
}

POOLINGS = ("clip", "max", "mean", "attention")

TORCH = (*panns.TORCH, (r"att_block\.(att|cla)", r"head/\1", "conv"), *frames.TORCH)
TORCH_SKIP = panns.TORCH_SKIP


def torch_fields(weights) -> dict:
    """Fields that the shapes and names of a checkpoint imply."""
    return {**panns.torch_fields(weights), **frames.torch_fields(weights)}


def model(variant: str, **over) -> Cnn:
    """The linen module of a variant; `over` replaces fields (num_classes=200, dtype=...)."""
    if over.get("pooling", "clip") not in POOLINGS:
        raise layers.unknown("CNN pooling", over["pooling"], POOLINGS)
    return frames.checked(layers.make(Cnn, VARIANTS, variant, over), "CNN", off=True)


# ----------------------------------------------------------------------------- the decision level


class Attention(nn.Module):
    """PANNs' attention block: frames [B, T', D] -> clip logits [B, C], frame logits [B, T', C].

    The clip's probability is the sum over frames of softmax(clamp(att, -10, 10)) * sigmoid(cla).
    """

    num_classes: int
    head_bias: float = 0.0

    @nn.compact
    def __call__(self, x):
        start = nn.initializers.constant(self.head_bias)
        att = nn.Conv(self.num_classes, (1,), kernel_init=panns.xavier, name="att")(x)
        cla = nn.Conv(
            self.num_classes, (1,), kernel_init=panns.xavier, bias_init=start, name="cla"
        )(x)
        return weighted(jnp.clip(att, -10, 10), cla), cla


def weighted(attention, logits):
    """The logit of sum_t softmax(attention)_t * sigmoid(logits)_t, [B, T', C] -> [B, C].

    It is computed in logarithms, so it stays exact where the probability rounds to 0 or 1.
    """
    weights = jax.nn.log_softmax(attention, 1)
    yes = jax.nn.logsumexp(weights + jax.nn.log_sigmoid(logits), 1)
    return yes - jax.nn.logsumexp(weights + jax.nn.log_sigmoid(-logits), 1)


def three_frames(x):
    """Maximum plus mean over each frame and its neighbours: [B, T', C] -> [B, T', C].

    As in torch, the mean counts zeros beyond the ends and the maximum does not.
    """
    return nn.max_pool(x, (3,), padding="SAME") + nn.avg_pool(x, (3,), padding="SAME")


# ------------------------------------------------------------------------------------ the network


class Cnn(nn.Module):
    """A PANNs CNN on log-mel features in dB.

    Args of the call:
      feats: [B, T, n_mels]. Input with fewer frames than the pools need (16 for CNN6 and CNN10, 32
        for CNN14) is zero-padded at the end after bn0.
      augment: a function [B, T, F] -> [B, T, F], applied after bn0, where SpecAugment's zero is the
        mean.
      mask: [B, T], the frames of each clip; only with a detector.

    Returns:
      logits: float32 [B, num_classes].
      embedding: [B, width], relu of fc1, with dropout in training. As in the authors' code, the
        head reads it without dropout.
      frame_embedding: [B, T', channels], the mean over frequency before pooling over time. T' is
        T // 32 for CNN14 and T // 16 for the others: one frame per 320 ms or 160 ms with a hop of
        10 ms.

    With `pooling` "max", "mean" or "attention" there are also frame_logits [B, T', num_classes].
    The clip's probability is their probabilities' maximum, mean, or mean weighted by attention. The
    embedding is then the mean over time of relu of fc1, and the head reads it with dropout, as in
    the authors' code. The authors' `framewise_output` is sigmoid(frame_logits), with each frame
    repeated 32 times and the last one repeated up to T frames.

    With `frames` a detector replaces the head: see `frames.Detector` for its outputs and the fields
    weak_classes, sequence, sequence_width, sequence_depth and head.
    """

    channels: tuple[int, ...]
    convs: int
    kernel: int
    pools: tuple[int, ...]
    width: int
    num_classes: int = 527
    n_mels: int = 64
    pooling: str = "clip"
    block_dropout: float = 0.2
    head_dropout: float = 0.5
    head_bias: float = 0.0  # initial bias; with log(p / (1 - p)) every class starts at p
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
        return (math.prod(self.pools), self.n_mels)

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None, mask=None):
        layers.check_feats(feats, self.n_mels, "CNN")
        frames.check_mask(mask, self, "CNN")
        least = math.prod(self.pools)
        panns.check_bins(self.n_mels, least)
        x = panns.normed(feats, train, augment, least).astype(self.dtype)
        for i, (width, pool) in enumerate(zip(self.channels, self.pools, strict=True), 1):
            pools = (pool, pool)
            block = layers.remat(panns.Block, self)
            x = block(width, self.convs, self.kernel, pools, self.dtype, name=f"block{i}")(x, train)
            x = panns.drop(self.block_dropout, x, train)
        if self.frames:
            return frames.detect(self, x.mean(2), mask=mask, train=train)
        if self.pooling != "clip":
            return self._decide(x.mean(2).astype(jnp.float32), train)
        return panns.tag(x, train, self.width, self.num_classes, self.head_dropout, self.head_bias)

    def _decide(self, tokens, train):
        x = panns.drop(self.head_dropout, three_frames(tokens), train)
        x = nn.relu(layers.Dense(self.width, kernel_init=panns.xavier, name="fc1")(x))
        embedding = x.mean(1)
        x = panns.drop(self.head_dropout, x, train)
        if self.pooling == "attention":
            logits, each = Attention(self.num_classes, self.head_bias, name="head")(x)
        else:
            start = nn.initializers.constant(self.head_bias)
            each = layers.Dense(
                self.num_classes, kernel_init=panns.xavier, bias_init=start, name="head"
            )(x)
            logits = each.max(1) if self.pooling == "max" else weighted(jnp.zeros_like(each), each)
        out = {"logits": logits, "embedding": embedding, "frame_embedding": tokens}
        return {**out, "frame_logits": each}

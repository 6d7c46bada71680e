"""ResNet22, ResNet38 and ResNet54 of PANNs (Kong et al. 2020, table III).

feats [B, T, F] -> bn0 over mel bins -> block of two convolutions, pooled -> four layers of residual
blocks, pooled between them -> block of two convolutions -> clip-level head as in cnn.py.
"""

from __future__ import annotations

import flax.linen as nn

from asjax.nn import layers, panns

VARIANTS = {
    "resnet22": dict(depths=(2, 2, 2, 2)),
    "resnet38": dict(depths=(3, 4, 6, 3)),
    "resnet54": dict(depths=(3, 4, 6, 3), bottleneck=True),
}

FRONTENDS = {variant: dict(name="panns_logmel64") for variant in VARIANTS}

# In a shortcut with pooling, number 0 is the pool. Layer 1 has no pooling; it has a shortcut
# convolution only with bottlenecks.
TORCH = (
    (r"bn0", "bn0", "norm"),
    (r"conv_block(1)\.conv(\d)", r"block\1/conv\2", "conv"),
    (r"conv_block(1)\.bn(\d)", r"block\1/bn\2", "norm"),
    (r"resnet\.layer(\d)\.(\d+)\.conv(\d)", r"layer\1_\2/conv\3", "conv"),
    (r"resnet\.layer(\d)\.(\d+)\.bn(\d)", r"layer\1_\2/bn\3", "norm"),
    (r"resnet\.layer(1)\.(0)\.downsample\.0", r"layer\1_\2/shortcut", "conv"),
    (r"resnet\.layer(1)\.(0)\.downsample\.1", r"layer\1_\2/shortcut_bn", "norm"),
    (r"resnet\.layer([2-4])\.(0)\.downsample\.1", r"layer\1_\2/shortcut", "conv"),
    (r"resnet\.layer([2-4])\.(0)\.downsample\.2", r"layer\1_\2/shortcut_bn", "norm"),
    (r"conv_block_after1\.conv(\d)", r"after/conv\1", "conv"),
    (r"conv_block_after1\.bn(\d)", r"after/bn\1", "norm"),
    (r"fc1", "fc1", "linear"),
    (r"fc_audioset", "head", "linear"),
)
TORCH_SKIP = panns.TORCH_SKIP
torch_fields = panns.torch_fields

_POOLED = 2**5  # input frames and bins per output frame and bin


def model(variant: str, **over) -> ResNet:
    """The linen module of a variant; `over` replaces fields (num_classes=200, dtype=...)."""
    return layers.make(ResNet, VARIANTS, variant, over)


class Residual(nn.Module):
    """relu(shortcut(x) + branch(x)); `pool` first pools x by 2 x 2: [B, T, F, C] -> maps.

    The branch is two 3x3 convolutions, or 1x1, 3x3, 1x1 to four times the width (`bottleneck`).
    The scale of its last norm starts at 0. Dropout comes before its last convolution.
    """

    width: int
    pool: bool
    bottleneck: bool = False
    dropout: float = 0.1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train: bool):
        if self.pool:
            x = layers.avg_pool(x, (2, 2))
        sizes = (1, 3, 1) if self.bottleneck else (3, 3)
        widths = [self.width] * (len(sizes) - 1) + [self.width * (4 if self.bottleneck else 1)]
        y = x
        for i, (size, width) in enumerate(zip(sizes, widths, strict=True), 1):
            last = i == len(sizes)
            y = panns.drop(self.dropout, y, train) if last else y
            y = self._conv(width, size, f"conv{i}")(y)
            start = nn.initializers.zeros if last else nn.initializers.ones
            y = layers.BatchNorm(dtype=self.dtype, scale_init=start, name=f"bn{i}")(y, train)
            y = y if last else nn.relu(y)
        if x.shape[-1] != widths[-1] or self.pool:
            x = self._conv(widths[-1], 1, "shortcut")(x)
            x = layers.BatchNorm(dtype=self.dtype, name="shortcut_bn")(x, train)
        return nn.relu(x + y)

    def _conv(self, width, size, name):
        if size == 1:  # one matrix product
            return layers.PatchConv(
                width, (1, 1), self.dtype, panns.xavier, use_bias=False, name=name
            )
        return layers.Conv(width, size, self.dtype, panns.xavier, name=name)


class ResNet(nn.Module):
    """A PANNs ResNet on log-mel features in dB.

    Arguments and outputs of the call are those of `cnn.Cnn`; T' is T // 32. Input with fewer than
    32 frames is zero-padded at the end after bn0.
    """

    depths: tuple[int, ...]
    bottleneck: bool = False
    dims: tuple[int, ...] = (64, 128, 256, 512)
    last: int = 2048  # channels of the block after the residual layers
    width: int = 2048
    num_classes: int = 527
    n_mels: int = 64
    block_dropout: float = 0.2
    residual_dropout: float = 0.1
    head_dropout: float = 0.5
    head_bias: float = 0.0  # initial bias; with log(p / (1 - p)) every class starts at p
    remat: bool = False
    dtype: str = "float32"

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, for shape inference."""
        return (_POOLED, self.n_mels)

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None):
        layers.check_feats(feats, self.n_mels, "ResNet")
        panns.check_bins(self.n_mels, _POOLED)
        x = panns.normed(feats, train, augment, _POOLED).astype(self.dtype)
        block, residual = (layers.remat(kind, self) for kind in (panns.Block, Residual))
        x = block(self.dims[0], dtype=self.dtype, name="block1")(x, train)
        x = panns.drop(self.block_dropout, x, train)
        for layer, (depth, width) in enumerate(zip(self.depths, self.dims, strict=True), 1):
            for i in range(depth):
                pool = layer > 1 and i == 0
                fields = (width, pool, self.bottleneck, self.residual_dropout, self.dtype)
                x = residual(*fields, name=f"layer{layer}_{i}")(x, train)
        x = panns.drop(self.block_dropout, layers.avg_pool(x, (2, 2)), train)
        x = block(self.last, pool=(1, 1), dtype=self.dtype, name="after")(x, train)
        x = panns.drop(self.block_dropout, x, train)
        return panns.tag(x, train, self.width, self.num_classes, self.head_dropout, self.head_bias)

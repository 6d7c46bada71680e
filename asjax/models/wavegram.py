"""Wavegram-Logmel-CNN14 of PANNs (Kong et al. 2020, section III-C).

wave -> conv1d of stride 5 -> three blocks of two conv1d, each pooled by 4 -> groups of channels
become rows of frequency -> block, pooled over time -> concatenated with the maps of the log-mel's
first block -> CNN14.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from asjax.nn import layers, panns
from asjax.nn.layers import AsjaxError

VARIANTS = {
    "wavegram_logmel_cnn14": {},
    "wavegram_logmel128_cnn14": dict(n_mels=128),
}

FRONTENDS = {
    "wavegram_logmel_cnn14": dict(name="wavegram_logmel64"),
    "wavegram_logmel128_cnn14": dict(name="wavegram_logmel128"),
}

TORCH = (
    (r"pre_conv0", "pre_conv0", "conv"),
    (r"pre_bn0", "pre_bn0", "norm"),
    (r"pre_block(\d)\.conv(\d)", r"pre_block\1/conv\2", "conv"),
    (r"pre_block(\d)\.bn(\d)", r"pre_block\1/bn\2", "norm"),
    *panns.TORCH,
)
TORCH_SKIP = panns.TORCH_SKIP
torch_fields = panns.torch_fields

HOP = 320  # samples per log-mel frame = the product of the wave layers' strides, 5 * 4 * 4 * 4
_POOLED = 2**5  # input frames and bins per output frame and bin


def model(variant: str, **over) -> Wavegram:
    """The linen module of a variant; `over` replaces fields (num_classes=200, dtype=...)."""
    return layers.make(Wavegram, VARIANTS, variant, over)


class WaveBlock(nn.Module):
    """[conv1d -> BN -> relu] x 2, then maximum of 4: [B, N, C] -> [B, N // 4, C'].

    The second convolution is dilated. `keep` is applied to the input of every convolution.
    """

    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train: bool, keep):
        for i in (1, 2):
            x = nn.Conv(
                self.width,
                (3,),
                padding=((i, i),),
                kernel_dilation=(i,),
                use_bias=False,
                dtype=self.dtype,
                kernel_init=panns.xavier,
                name=f"conv{i}",
            )(keep(x))
            x = nn.relu(layers.BatchNorm(dtype=self.dtype, name=f"bn{i}")(x, train))
        b, n, c = x.shape
        return x[:, : n // 4 * 4].reshape(b, n // 4, 4, c).max(2)


class Wavegram(nn.Module):
    """PANNs' Wavegram-Logmel-CNN14 on the features of the frontend `wavegram_logmel64`.

    Args of the call:
      feats: [B, T, n_mels + 320 + 1]: per frame the log-mel in dB, the samples, and how many of
        them are not padding.
      augment: a function [B, T, F] -> [B, T, F], applied to the log-mel after bn0. Mixup of clips
        is also applied to the wavegram, but SpecAugment's stripes are not, as in the authors' code.

    Lengths: the wavegram of S samples has as many frames as the log-mel's first block if S % 640 is
    below 320 or above 635. For other lengths the authors' code fails; we append zeros to the wave
    up to the next multiple of 640. Input with fewer than 32 frames is padded to 32: the log-mel
    with zeros after bn0, the wave with zeros. In training, S % 640 samples at the end are dropped
    if they are fewer than 320, so that the statistics of the norms contain no padding.

    The outputs are those of `cnn.Cnn`; T' is T // 32.
    """

    channels: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    wave_channels: tuple[int, ...] = (64, 64, 128)  # the last wave block has 2 n_mels
    width: int = 2048
    num_classes: int = 527
    n_mels: int = 64
    block_dropout: float = 0.2
    head_dropout: float = 0.5
    head_bias: float = 0.0  # initial bias; with log(p / (1 - p)) every class starts at p
    remat: bool = False
    dtype: str = "float32"

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, for shape inference."""
        return (_POOLED, self.n_mels + HOP + 1)

    def _check(self, feats):
        bins = self.n_mels + HOP + 1
        if feats.ndim != 3 or feats.shape[1] == 0 or feats.shape[2] != bins:
            raise AsjaxError(
                f"Wavegram features must be [batch, frames, {bins}] ({self.n_mels} mel bins, {HOP} "
                f"samples, their number) with at least one frame, got shape {tuple(feats.shape)}; "
                f"use the frontend wavegram_logmel64 with n_mels={self.n_mels}"
            )
        panns.check_bins(self.n_mels, _POOLED)

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None):
        self._check(feats)
        x = panns.normed(feats[..., : self.n_mels], train, augment, _POOLED).astype(self.dtype)
        wave = self._wavegram(*self._wave(feats, train), train)  # [B, T // 2, F / 2, C]
        if augment is not None:
            wave = _mix(augment, wave)
        for i, width in enumerate(self.channels, 1):
            pool = (1, 1) if i == len(self.channels) else (2, 2)
            block = layers.remat(panns.Block, self)
            x = block(width, pool=pool, dtype=self.dtype, name=f"block{i}")(x, train)
            if i == 1:
                x = jnp.concatenate([x, wave], -1)
            x = panns.drop(self.block_dropout, x, train)
        return panns.tag(x, train, self.width, self.num_classes, self.head_dropout, self.head_bias)

    def _wave(self, feats, train):
        """The wave [B, N], and its length [B] if padding follows, else None."""
        frames = max(feats.shape[1], _POOLED)
        samples = feats[..., self.n_mels : -1].reshape(feats.shape[0], -1)
        samples = layers.pad_frames(samples, frames * HOP)
        if train:
            samples = samples[:, : frames // 2 * 2 * HOP]
        if train or frames % 2 == 0:  # all samples count, also zeros at the end
            return samples, None
        return samples, (frames - 1) * HOP + feats[:, -1, -1].astype(jnp.int32)

    def _wavegram(self, wave, length, train):
        def keep(x):
            """Zero the maps beyond the end: the authors' shorter maps have zero padding there."""
            if length is None:
                return x
            real = jnp.arange(x.shape[1])[None] < -(-length // 5)[:, None] // (full // x.shape[1])
            return jnp.where(real.reshape(real.shape + (1,) * (x.ndim - 2)), x, 0)

        kinds = (WaveBlock, panns.Block)
        wave_block, block = (layers.remat(k, self, (2, 3)) if train else k for k in kinds)
        first, *widths = self.wave_channels
        x = nn.Conv(
            first,
            (11,),
            strides=(5,),
            padding=((5, 5),),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=panns.xavier,
            name="pre_conv0",
        )(wave[..., None])
        full = x.shape[1]  # a multiple of 64, the product of the pools
        x = nn.relu(layers.BatchNorm(dtype=self.dtype, name="pre_bn0")(x, train))
        for i, width in enumerate((*widths, 2 * self.n_mels), 1):
            x = wave_block(width, self.dtype, name=f"pre_block{i}")(x, train, keep)
        b, n, _ = x.shape  # channels are 4 groups of F / 2 rows of frequency
        x = x.reshape(b, n, 4, self.n_mels // 2).swapaxes(2, 3)
        x = block(self.channels[0], pool=(2, 1), dtype=self.dtype, name="pre_block4")(
            x, train, keep
        )
        return x


def _mix(augment, maps):
    """Apply `augment` to every element of the maps separately, as one frame with one bin.

    So mixing of clips works as usual. SpecAugment has no effect, because its stripes always leave
    at least one frame and one bin (see `augment.specaug`).
    """
    flat = maps.reshape(maps.shape[0], -1)
    each = jax.vmap(lambda x: augment(x[:, None, None])[:, 0, 0], in_axes=1, out_axes=1)
    return each(flat).reshape(-1, *maps.shape[1:])

"""Shared parts of the PANNs networks (Kong et al. 2020): input norm, block, clip-level head."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from asjax.nn import layers

# (pattern of the torch module or key, our path, kind): see asjax/weights/port.py
TORCH = (
    (r"bn0", "bn0", "norm"),
    (r"conv_block(\d)\.conv(\d)", r"block\1/conv\2", "conv"),
    (r"conv_block(\d)\.bn(\d)", r"block\1/bn\2", "norm"),
    (r"fc1", "fc1", "linear"),
    (r"fc_audioset", "head", "linear"),
)
# the extractors are tables; the authors' code never calls the norm of the attention block
TORCH_SKIP = (r"spectrogram_extractor\..*", r"logmel_extractor\..*", r"att_block\.bn_att\..*")

xavier = nn.initializers.xavier_uniform()


def torch_fields(weights) -> dict:
    """Fields that a checkpoint implies; the poolings "max" and "mean" leave no weights in it."""
    rows = dict(n_mels="bn0.weight", width="fc1.weight")
    fields = {k: len(weights[name]) for k, name in rows.items() if np.ndim(weights.get(name)) > 0}
    return {**fields, "pooling": "attention"} if "att_block.cla.weight" in weights else fields


class Block(nn.Module):
    """[conv -> BN -> relu] x convs -> average pool: [B, T, F, C] -> [B, T // pt, F // pf, width].

    The function `keep` is applied to the input of every convolution (see wavegram.py).
    """

    width: int
    convs: int = 2
    kernel: int = 3
    pool: tuple[int, int] = (2, 2)
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train: bool, keep=lambda x: x):
        for i in range(1, self.convs + 1):
            x = layers.Conv(self.width, self.kernel, self.dtype, xavier, name=f"conv{i}")(keep(x))
            x = nn.relu(layers.BatchNorm(dtype=self.dtype, name=f"bn{i}")(x, train))
        return layers.avg_pool(x, self.pool)


def normed(feats, train: bool, augment, frames: int):
    """[B, T, F] -> bn0, `augment`, zero padding to at least `frames` frames -> [B, T, F, 1].

    Call it inside a module; it makes the module's `bn0`.
    """
    x = layers.BatchNorm(name="bn0")(feats, train)
    x = x if augment is None else augment(x)
    return layers.pad_frames(x, frames)[..., None]


def drop(rate: float, x, train: bool):
    """Dropout; call it inside a module, because it uses the module's random numbers."""
    return nn.Dropout(rate, deterministic=not train)(x)


def check_bins(n_mels: int, least: int):
    """AsjaxError if fewer than `least` bins: the pools would leave none."""
    if n_mels < least:
        raise layers.AsjaxError(f"n_mels must be at least {least} for these pools, got {n_mels}")


def tag(x, train: bool, width: int, num_classes: int, head_dropout: float, head_bias: float):
    """Maps [B, T', F', C] -> the outputs of PANNs' clip-level networks (see `Cnn`).

    Call it inside a module; it makes the module's `fc1` and `head`.
    """
    frames = x.mean(2).astype(jnp.float32)  # [B, T', C]
    x = drop(head_dropout, layers.max_mean(frames), train)
    x = nn.relu(layers.Dense(width, kernel_init=xavier, name="fc1")(x))
    start = nn.initializers.constant(head_bias)
    logits = layers.Dense(num_classes, kernel_init=xavier, bias_init=start, name="head")(x)
    embedding = drop(head_dropout, x, train)
    return {"logits": logits, "embedding": embedding, "frame_embedding": frames}

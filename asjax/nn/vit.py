"""The pre-norm transformer encoder that the ViT-like families share (Dosovitskiy et al. 2021).

The weights of all blocks are always stacked on a leading axis. So `scan_layers` and `remat` change
neither the outputs nor a saved model.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from asjax.config import AsjaxError
from asjax.nn import layers, placement, plain
from asjax.nn.attention import attend

Array = jax.Array

# timm's initial linear weights; it truncates at +-2, which is 100 deviations, so this is the same
normal = nn.initializers.normal(0.02)


def torch_blocks(prefix: str = "") -> tuple:
    """Port rules of timm-style `{prefix}blocks.i.*` for an `Encoder` named "encoder".

    `prefix` is a pattern, such as r"v\\."; the result is part of a family's TORCH.
    """
    return (
        (prefix + r"blocks\.(\d+)\.norm([12])", r"encoder/blocks[\1]/norm\2", "norm"),
        (prefix + r"blocks\.(\d+)\.attn\.(qkv|proj)", r"encoder/blocks[\1]/attn/\2", "linear"),
        (prefix + r"blocks\.(\d+)\.mlp\.(fc[12])", r"encoder/blocks[\1]/mlp/\2", "linear"),
    )


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection: [B, S, D] -> [B, S, D].

    `qkv` holds the columns [q | k | v], each `heads` x head width.
    """

    heads: int
    qkv_bias: bool = True
    backend: str = "auto"
    dtype: str = "float32"
    kernel_init: Callable = normal

    @nn.compact
    def __call__(self, x: Array, bias=None, mask=None) -> Array:
        b, s, width = x.shape
        if width % self.heads:
            raise AsjaxError(f"width {width} must be a multiple of heads={self.heads}")
        qkv = dense(3 * width, self, name="qkv", use_bias=self.qkv_bias)(x)
        q, k, v = (
            part.reshape(b, s, self.heads, width // self.heads) for part in jnp.split(qkv, 3, -1)
        )
        y = attend(q, k, v, bias=bias, mask=mask, backend=self.backend)
        return dense(width, self, name="proj")(y.reshape(b, s, width))


class Mlp(nn.Module):
    """fc2(GELU(fc1(x))), the exact (erf) GELU."""

    width: int
    dtype: str = "float32"
    kernel_init: Callable = normal
    dropout: float = 0.0
    train: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        drop = nn.Dropout(self.dropout, deterministic=not self.train)
        y = dense(self.width, self, name="fc1")(x)
        if self.train and self.dropout:
            y = dense(x.shape[-1], self, name="fc2")(drop(plain.gelu(y)))
        else:
            y = dense(x.shape[-1], self, name="fc2", layer=layers.GeluDense)(y)
        return drop(y)


def dense(width: int, module, *, name: str, use_bias: bool = True, layer=layers.Dense) -> nn.Dense:
    """A dense layer with the dtype and initialiser of `module`."""
    return layer(
        width, use_bias=use_bias, dtype=module.dtype, kernel_init=module.kernel_init, name=name
    )


class Block(nn.Module):
    """x += drop(attention(norm1 x)); x += drop(mlp(norm2 x)), for `nn.scan`.

    Returns (x, x) if `collect`, else (x, None).
    """

    heads: int
    mlp: int
    qkv_bias: bool = True
    epsilon: float = 1e-6
    dropout: float = 0.0
    stochastic_depth: bool = False
    backend: str = "auto"
    dtype: str = "float32"
    kernel_init: Callable = normal
    train: bool = False
    collect: bool = False

    @nn.compact
    def __call__(self, x: Array, drop_path: Array, bias=None, mask=None):
        common = dict(dtype=self.dtype, kernel_init=self.kernel_init)
        attention = Attention(self.heads, self.qkv_bias, self.backend, name="attn", **common)
        mlp = Mlp(self.mlp, dropout=self.dropout, train=self.train, name="mlp", **common)
        drop = nn.Dropout(self.dropout, deterministic=not self.train)
        x, y = layers.layer_norm("norm1", self.dtype, self.epsilon, fork=True)(x)
        x = x + self._drop_path(drop(attention(y, bias, mask)), drop_path)
        x, y = layers.layer_norm("norm2", self.dtype, self.epsilon, fork=True)(x)
        x = x + self._drop_path(mlp(y), drop_path)
        return x, (x if self.collect else None)

    def _drop_path(self, y: Array, rate: Array) -> Array:
        if not self.train or not self.stochastic_depth:
            return y
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - rate, (y.shape[0], 1, 1))
        return jnp.where(keep, y / (1 - rate).astype(y.dtype), jnp.zeros_like(y))


def stacked(block, module, in_axes, train: bool, x=None):
    """Repeat `block`, which returns (x, more), `module.depth` times with stacked weights.

    `in_axes` are those of `nn.scan` for the arguments after x. Batch-norm statistics are stacked
    like the weights. The fields `module.scan_layers` and `module.remat` apply. `scan_layers=None`
    scans over the layers, except in training on CPU: there a scan must first fill its stacked
    gradients and activations with zeros, which costs a tenth of a step. `x` tells the device.
    """
    scan = module.scan_layers
    if scan is None:
        scan = not train or not placement.on_cpu(x)
    if module.remat:
        block = nn.remat(block, prevent_cse=not scan)
    return nn.scan(
        block,
        variable_axes={"params": 0, "batch_stats": 0, "intermediates": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=in_axes,
        length=module.depth,
        unroll=1 if scan else module.depth,
    )


class Encoder(nn.Module):
    """`depth` pre-norm blocks: tokens [B, S, D] -> [B, S, D] (no final norm).

    A call with `collect=True` also returns the output of every block, [depth, B, S, D].

    Attributes:
      mlp: width inside the MLP.
      drop_path: stochastic depth, linear from 0 at the first block to this rate at the last.
      dropout: rate after the attention projection and inside the MLP.
      scan_layers: True: one compiled block in a loop, which compiles faster than `depth` copies.
        None: see `stacked`.
      remat: recompute a block's activations in the backward pass; needs less memory, more time.
      attention: backend of `attend`.
    """

    depth: int
    heads: int
    mlp: int
    qkv_bias: bool = True
    epsilon: float = 1e-6
    dropout: float = 0.0
    drop_path: float = 0.0
    scan_layers: bool | None = None
    remat: bool = False
    attention: str = "auto"
    dtype: str = "float32"
    kernel_init: Callable = normal

    @nn.compact
    def __call__(
        self, x: Array, *, train: bool = False, collect: bool = False, bias=None, mask=None
    ):
        blocks = stacked(Block, self, (0, nn.broadcast, nn.broadcast), train, x)(
            heads=self.heads,
            mlp=self.mlp,
            qkv_bias=self.qkv_bias,
            epsilon=self.epsilon,
            dropout=self.dropout,
            stochastic_depth=self.drop_path > 0,
            backend=self.attention,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            train=train,
            collect=collect,
            name="blocks",
        )
        rates = jnp.linspace(0.0, self.drop_path, self.depth)
        x, every = blocks(x.astype(self.dtype), rates, bias, mask)
        return (x, every) if collect else x


class Patches(nn.Module):
    """Rectangular patches of a spectrogram: [B, R, C] -> [B, R', C', width].

    This is a convolution over (R, C) without padding; rows and columns that do not fill a patch are
    dropped. The kernel is [kr, kc, 1, width].
    """

    width: int
    patch: tuple[int, int] = (16, 16)
    stride: tuple[int, int] = (16, 16)
    use_bias: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (*self.patch, 1, self.width)
        kernel = self.param("kernel", torch_uniform, shape, jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if placement.in_graph():
            y = plain.conv(x[..., None], kernel, self.stride, "VALID")
        else:
            y = layers.product(self._cut(x), kernel.reshape(-1, self.width))
        if self.use_bias:
            bound = (self.patch[0] * self.patch[1]) ** -0.5
            start = lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)  # noqa: E731
            bias = self.param("bias", start, (self.width,))
            y = y + layers.expand(bias.astype(self.dtype), 4)
        return y

    def _cut(self, x: Array) -> Array:
        """[B, R, C] -> [B, R', C', kr * kc] by a gather, so that the convolution is one product."""
        (kr, kc), (sr, sc) = self.patch, self.stride
        rows = jnp.arange((x.shape[1] - kr) // sr + 1)[:, None] * sr + jnp.arange(kr)[None]
        cols = jnp.arange((x.shape[2] - kc) // sc + 1)[:, None] * sc + jnp.arange(kc)[None]
        x = x[:, rows[:, None, :, None], cols[None, :, None, :]]  # [B, R', C', kr, kc]
        return x.reshape(*x.shape[:3], kr * kc)


def torch_uniform(key, shape, dtype=jnp.float32) -> Array:
    """torch's default initial kernel of a convolution or linear layer: U(+-1/sqrt(fan in))."""
    fan_in = 1
    for size in shape[:-1]:
        fan_in *= size
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)

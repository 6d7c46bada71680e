"""Building blocks shared by the model families, in the layout [B clip, T frame, F bin, C channel].

Statistics, norms and heads are in float32 for every compute dtype. Norms use the two-pass variance,
because E[x^2] - E[x]^2 loses all digits on log-mel input: its mean is much larger than its
deviation.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from asjax.config import AsjaxError, unknown
from asjax.nn import norms, ops, placement, plain
from asjax.nn.ops import product

Array = jax.Array


# ------------------------------------------------------------------------------ construction


def make(cls, variants: dict[str, dict], variant: str, over: dict):
    """Make `cls` with the fields of `variants[variant]`, overridden by `over`.

    Unknown names are errors. Lists (from JSON) become tuples and dtypes become their names, so that
    a module is hashable and equals the module that its saved config builds.
    """
    family = cls.__name__
    if variant not in variants:
        raise unknown(f"{family} variant", variant, variants)
    known = {f.name for f in dataclasses.fields(cls)} - {"parent", "name"}
    for key in over:
        if key not in known:
            raise unknown(f"{family} {variant}: field", key, known)
    fields = {**variants[variant], **over}
    if "dtype" in fields:
        fields["dtype"] = dtype_name(fields["dtype"])
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


def dtype_name(dtype) -> str:
    """The name of a compute dtype; AsjaxError unless it is float32, bfloat16 or float16."""
    try:
        name = jnp.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    if name not in ("float32", "bfloat16", "float16"):
        raise AsjaxError(f"dtype must be float32, bfloat16 or float16, got {name!r}")
    return name


def check_feats(feats, n_mels: int, family: str):
    """AsjaxError (at trace time) unless `feats` is [B, T >= 1, n_mels]."""
    if feats.ndim != 3 or feats.shape[1] == 0:
        raise AsjaxError(
            f"{family} features must be [batch, frames, mel bins] with at least one frame, "
            f"got shape {tuple(feats.shape)}"
        )
    if feats.shape[2] != n_mels:
        raise AsjaxError(
            f"{family} features must have {n_mels} mel bins, got {feats.shape[2]}; choose a "
            f"frontend with {n_mels} bins or build the model with n_mels={feats.shape[2]}"
        )


def pad_frames(x: Array, minimum: int) -> Array:
    """Zero-pad [B, T, ...] at the end to at least `minimum` frames.

    Use it after the input norm: there zero is the mean, and SpecAugment also writes zeros.
    """
    missing = minimum - x.shape[1]
    if missing <= 0:
        return x
    return jnp.pad(x, [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2))


# ------------------------------------------------------------------------------------- norms


class BatchNorm(nn.Module):
    """Batch normalisation over the last axis with PyTorch's running statistics.

    new = momentum * old + (1 - momentum) * batch. The running variance uses the unbiased batch
    variance (n - 1), but the batch is normalised by the biased one (n). Under jit over a mesh the
    batch is the global batch. `scale_init` allows zero-initialised residuals. `affine=False` has
    neither scale nor bias.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: str = "float32"
    scale_init: Callable = nn.initializers.ones
    affine: bool = True

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        width = x.shape[-1:]
        scale, bias = jnp.ones(width), jnp.zeros(width)
        if self.affine:
            scale = self.param("scale", self.scale_init, width)
            bias = self.param("bias", nn.initializers.zeros, width)
        mean = self.variable("batch_stats", "mean", jnp.zeros, width)
        var = self.variable("batch_stats", "var", jnp.ones, width)
        if not train or self.is_initializing():
            return self._apply(x, mean.value, var.value, scale, bias)
        y, *moments = norms.batch_norm(x, scale, bias, self.epsilon)
        batch_mean, batch_var = jax.lax.stop_gradient(moments)
        count, keep = x.size // x.shape[-1], self.momentum
        mean.value = keep * mean.value + (1 - keep) * batch_mean
        var.value = keep * var.value + (1 - keep) * batch_var * (count / max(count - 1, 1))
        return y.astype(self.dtype)

    def _apply(self, x, mean, var, scale, bias):
        factor = expand(scale * jax.lax.rsqrt(var + self.epsilon), x.ndim)
        y = (x.astype(jnp.float32) - expand(mean, x.ndim)) * factor + expand(bias, x.ndim)
        return y.astype(self.dtype)


def expand(vector: Array, ndim: int) -> Array:
    """[C] -> [1, ..., 1, C] with rank `ndim`, because the tests forbid rank promotion."""
    return vector.reshape((1,) * (ndim - 1) + (-1,))


class LayerNorm(nn.Module):
    """LayerNorm over the last axis, computed in float32.

    With `fork` the call returns (x, normed): the residual stream, and the input of the branch that
    is added to it (`ops.fork`).
    """

    dtype: str = "float32"
    epsilon: float = 1e-6
    fork: bool = False

    @nn.compact
    def __call__(self, x: Array):
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        scale, bias = expand(scale, x.ndim), expand(bias, x.ndim)
        x, y = ops.fork(x, scale.astype(jnp.float32), bias.astype(jnp.float32), self.epsilon)
        y = y.astype(self.dtype)
        return (x, y) if self.fork else y


def layer_norm(name: str, dtype: str, epsilon: float = 1e-6, fork: bool = False) -> LayerNorm:
    """A LayerNorm with this module name."""
    return LayerNorm(dtype, epsilon, fork, name=name)


# ------------------------------------------------------------------- products and convolutions


def _dot_general(x, kernel, dimension_numbers, precision=None):
    return product(x, kernel)


def _gelu_dot_general(x, kernel, dimension_numbers, precision=None):
    return product(x, kernel, gelu=True)


# nn.Dense computed by `product`; GeluDense first applies the exact GELU to x
Dense = functools.partial(nn.Dense, dot_general=_dot_general)
GeluDense = functools.partial(nn.Dense, dot_general=_gelu_dot_general)


class Conv(nn.Module):
    """Odd square convolution, stride 1, zero padding: [B, T, F, C] -> [B, T, F, width]."""

    width: int
    size: int
    dtype: str = "float32"
    kernel_init: Callable = nn.initializers.lecun_normal()
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.width)
        kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
        x = x.astype(self.dtype)
        y = product(x, kernel[0, 0]) if self.size == 1 else ops.conv(x, kernel)
        if not self.use_bias:
            return y
        bound = (self.size * self.size * shape[2]) ** -0.5  # torch's initial bias
        start = lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)  # noqa: E731
        return y + expand(self.param("bias", start, (self.width,)).astype(self.dtype), 4)


class PatchConv(nn.Module):
    """Convolution whose stride equals its kernel size, as a reshape and one matrix product.

    Rows and columns that do not fill a patch are dropped, as in a convolution. The kernel has the
    layout of nn.Conv, [kt, kf, C_in, C_out]. The gradient needs no dilated convolution, which is
    slow in XLA on CPU.
    """

    width: int
    kernel: tuple[int, int]
    dtype: str = "float32"
    kernel_init: Callable = nn.initializers.lecun_normal()
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kt, kf = self.kernel
        b, t, f, c = x.shape
        kernel = self.param("kernel", self.kernel_init, (kt, kf, c, self.width)).astype(self.dtype)
        if placement.in_graph():
            y = plain.conv(x.astype(self.dtype), kernel, self.kernel, "VALID")
        else:
            t, f = t // kt, f // kf
            x = x[:, : t * kt, : f * kf].astype(self.dtype)
            x = x.reshape(b, t, kt, f, kf, c).transpose(0, 1, 3, 2, 4, 5)
            x = x.reshape(b, t, f, kt * kf * c)
            y = product(x, kernel.reshape(-1, self.width))
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return y + expand(bias.astype(self.dtype), 4)


class DepthwiseConv(nn.Module):
    """Odd square depthwise convolution: [B, T, F, C] -> [B, T', F', C].

    `pads` are the zeros (before, after) along T and F; None means size // 2 on all sides. The
    kernel has the layout of nn.Conv, [k, k, 1, C].
    """

    size: int = 7
    dtype: str = "float32"
    kernel_init: Callable = nn.initializers.lecun_normal()
    strides: tuple[int, int] = (1, 1)
    pads: tuple[tuple[int, int], tuple[int, int]] | None = None
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, 1, width))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        pads = self.pads or ((self.size // 2,) * 2,) * 2
        y = ops.depthwise(x, kernel, self.strides, pads)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (width,))
        return y + expand(bias.astype(self.dtype), 4)


def avg_pool(x: Array, pool: tuple[int, int]) -> Array:
    """[B, T, F, C] -> [B, T // pt, F // pf, C]; incomplete windows are dropped."""
    pt, pf = pool
    if (pt, pf) == (1, 1):
        return x
    if placement.in_graph():
        return nn.avg_pool(x, pool, pool)
    b, t, f, c = x.shape
    t, f = t // pt, f // pf
    return x[:, : t * pt, : f * pf].reshape(b, t, pt, f, pf, c).mean((2, 4))


def max_pool(x: Array, window: tuple[int, int], strides=None, pads=((0, 0), (0, 0))) -> Array:
    """[B, T, F, C] -> [B, T', F', C]; the default strides equal the window.

    Padding is never the maximum. Incomplete windows are dropped. The first of equal maxima takes
    the gradient.
    """
    return ops.max_pool(x, window, strides or window, pads)


def max_mean(x: Array) -> Array:
    """Clip pooling of PANNs: [B, T, D] -> [B, D], maximum plus mean over time."""
    return x.max(1) + x.mean(1)


class DropPath(nn.Module):
    """Stochastic depth: in training, drop the whole branch of a clip with probability `rate`."""

    rate: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        if not train or self.rate == 0:
            return x
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, shape)
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros_like(x))


def remat(block, module, static=(2,)):
    """Wrap `block` so that the backward pass recomputes its activations, if `module.remat` is set.

    `static` lists the positions of call arguments that are not arrays; self is 0, and 2 is `train`
    in most blocks. Pass these arguments by position.
    """
    return nn.remat(block, static_argnums=static) if module.remat else block


def divisible(width: float, by: int = 8) -> int:
    """Round `width` to a multiple of `by`, at least `by` and at most 10 % below `width`."""
    rounded = max(by, int(width + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * width else rounded

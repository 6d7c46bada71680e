"""Building blocks shared by the model families, in the layout [B clip, T frame, F bin, C channel].

Statistics, norms and heads stay in float32 whatever the compute dtype. Norms take the two-pass
variance: E[x^2] - E[x]^2 loses every digit on log-mel input, whose mean dwarfs its deviation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from asjax.config import AsjaxError, unknown

Array = jax.Array


# ------------------------------------------------------------------------------ construction


def make(cls, variants: dict[str, dict], variant: str, over: dict):
    """`cls` with the fields of `variants[variant]`, then `over`; unknown names are errors.

    Lists (from JSON) become tuples and dtypes become their names, so that a module is hashable
    and equal to the one its saved config builds.
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
    """[B, T, ...] zero-padded at the end to `minimum` frames; longer input is returned as it is.

    Used after the input norm, where zero is the mean frame and the value SpecAugment writes.
    """
    missing = minimum - x.shape[1]
    if missing <= 0:
        return x
    return jnp.pad(x, [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2))


# ------------------------------------------------------------------------------------- norms


class BatchNorm(nn.Module):
    """Batch normalisation over the last axis with PyTorch's running statistics.

    new = momentum * old + (1 - momentum) * batch, where the running variance takes the unbiased
    batch variance n / (n - 1) while the batch itself is normalised by the biased one. Under jit
    over a mesh the batch is the global batch. `scale_init` serves zero-initialised residuals.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: str = "float32"
    scale_init: Callable = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        width = x.shape[-1:]
        scale = self.param("scale", self.scale_init, width)
        bias = self.param("bias", nn.initializers.zeros, width)
        mean = self.variable("batch_stats", "mean", jnp.zeros, width)
        var = self.variable("batch_stats", "var", jnp.ones, width)
        if not train or self.is_initializing():
            return self._apply(x, mean.value, var.value, scale, bias)
        x32 = x.astype(jnp.float32)
        axes = tuple(range(x.ndim - 1))
        count = x.size // x.shape[-1]
        batch_mean = x32.mean(axes)
        batch_var = jnp.square(x32 - expand(batch_mean, x.ndim)).mean(axes)
        unbiased = jax.lax.stop_gradient(batch_var) * (count / max(count - 1, 1))
        keep = self.momentum
        mean.value = keep * mean.value + (1 - keep) * jax.lax.stop_gradient(batch_mean)
        var.value = keep * var.value + (1 - keep) * unbiased
        return self._apply(x, batch_mean, batch_var, scale, bias)

    def _apply(self, x, mean, var, scale, bias):
        factor = expand(scale * jax.lax.rsqrt(var + self.epsilon), x.ndim)
        y = (x.astype(jnp.float32) - expand(mean, x.ndim)) * factor + expand(bias, x.ndim)
        return y.astype(self.dtype)


def expand(vector: Array, ndim: int) -> Array:
    """[C] -> [1, ..., 1, C] of rank `ndim` (rank promotion is an error in the tests)."""
    return vector.reshape((1,) * (ndim - 1) + (-1,))


def layer_norm(name: str, dtype: str, epsilon: float = 1e-6) -> nn.LayerNorm:
    """LayerNorm over the last axis, float32 statistics by the two-pass variance."""
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


# ------------------------------------------------------------------------------ convolutions


class PatchConv(nn.Module):
    """Convolution whose stride equals its kernel: a reshape and one matrix product.

    Rows and columns that do not fill a patch are dropped, as a convolution drops them. The kernel
    is stored as nn.Conv stores it, [kt, kf, C_in, C_out]. Exact, and its gradient needs no dilated
    convolution (the slow case of XLA on CPU).
    """

    width: int
    kernel: tuple[int, int]
    dtype: str = "float32"
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kt, kf = self.kernel
        b, t, f, c = x.shape
        kernel = self.param("kernel", self.kernel_init, (kt, kf, c, self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        t, f = t // kt, f // kf
        x = x[:, : t * kt, : f * kf].astype(self.dtype)
        x = x.reshape(b, t, kt, f, kf, c).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(b, t, f, kt * kf * c)
        y = x @ kernel.reshape(-1, self.width).astype(self.dtype)
        return y + expand(bias.astype(self.dtype), 4)


class DepthwiseConv(nn.Module):
    """Odd square depthwise convolution with bias, stride 1, zero padding: [B, T, F, C] -> same.

    The kernel is stored as nn.Conv stores it, [k, k, 1, C]. On the CPU XLA's own depthwise
    convolution is slow (jax 0.10.2, one core, 4 x 252 x 56 x 48: 191 ms forward and 620 ms
    backward, against 10 and 50 here), so there it is a sum of shifted slices; elsewhere it is the
    library's.
    """

    size: int = 7
    dtype: str = "float32"
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, 1, width))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = jax.lax.platform_dependent(x, kernel, cpu=depthwise_shifts, default=depthwise_conv)
        return y + expand(bias.astype(self.dtype), 4)


def depthwise_conv(x: Array, kernel: Array) -> Array:
    """[B, T, F, C] * [k, k, 1, C] by the library, same size out."""
    dims, pad, width = ("NHWC", "HWIO", "NHWC"), kernel.shape[0] // 2, x.shape[-1]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        ((pad, pad), (pad, pad)),
        dimension_numbers=dims,
        feature_group_count=width,
    )


@jax.custom_vjp
def depthwise_shifts(x: Array, kernel: Array) -> Array:
    """`depthwise_conv` as k * k shifted multiply-adds in float32, one fused loop on the CPU."""
    size = kernel.shape[0]
    t, f = x.shape[1:3]
    padded = _pad_grid(x, size // 2)
    y = 0.0
    for i in range(size):
        for j in range(size):
            tap = expand(kernel[i, j].astype(jnp.float32), 4)
            y = y + padded[:, i : i + t, j : j + f].astype(jnp.float32) * tap
    return y.astype(x.dtype)


def _depthwise_forward(x, kernel):
    return depthwise_shifts(x, kernel), (x, kernel)


def _depthwise_backward(saved, g):
    """dx is the convolution with the turned kernel; dk adds up one row of frames at a time.

    Row by row because XLA reduces a shifted product one number after the other; the sum over the
    batch comes last, so that a batch sharded over devices stays where it is.
    """
    x, kernel = saved
    size = kernel.shape[0]
    b, t, f, c = x.shape
    padded = _pad_grid(x, size // 2)

    def add_row(sums, row):
        window = jax.lax.dynamic_slice_in_dim(padded, row, size, 1).astype(jnp.float32)
        g_row = jax.lax.dynamic_slice_in_dim(g, row, 1, 1).astype(jnp.float32)
        return tuple(s + window[:, :, j : j + f] * g_row for j, s in enumerate(sums)), None

    zeros = tuple(jnp.zeros((b, size, f, c), jnp.float32) for _ in range(size))
    sums, _ = jax.lax.scan(add_row, zeros, jnp.arange(t))
    dk = jnp.stack([s.sum((0, 2)) for s in sums], 1)[:, :, None]
    return depthwise_shifts(g, kernel[::-1, ::-1]), dk.astype(kernel.dtype)


depthwise_shifts.defvjp(_depthwise_forward, _depthwise_backward)


def _pad_grid(x, pad):
    return jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))


def avg_pool(x: Array, pool: tuple[int, int]) -> Array:
    """[B, T, F, C] -> [B, T // pt, F // pf, C]; what does not fill a window is dropped."""
    pt, pf = pool
    if (pt, pf) == (1, 1):
        return x
    b, t, f, c = x.shape
    t, f = t // pt, f // pf
    return x[:, : t * pt, : f * pf].reshape(b, t, pt, f, pf, c).mean((2, 4))


def max_mean(x: Array) -> Array:
    """Clip pooling of PANNs: [B, T, D] -> [B, D], maximum plus mean over time."""
    return x.max(1) + x.mean(1)


class DropPath(nn.Module):
    """Stochastic depth: in training, the whole branch of a clip is dropped with `rate`."""

    rate: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        if not train or self.rate == 0:
            return x
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, shape)
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros_like(x))

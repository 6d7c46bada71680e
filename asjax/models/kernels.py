"""Forms of a convolution, GELU and attention that XLA runs well on the CPU, with gradients.

Times: jax 0.10.2, one core. XLA's own gradient of a convolution's kernel is slow there (2 x 500 x
32, 5x5, 64 to 128 channels: 278 ms, as below 131). XLA also fuses a cheap-looking producer into
every consumer, computing it again in each pass of a norm, each matrix product and each bias
gradient: GELU's erf is not cheap. It fuses across everything but a loop, so it runs in a loop of
two halves. All are exact, and a batch sharded over devices stays where it is. The depthwise
convolution has a file of its own, depthwise.py.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array

# ---------------------------------------------------------------------------------- convolution


def conv(x: Array, kernel: Array) -> Array:
    """[B, T, F, C] * [k, k, C, O] -> [B, T, F, O]: odd k, stride 1, zero padding."""
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((pad, pad), (pad, pad)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@jax.custom_vjp
def conv_matmul(x: Array, kernel: Array) -> Array:
    """`conv`, with the gradient of its kernel as matrix products."""
    return conv(x, kernel)


def _conv_forward(x, kernel):
    return conv(x, kernel), (x, kernel)


def _conv_backward(saved, g):
    x, kernel = saved
    (dx,) = jax.vjp(lambda x: conv(x, kernel), x)[1](g)
    if kernel.shape[2] == 1:  # one channel in: nothing to multiply, XLA's form is quicker
        return dx, jax.vjp(lambda k: conv(x, k), kernel)[1](g)[0]
    return dx, _kernel_gradient(x, g, kernel.shape[0]).astype(kernel.dtype)


conv_matmul.defvjp(_conv_forward, _conv_backward)


def device_groups(batch: int) -> int:
    """Parts of a batch that are summed apart in a loop: one per device, where that divides it.

    A sum over the whole batch would be an all-reduce in every turn of the loop. That is slow, and
    XLA orders collectives of a loop against those outside as each device gets to them, so that two
    devices may wait for each other for ever (seen with ResNets and CRNNs on two CPU devices).
    """
    devices = jax.device_count()
    return devices if batch % devices == 0 else 1


def _kernel_gradient(x, g, size):
    """dk[i, j, c, o] = sum over b, t, f of x[b, t + i - p, f + j - p, c] g[b, t, f, o].

    The rows of x, shifted along f by every j, times the rows of g, shifted along t by every i, give
    all taps in one product [size C, rows] x [rows, size O], taken a few frames at a time.
    """
    b, t, f, c = x.shape
    width, pad = g.shape[-1], size // 2
    groups = device_groups(b)
    frames = max(1, max(1024, 16 * c) // (b * f))  # about the rows that stay in cache
    frames = min(frames, t + size - 1)
    steps = -(-(t + size - 1) // frames)
    extra = steps * frames - (t + size - 1)
    x = _pad_grid(x, pad, extra)
    g = jnp.pad(g, ((0, 0), (size - 1, size - 1 + extra), (0, 0), (0, 0)))

    def add(total, step):
        rows = jax.lax.dynamic_slice_in_dim(x, step * frames, frames, 1)
        rows = jnp.concatenate([rows[:, :, j : j + f] for j in range(size)], -1)
        out = jax.lax.dynamic_slice_in_dim(g, step * frames, frames + size - 1, 1)
        out = jnp.concatenate([out[:, i : i + frames] for i in reversed(range(size))], -1)
        rows, out = (a.reshape(groups, b // groups, *a.shape[1:]) for a in (rows, out))
        product = jnp.einsum("nbtfc,nbtfo->nco", rows, out, preferred_element_type=jnp.float32)
        return total + product, None

    zero = jnp.zeros((groups, size * c, size * width), jnp.float32)
    total, _ = jax.lax.scan(add, zero, jnp.arange(steps))
    total = total.sum(0)
    return total.reshape(size, c, size, width).transpose(2, 0, 1, 3)


def _pad_grid(x, pad, more_frames=0):
    return jnp.pad(x, ((0, 0), (pad, pad + more_frames), (pad, pad), (0, 0)))


# ---------------------------------------------------------------------------------------- gelu


def gelu(x: Array) -> Array:
    """x * Phi(x), by erfc: exact in the negative tail too. Computed in float32."""
    x32 = x.astype(jnp.float32)
    return (0.5 * x32 * jax.lax.erfc(-x32 * _SQRT_HALF)).astype(x.dtype)


_SQRT_HALF = 0.5**0.5
_NORMAL = 0.3989422804014327  # 1 / sqrt(2 pi)


@jax.custom_vjp
def gelu_apart(x: Array) -> Array:
    """`gelu` fused with nothing around it."""
    return _by_halves(gelu, x)


def _gelu_forward(x):
    return gelu_apart(x), x


def _gelu_backward(x, g):
    def pull(g, x):
        x = x.astype(jnp.float32)
        slope = 0.5 * jax.lax.erfc(-x * _SQRT_HALF) + x * jnp.exp(-0.5 * x * x) * _NORMAL
        return (g.astype(jnp.float32) * slope).astype(g.dtype)

    return (_by_halves(pull, g, x),)


gelu_apart.defvjp(_gelu_forward, _gelu_backward)


def _by_halves(function, first, *others):
    """An elementwise function in a loop over two halves of the last axis, in place of `first`."""
    width = first.shape[-1]
    if width % 2:
        return function(first, *others)
    half = width // 2

    def step(out, part):
        cut = [
            jax.lax.dynamic_slice_in_dim(x, part * half, half, x.ndim - 1) for x in (out, *others)
        ]
        done = function(*cut)
        return jax.lax.dynamic_update_slice_in_dim(out, done, part * half, out.ndim - 1), None

    return jax.lax.scan(step, first, jnp.arange(2))[0]


# -------------------------------------------------------------------------------- attention


def attention(q, k, v, bias):
    """softmax(q k^T / sqrt(d) + bias) v over [B, S, N, d], as XLA differentiates it."""
    return jax.nn.dot_product_attention(q, k, v, bias=bias, implementation="xla")


@jax.custom_vjp
def attention_explicit(q, k, v, bias):
    """The same with its gradient written out: XLA on CPUs takes three times as long for the
    gradient of the softmax that it derives (474 tokens, 12 heads: 62 against 21 ms)."""
    return _attention_forward(q, k, v, bias)[0]


def _attention_forward(q, k, v, bias):
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))  # [B, N, S, d]
    scores = jnp.einsum("bnqd,bnkd->bnqk", q, k, preferred_element_type=jnp.float32)
    scores = scores * q.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias
    p = jax.nn.softmax(scores).astype(v.dtype)
    out = jnp.einsum("bnqk,bnkd->bnqd", p, v)
    return out.swapaxes(1, 2), (q, k, v, p, out, bias)


def _attention_backward(kept, grad):
    q, k, v, p, out, bias = kept
    grad = grad.swapaxes(1, 2)
    dv = jnp.einsum("bnqk,bnqd->bnkd", p, grad)
    dp = jnp.einsum("bnqd,bnkd->bnqk", grad, v, preferred_element_type=jnp.float32)
    mean = jnp.sum(grad.astype(jnp.float32) * out.astype(jnp.float32), -1, keepdims=True)
    ds = p.astype(jnp.float32) * (dp - mean)
    dbias = None if bias is None else _unbroadcast(ds, bias)
    ds = (ds * q.shape[-1] ** -0.5).astype(q.dtype)
    dq = jnp.einsum("bnqk,bnkd->bnqd", ds, k)
    dk = jnp.einsum("bnqk,bnqd->bnkd", ds, q)
    return *(x.swapaxes(1, 2) for x in (dq, dk, dv)), dbias


def _unbroadcast(x, like):
    """Sum `x` over the axes along which `like` was broadcast to it."""
    axes = tuple(i for i, size in enumerate(like.shape) if size == 1 and x.shape[i] > 1)
    return x.sum(axes, keepdims=True).astype(like.dtype)


attention_explicit.defvjp(_attention_forward, _attention_backward)

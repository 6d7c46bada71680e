"""Products, convolutions, GELU and max pooling in forms that XLA runs well on CPUs, with gradients.

Times: jax 0.10.2, one core. XLA's own gradient of a convolution's kernel is slow there (2 x 500 x
32, 5x5, 64 to 128 channels: 278 ms, as below 131). XLA also fuses a cheap-looking producer into
every consumer, computing it again in each pass of a norm, each matrix product and each bias
gradient: GELU's erf is not cheap. It fuses across everything but a loop, so it runs in a loop of
two halves. A training step's temporaries are fresh pages each time, so what is cheap to compute
again is not kept. All are exact, and a batch sharded over devices stays where it is. depthwise.py,
attention.py and norms.py hold more of the kind.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Pair = tuple[int, int]


def on_cpu() -> bool:
    """Whether what is traced now will run on CPUs.

    Asked while tracing: jax.lax.platform_dependent leaves a conditional of one branch around every
    form in the backward pass, through which XLA neither fuses nor joins collectives.
    """
    return jax.default_backend() == "cpu"


# ------------------------------------------------------------------------------ matrix product


def product(x: Array, kernel: Array) -> Array:
    """[..., I] @ [I, O] -> [..., O]."""
    return jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


@jax.custom_vjp
def product_upright(x: Array, kernel: Array) -> Array:
    """`product`, with the gradient of its kernel made as [I, O]: jax makes [O, I] and turns it, and
    XLA on CPUs then reads it across rows in each pass of the optimiser (1024 x 1024: 90 ms)."""
    return product(x, kernel)


def _product_forward(x, kernel):
    return product(x, kernel), (x, kernel)


def _product_backward(saved, g):
    x, kernel = saved
    return _input_gradient(kernel, g), _upright_gradient(x, g)


def _input_gradient(kernel, g):
    return jax.lax.dot_general(g, kernel, (((g.ndim - 1,), (1,)), ((), ())))


def _upright_gradient(x, g):
    rows = tuple(range(x.ndim - 1))
    return jax.lax.dot_general(x, g, ((rows, rows), ((), ())))


product_upright.defvjp(_product_forward, _product_backward)

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
    """x * Phi(x), by erf as torch has it. Computed in float32."""
    x32 = x.astype(jnp.float32)
    return (x32 * _normal_cdf(x32)).astype(x.dtype)


def _normal_cdf(x):
    return 0.5 + 0.5 * jax.lax.erf(x * 0.5**0.5)


def gelu_product(x: Array, kernel: Array) -> Array:
    """[..., I], [I, O] -> [..., O]: GELU(x) @ kernel."""
    return product(gelu(x), kernel)


@jax.custom_vjp
def gelu_product_apart(x: Array, kernel: Array) -> Array:
    """The same, where GELU is fused with nothing around it and computed again in the backward pass:
    that is quicker than the page faults of keeping it."""
    return product(_by_halves(gelu, x), kernel)


def _gelu_product_forward(x, kernel):
    return gelu_product_apart(x, kernel), (x, kernel)


def _gelu_product_backward(saved, g):
    x, kernel = saved

    def pull(dy, x):
        x = x.astype(jnp.float32)
        slope = _normal_cdf(x) + x * jnp.exp(-0.5 * x * x) * (0.5 / jnp.pi) ** 0.5
        return (dy.astype(jnp.float32) * slope).astype(dy.dtype)

    dx = _by_halves(pull, _input_gradient(kernel, g), x)
    # Reading dx too, or XLA makes it in the forward pass already and keeps it.
    y = _by_halves(lambda x, dx: jnp.where(jnp.isnan(dx), dx, gelu(x)), x, dx)
    return dx, _upright_gradient(y, g)


gelu_product_apart.defvjp(_gelu_product_forward, _gelu_product_backward)


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


# ------------------------------------------------------------------------------------ max pooling


def max_pool(x: Array, window: Pair, strides: Pair, pads: tuple[Pair, Pair]) -> Array:
    """Maximum over windows of [B, T, F, C], as XLA differentiates it."""
    return nn.max_pool(x, window, strides, pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool_indexed(x: Array, window: Pair, strides: Pair, pads: tuple[Pair, Pair]) -> Array:
    """The same, keeping which place of a window won (XLA on CPUs keeps four indices for every
    element of x and scatters: 4 x 400 x 64 x 32, 2x2, with the gradient: 112 against 12 ms)."""
    return max_pool(x, window, strides, pads)


def _max_pool_forward(x, window, strides, pads):
    taps = _taps(x, window, strides, pads)
    best, place = taps[0], jnp.zeros(taps[0].shape, jnp.uint8)
    for i, tap in enumerate(taps[1:], 1):
        better = (tap > best) | (tap != tap)  # NaN goes through, as in the plain form
        best, place = jnp.where(better, tap, best), jnp.where(better, jnp.uint8(i), place)
    return best, (place, jnp.zeros((0, *x.shape[1:]), x.dtype))


def _max_pool_backward(window, strides, pads, kept, g):
    """Places a, a + st ... of the padded map are in the windows' taps a, a + st ...: a sum of a few
    shifted gradients for each of the st x sf sets of places."""
    place, like = kept
    (st, sf), (kt, kf) = strides, window
    (b, _, _, c), (t, f) = g.shape, like.shape[1:3]
    rows, columns = -(-(t + sum(pads[0])) // st), -(-(f + sum(pads[1])) // sf)
    over = (kt - 1) // st, (kf - 1) // sf  # windows before a place that reach it
    rows += rows % 2 if any(over) else 0

    def scatter(g, place, rows):
        """[B, over + rows, over + columns, C] -> the gradient of `rows` x `columns` strides."""
        sets = []
        for a in range(st):
            for e in range(sf):
                total = jnp.zeros((b, rows, columns, c), g.dtype)
                for i in range(a, kt, st):
                    for j in range(e, kf, sf):
                        at = over[0] - i // st, over[1] - j // sf
                        cut = np.s_[:, at[0] : at[0] + rows, at[1] : at[1] + columns]
                        total = total + jnp.where(place[cut] == i * kf + j, g[cut], 0)
                sets.append(total)
        return jnp.stack(sets, 3).reshape(b, rows, columns, st, sf, c).swapaxes(2, 3)

    def half(dx, start):
        parts = (jax.lax.dynamic_slice_in_dim(x, start, rows // 2 + over[0], 1) for x in (g, place))
        return jax.lax.dynamic_update_slice_in_dim(dx, scatter(*parts, rows // 2), start, 1), None

    after = rows - g.shape[1], columns - g.shape[2]
    edges = [(0, 0, 0), *((o, n, 0) for o, n in zip(over, after, strict=True)), (0, 0, 0)]
    g = jax.lax.pad(g, jnp.zeros((), g.dtype), edges)
    place = jax.lax.pad(place, jnp.uint8(255), edges)
    if any(over):  # in halves: XLA fuses the edges into every shift, but not across a loop
        dx = jnp.zeros((b, rows, st, columns, sf, c), g.dtype)
        dx, _ = jax.lax.scan(half, dx, jnp.array([0, rows // 2]))
    else:
        dx = scatter(g, place, rows)
    dx = dx.reshape(b, rows * st, columns * sf, c)
    (top, _), (left, _) = pads
    return (dx[:, top : top + t, left : left + f].astype(like.dtype),)


def _taps(x, window, strides, pads):
    """The windows' places in order, each [B, T', F', C]."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    counts = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:3], window, strides, strict=True)]
    spans = [(n - 1) * s + 1 for n, s in zip(counts, strides, strict=True)]
    return [
        x[:, i : i + spans[0] : strides[0], j : j + spans[1] : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]


max_pool_indexed.defvjp(_max_pool_forward, _max_pool_backward)

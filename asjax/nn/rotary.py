"""A pre-norm transformer with rotary position embeddings (Su et al. 2021)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from asjax.config import AsjaxError
from asjax.nn import layers, vit

_HEAD = 64  # width of a head


def rotate(x, base: float = 10_000.0):
    """Rotate queries or keys [B, S, N, d]: pair i at position s by the angle s / base^(2i / d).

    Pair i consists of elements i and i + d // 2. The product of a query and a key then depends only
    on the distance of their positions.
    """
    half = x.shape[-1] // 2
    angle = np.arange(x.shape[1])[:, None] * base ** (-np.arange(half) / half)
    cos, sin = (jnp.asarray(f(angle), x.dtype)[None, :, None] for f in (np.cos, np.sin))
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


class Block(nn.Module):
    """x += attention(norm1 x); x += mlp(norm2 x): [B, S, D] -> (same, None), for `nn.scan`."""

    heads: int
    backend: str = "auto"
    dtype: str = "float32"
    train: bool = False

    @nn.compact
    def __call__(self, x, mask=None):
        b, s, width = x.shape
        dense = lambda n, name: layers.Dense(  # noqa: E731
            n, dtype=self.dtype, kernel_init=vit.normal, name=name
        )
        x, y = layers.layer_norm("norm1", self.dtype, fork=True)(x)
        parts = jnp.split(dense(3 * width, "qkv")(y), 3, -1)
        q, k, v = (part.reshape(b, s, self.heads, -1) for part in parts)
        hidden = None if mask is None else mask[:, None, None, :]
        y = vit.attend(rotate(q), rotate(k), v, mask=hidden, backend=self.backend)
        x = x + dense(width, "proj")(y.reshape(b, s, width))
        x, y = layers.layer_norm("norm2", self.dtype, fork=True)(x)
        x = x + vit.Mlp(4 * width, self.dtype, vit.normal, train=self.train, name="mlp")(y)
        return x, None


class Encoder(nn.Module):
    """`depth` blocks and a norm: [B, S, I] -> [B, S, width], float32.

    If I differs from `width`, a linear layer comes first. `mask` [B, S] hides padding. The head
    width is 64; a smaller `width` has one head.
    """

    width: int
    depth: int = 2
    attention: str = "auto"
    dtype: str = "float32"
    scan_layers: bool | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, x, mask=None, train: bool = False):
        heads = max(1, self.width // _HEAD)
        if self.width % (2 * heads):
            raise AsjaxError(
                f"a transformer's width must be even, and above {_HEAD} a multiple of {_HEAD}, "
                f"got {self.width}"
            )
        if x.shape[-1] != self.width:
            start = vit.normal
            x = layers.Dense(self.width, dtype=self.dtype, kernel_init=start, name="input")(x)
        options = (heads, self.attention, self.dtype, train)
        blocks = vit.stacked(Block, self, nn.broadcast, train, x)(*options, name="blocks")
        x, _ = blocks(x.astype(self.dtype), mask)
        return layers.layer_norm("norm", "float32")(x.astype(jnp.float32))


def rules(theirs: str, ours: str) -> tuple:
    """Port rules of an `Encoder`: `theirs` is the pattern of its torch name, `ours` our path."""
    block = theirs + r"\.blocks\.(\d+)\."
    return (
        (block + r"norm([12])", ours + r"/blocks[\1]/norm\2", "norm"),
        (block + r"(qkv|proj)", ours + r"/blocks[\1]/\2", "linear"),
        (block + r"mlp\.(fc[12])", ours + r"/blocks[\1]/mlp/\2", "linear"),
        (theirs + r"\.input", ours + "/input", "linear"),
        (theirs + r"\.norm", ours + "/norm", "norm"),
    )

"""Inverted bottlenecks of MobileNetV3-Large for EfficientAT's MobileNets and Frame-MobileNets.

See Howard et al. 2019 and Schmid, Koutini & Widmer 2023. Maps are [B, F, T, C], as in the authors'
code.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from asjax.nn import layers

# kernel, expanded width, width, squeeze and excite, activation; for width multiplier 1
BLOCKS = (
    (3, 16, 16, False, "relu"),
    (3, 64, 24, False, "relu"),
    (3, 72, 24, False, "relu"),
    (5, 72, 40, True, "relu"),
    (5, 120, 40, True, "relu"),
    (5, 120, 40, True, "relu"),
    (3, 240, 80, False, "hard_swish"),
    (3, 200, 80, False, "hard_swish"),
    (3, 184, 80, False, "hard_swish"),
    (3, 184, 80, False, "hard_swish"),
    (3, 480, 112, True, "hard_swish"),
    (3, 672, 112, True, "hard_swish"),
    (5, 672, 160, True, "hard_swish"),
    (5, 960, 160, True, "hard_swish"),
    (5, 960, 160, True, "hard_swish"),
)

kaiming = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
small = nn.initializers.normal(0.01)


def rules(prefix: str = "") -> tuple:
    """Port rules of the authors' `features`; the pattern `prefix` comes before it."""
    at = prefix + r"features\."
    return (
        (at + r"0\.0", "stem/conv", "conv"),
        (at + r"0\.1", "stem/bn", "norm"),
        (at + r"16\.0", "last/conv", "conv"),
        (at + r"16\.1", "last/bn", "norm"),
        (at + r"(\d+)\.block\.(\d)\.0", r"block\1/conv\2", "conv"),
        (at + r"(\d+)\.block\.(\d)\.1", r"block\1/bn\2", "norm"),
        (at + r"(\d+)\.block\.(\d)\.conc_se_layers\.0\.(fc[12])", r"block\1/se\2_\3", "linear"),
    )


def norm(name: str, dtype: str) -> layers.BatchNorm:
    """The authors' batch norm."""
    return layers.BatchNorm(momentum=0.99, epsilon=1e-3, dtype=dtype, name=name)


def pointwise(width: int, dtype: str, name: str) -> layers.Conv:
    """1x1 convolution without bias."""
    return layers.Conv(width, 1, dtype, kaiming, name=name)


class Bottleneck(nn.Module):
    """Inverted residual block: [B, F, T, C] -> [B, F', T', width]; strides are (F, T).

    Submodules have the numbers of the authors' Sequential: conv0 expands, the next is depthwise,
    then squeeze and excite, then the projection. Without expansion there is no first layer, and the
    depthwise one is conv0.
    """

    kernel: int
    expanded: int
    width: int
    squeeze: bool
    activation: str
    strides: tuple[int, int] = (1, 1)
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train: bool):
        act = getattr(jax.nn, self.activation)
        y, at = x, 0
        if self.expanded != x.shape[-1]:
            y = pointwise(self.expanded, self.dtype, "conv0")(y)
            y, at = act(norm("bn0", self.dtype)(y, train)), 1
        y = layers.DepthwiseConv(
            self.kernel,
            self.dtype,
            kaiming,
            strides=self.strides,
            use_bias=False,
            name=f"conv{at}",
        )(y)
        y = act(norm(f"bn{at}", self.dtype)(y, train))
        if self.squeeze:
            at += 1
            y = self._excite(y, f"se{at}")
        y = pointwise(self.width, self.dtype, f"conv{at + 1}")(y)
        y = norm(f"bn{at + 1}", self.dtype)(y, train)
        return y + x if self.strides == (1, 1) and x.shape[-1] == self.width else y

    def _excite(self, y, name):
        narrow = layers.divisible(self.expanded // 4)
        s = y.astype(jnp.float32).mean((1, 2), keepdims=True)
        s = nn.relu(layers.Dense(narrow, kernel_init=small, name=f"{name}_fc1")(s))
        s = nn.sigmoid(layers.Dense(self.expanded, kernel_init=small, name=f"{name}_fc2")(s))
        return y * s.astype(y.dtype)


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, hardswish."""

    width: int
    kernel: int = 1
    stride: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train: bool):
        if self.kernel == 1:
            y = pointwise(self.width, self.dtype, "conv")(x)
        else:
            y = nn.Conv(
                self.width,
                (self.kernel, self.kernel),
                strides=self.stride,
                padding=self.kernel // 2,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=kaiming,
                name="conv",
            )(x)
        return jax.nn.hard_swish(norm("bn", self.dtype)(y, train))

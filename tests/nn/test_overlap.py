"""A long grouped convolution in blocks against float64 loops and XLA's gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asjax.nn import overlap


def _naive(x, kernel, groups):
    taps, inner, width = kernel.shape
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (taps // 2, taps), (0, 0)))
    outer, out = width // groups, np.zeros((*x.shape[:2], width))
    for g in range(groups):
        part = padded[..., g * inner : (g + 1) * inner]
        mine = kernel[..., g * outer : (g + 1) * outer].astype(np.float64)
        for s in range(x.shape[1]):
            cut = part[:, s : s + taps]
            out[:, s, g * outer : (g + 1) * outer] = np.einsum("bki,kio->bo", cut, mine)
    return out


def _random(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("rows", "taps", "groups"),
    [(50, 16, 2), (1, 8, 1), (9, 8, 2), (8, 8, 4), (33, 7, 2), (3, 16, 1)],
)
def test_every_row_equals_loops_in_float64(rows, taps, groups):
    x, kernel = _random(2, rows, 8), _random(taps, 8 // groups, 8)
    want = _naive(x, kernel, groups)
    got = overlap.correlate(x, kernel, groups)
    assert got.shape == want.shape
    assert np.linalg.norm(got - want) < 1e-6 * np.linalg.norm(want)


def test_gradients_equal_those_of_the_librarys_convolution():
    x, kernel = _random(2, 40, 8), _random(16, 4, 8)

    def library(x, kernel):
        y = jax.lax.conv_general_dilated(
            x, kernel, (1,), [(8, 8)], dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=2,
        )  # fmt: skip
        return jnp.sin(y[:, :-1]).sum()

    ours = lambda x, kernel: jnp.sin(overlap.correlate(x, kernel, 2)).sum()  # noqa: E731
    for got, want in zip(
        jax.grad(ours, (0, 1))(x, kernel), jax.grad(library, (0, 1))(x, kernel), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)

"""Mel energies by a transform in two stages, against numpy's float64 FFT of naive frames."""

import jax.numpy as jnp
import numpy as np
import pytest

from asjax import frontends, nn
from asjax.frontends import _factored

# n_fft, window, hop: the hop shares a factor with n_fft or not; odd, prime and tiny sizes
SIZES = [
    (1024, 1024, 320), (1024, 800, 320), (1024, 800, 100), (512, 400, 160), (400, 400, 160),
    (4096, 1024, 400), (320, 320, 80), (45, 45, 9), (31, 31, 7), (16, 5, 3), (2, 2, 1),
]  # fmt: skip


def naive(wave, window, hop, count):
    """Power [B, count, n_fft // 2 + 1] in float64."""
    n_fft = len(window)
    frames = np.stack([wave[:, t * hop : t * hop + n_fft] for t in range(count)], 1)
    return np.abs(np.fft.rfft(frames.astype(np.float64) * window, n_fft)) ** 2


@pytest.mark.parametrize(("n_fft", "inside", "hop"), SIZES)
def test_mel_of_a_wave_is_that_of_a_float64_fft(n_fft, inside, hop):
    rng, count = np.random.default_rng(n_fft), 6
    wave = rng.standard_normal((2, (count - 1) * hop + n_fft)).astype(np.float32)
    left = (n_fft - inside) // 2
    taper = rng.uniform(0.1, 1, inside)
    window = np.pad(taper, (left, n_fft - inside - left)).astype(np.float32)
    filters = rng.uniform(0, 1, (n_fft // 2 + 1, 5)).astype(np.float32)
    expected = naive(wave, window, hop, count) @ filters.astype(np.float64)
    found = np.asarray(_factored.mel(jnp.asarray(wave), window, hop, count, filters))
    np.testing.assert_allclose(found, expected, rtol=3e-6 * np.log2(2 * n_fft))


@pytest.mark.parametrize(("n_fft", "size"), [(512, 400), (400, 400), (64, 33), (7, 5)])
def test_mel_of_frames_is_that_of_a_float64_fft(n_fft, size):
    rng = np.random.default_rng(size)
    frames = rng.standard_normal((2, 3, size)).astype(np.float32)
    filters = rng.uniform(0, 1, (n_fft // 2 + 1, 4)).astype(np.float32)
    power = np.abs(np.fft.rfft(frames.astype(np.float64), n_fft)) ** 2
    found = np.asarray(_factored.mel_of_frames(jnp.asarray(frames), n_fft, filters))
    np.testing.assert_allclose(found, power @ filters, rtol=3e-5)


@pytest.mark.parametrize(("size", "hop"), [(10, 4), (8, 8), (3, 5)])
def test_frames_are_cut_from_the_wave(size, hop):
    wave = np.arange(60, dtype=np.float32).reshape(2, 30)
    count = 1 + (30 - size) // hop
    found = np.asarray(_factored.frame(jnp.asarray(wave), size, hop, count))
    for t in range(count):
        np.testing.assert_array_equal(found[:, t], wave[:, t * hop : t * hop + size])


@pytest.mark.parametrize("name", ["panns_logmel64", "passt_mel128", "kaldi_fbank128", "m2d_logmel"])
def test_a_frontend_has_the_same_features_in_both_forms(name):
    frontend = frontends.build(name)
    rng = np.random.default_rng(0)
    wave = (0.1 * rng.standard_normal((2, frontend.sample_rate // 2))).astype(np.float32)
    expected = np.asarray(frontend(wave))
    with nn.forms("graph"):
        found = np.asarray(frontend(wave))
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= 5e-6 * np.linalg.norm(expected)

"""Waves in memory in the formats of other toolkits. Cases that users reported (CC0)."""

import subprocess
import sys
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from asjax.config import AsjaxError, AsjaxWarning
from asjax.data import waves

RNG = np.random.default_rng(0)
NOISE = (0.1 * RNG.normal(size=4800)).astype(np.float32)


class Tensor:
    """Behaves like a torch tensor without torch: refuses numpy until it is detached."""

    def __init__(self, array, dtype="torch.float32", grad=False):
        self.array, self.dtype, self.grad = array, dtype, grad

    def detach(self):
        return Tensor(self.array, self.dtype)

    def cpu(self):
        return self

    def float(self):
        return Tensor(self.array)

    def __array__(self, dtype=None, copy=None):
        if self.grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.array


@pytest.mark.parametrize(
    "wave",
    [
        Tensor(NOISE, grad=True),
        Tensor(NOISE, "torch.bfloat16"),
        Tensor(NOISE, "torch.bfloat16", grad=True),
        jnp.asarray(NOISE),
        NOISE.tolist(),
    ],
    ids=["grad", "bfloat16", "both", "jax", "list"],
)
def test_tensors_and_lists_are_the_same_numbers(wave):
    np.testing.assert_array_equal(waves.array(wave).astype(np.float32), NOISE)


def test_bfloat16_of_jax_is_float32():
    got = waves.array(jnp.asarray(NOISE, jnp.bfloat16))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, NOISE, rtol=2**-8)


def test_real_tensors_of_torch():
    torch = pytest.importorskip("torch")
    wave = torch.from_numpy(NOISE)
    for tensor in (
        wave,
        wave.clone().requires_grad_(),
        wave.bfloat16(),
        wave.half(),
        wave.double(),
    ):
        np.testing.assert_allclose(waves.array(tensor), NOISE, atol=1e-3)


def test_torch_is_not_imported():
    code = "import sys; from asjax.data import waves; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("wave", [[[1, 2], [3]], Tensor(NOISE, "torch.float8")])
def test_what_is_no_array_is_one_line(wave):
    if isinstance(wave, Tensor):
        wave.cpu = lambda: (_ for _ in ()).throw(RuntimeError("CUDA error\nand a long story"))
        wave.detach = lambda: wave
    with pytest.raises(AsjaxError, match="mine: .* cannot be read as an array") as caught:
        waves.array(wave, "mine")
    assert "\n" not in str(caught.value)


def warned(wave, **more):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        waves.check(wave, "x", **more)
    assert all(w.category is AsjaxWarning for w in seen)
    return [str(w.message) for w in seen]


@pytest.mark.parametrize(
    ("wave", "says"),
    [
        (NOISE * 32_768, "values up to .* in a float array, but the full scale is 1"),
        (NOISE.astype(np.float64) * 2**31, "values up to"),
        (-np.abs(NOISE) * 32_768, "values up to"),
        (np.append(NOISE * 32_768, np.nan), "values up to"),
        ((NOISE * 32_768).astype(np.int32), "int32 .* almost silence.* 16-bit .* by 32768"),
        ((NOISE * 32_768).astype(np.int64), "int64 .* almost silence"),
        ((NOISE * 2**23).astype(np.int32), "24-bit numbers, divide them by 8388608"),
        (
            np.stack([NOISE, NOISE]),
            r"\[2, 4800\] is taken as one recording of 2 channels.*batch=True",
        ),
    ],
)
def test_what_is_probably_meant_otherwise_is_said(wave, says):
    (message,) = warned(wave)
    assert message.startswith("x: ")
    assert __import__("re").search(says, message)


@pytest.mark.parametrize(
    "wave",
    [
        NOISE,
        NOISE * 8,  # loud, but float recordings have headroom
        np.zeros(100, np.float32),
        np.zeros(100, np.int32),
        (NOISE * 32_768).astype(np.int16),
        (NOISE * 2**31).astype(np.int32),
        np.stack([NOISE, NOISE], axis=1),  # [S, channels], as in soundfile
        NOISE[None],
        np.full(10, np.inf, np.float32),
        np.full(10, np.nan, np.float32),
        np.zeros(0, np.float32),
    ],
)
def test_what_is_as_it_should_be_is_not(wave):
    assert warned(wave) == []


def test_a_batch_that_was_chosen_is_not_warned_about():
    assert warned(np.stack([NOISE, NOISE]), batch=False) == []


def test_the_rows_of_a_batch():
    batch = np.stack([NOISE, NOISE * 2])
    rows = waves.rows((batch, 16_000))
    assert [rate for _, rate in rows] == [16_000, 16_000]
    np.testing.assert_array_equal([wave for wave, _ in rows], batch)
    assert len(waves.rows((batch[:, None], 16_000))) == 2
    for wrong in ("a.wav", [batch], (batch,), (NOISE, 16_000), (batch[None, None], 16_000)):
        with pytest.raises(AsjaxError, match="batch=True"):
            waves.rows(wrong)

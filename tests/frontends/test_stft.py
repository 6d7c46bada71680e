"""Both forms of the power spectrum: values, gradients, vmap, compiled programs, devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import fbank
from reference.frontends import logmel

from asjax import frontends, nn, sharding
from asjax.frontends import build, stft

FORMS = ("cpu", "accelerator")


def relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def oracle(frames, n_fft):
    return np.abs(np.fft.rfft(frames.astype(np.float64), n_fft)) ** 2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("samples", "n_fft"), [(400, 512), (1024, 4096), (64, 64), (63, 63), (2, 3), (5000, 5000)]
)
def test_the_power_spectrum_equals_numpys_in_float64(form, samples, n_fft):
    frames = noise(2, 3, samples)
    with nn.forms(form):
        got = jax.jit(functools.partial(stft.power, n_fft=n_fft))(frames)
    assert got.shape == (2, 3, n_fft // 2 + 1)
    assert relative(got, oracle(frames, n_fft)) < 1e-6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", frontends.__all__)
def test_every_frontend_gives_the_same_in_both_forms_and_under_vmap(form, name):
    """One second without and one with a loud tone, at 1e-3 of full scale."""
    frontend = build(name)
    rate = frontend.sample_rate
    tone = 0.5 * np.sin(2 * np.pi * 440 / rate * np.arange(rate))
    wave = np.stack([0.1 * noise(rate), 1e-3 * (tone + 0.1 * noise(rate, seed=1))])
    wave = wave.astype(np.float32)
    want = np.asarray(frontend(wave), np.float64)
    with nn.forms(form):
        assert relative(frontend(wave), want) < 5e-6
        single = jax.vmap(lambda row: frontend(row[None])[0])(wave)
    assert relative(single, want) < 5e-6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["panns_logmel64_16k", "kaldi_fbank128", "atdr_logmel64"])
def test_frontends_equal_the_float64_oracle_in_both_forms(form, name):
    frontend, wave = build(name), 0.1 * noise(2, 8000)
    with nn.forms(form):
        got = (frontend if name.startswith("panns") else frontend.logmel)(wave)
    if name.startswith("panns"):
        want = logmel(wave, frontend)
    else:
        naive = fbank.kaldi if name.startswith("kaldi") else fbank.atdr
        want = np.stack([naive(row, frontend) for row in wave])
    assert relative(got, want) < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_the_power_spectrum_are_those_of_the_definition(form):
    """P = (x C)^2 + (x S)^2, so the gradient of <g, P> is 2 ((x C) g) C^T + the same with S."""
    frames, g = noise(2, 3, 20), noise(2, 3, 17, seed=1)
    turns = 2 * np.pi * np.outer(np.arange(20), np.arange(17)) / 32
    cosines, sines = np.cos(turns), np.sin(turns)
    x = frames.astype(np.float64)
    want = 2 * ((x @ cosines * g) @ cosines.T + (x @ sines * g) @ sines.T)
    loss = lambda x: (stft.power(x, 32) * g).sum()  # noqa: E731
    with nn.forms(form):
        assert relative(jax.grad(loss)(frames), want) < 1e-5
        each = jax.vmap(jax.grad(lambda x, g: (stft.power(x, 32) * g).sum()))
        assert relative(each(frames[:, None], g[:, None])[:, 0], want) < 1e-5
        _, along = jax.jvp(loss, (frames,), (frames,))
    np.testing.assert_allclose(along, (want * x).sum(), rtol=1e-5)


def test_on_accelerators_there_is_neither_an_fft_nor_a_complex_number():
    wave = jnp.zeros((2, 16000))
    for name in ("panns_logmel64_16k", "kaldi_fbank128", "atdr_logmel64", "passt_mel128"):
        with nn.forms("accelerator"):
            exported = jax.export.export(jax.jit(build(name)), platforms=("tpu", "cuda"))(wave)
        text = exported.mlir_module()
        assert "stablehlo.fft" not in text
        assert "complex<" not in text
        assert "stablehlo.custom_call" not in text
    assert "stablehlo.fft" in jax.jit(build(name)).lower(wave).as_text()


def test_a_transform_with_large_matrices_stays_an_fft():
    with nn.forms("accelerator"):
        shape = jax.ShapeDtypeStruct((1, 1, 2**14), jnp.float32)
        assert "stablehlo.fft" in jax.jit(stft.power).lower(shape).as_text()


@pytest.mark.parametrize("spec", ["data=2", "data=1,fsdp=2"])
@pytest.mark.parametrize("form", FORMS)
def test_a_sharded_batch_stays_where_it_is_forward_and_backward(form, spec):
    mesh = sharding.make_mesh(spec)
    frontend, wave = build("panns_logmel64_16k"), 0.1 * noise(4, 4000)
    placed = sharding.place(mesh, {"wave": wave})["wave"]
    grad = jax.jit(jax.grad(lambda w: frontend(w).mean()))
    with nn.forms(form):
        for call in (jax.jit(lambda w: frontend(w)), grad):
            text = call.lower(placed).compile().as_text()
            assert "all-gather" not in text
            assert "all-to-all" not in text
        got = grad(placed)
    assert relative(got, np.asarray(grad(wave), np.float64)) < 1e-5


def test_rows_that_the_devices_do_not_divide_are_transformed_too():
    mesh = sharding.make_mesh("data=2")
    frontend, wave = build("panns_logmel64_16k"), 0.1 * noise(3, 4000)
    everywhere = jax.device_put(wave, sharding.replicated(mesh))
    assert relative(jax.jit(frontend)(everywhere), np.asarray(frontend(wave), np.float64)) < 1e-6

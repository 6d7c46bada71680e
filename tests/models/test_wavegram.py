"""Wavegram-Logmel-CNN14: a naive network at all lengths, mixing of clips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import panns
from test_resnet import random

from asjax import build, frontends, models
from asjax.config import AsjaxError
from asjax.models import wavegram
from asjax.weights import port

PARAMETERS = {"wavegram_logmel_cnn14": 81_065_487, "wavegram_logmel128_cnn14": 81_262_735}


@pytest.fixture(scope="module")
def small():
    """(module, variables, torch names -> arrays): all parts with few channels."""
    module = models.build(
        "wavegram",
        variant="wavegram_logmel_cnn14",
        channels=(4, 4, 4, 6, 6, 8),
        wave_channels=(4, 4, 6),
        width=8,
        num_classes=5,
        n_mels=32,
        block_dropout=0.0,
        head_dropout=0.0,
    )
    variables = random(module)
    return module, variables, port.to_torch("wavegram", variables)


@pytest.fixture(scope="module")
def frontend():
    return frontends.build("wavegram_logmel64", n_mels=32)


def waves(samples, clips=2):
    rng = np.random.default_rng(samples)
    return np.float32(rng.uniform(-1, 1, (clips, samples)))


def apply(module, variables, feats, **kwargs):
    with jax.default_matmul_precision("highest"):
        run = lambda v, x: module.apply(v, x, mutable=["batch_stats"], **kwargs)[0]  # noqa: E731
        return jax.jit(run)(variables, feats)


def near(ours, theirs, tolerance=1e-5):
    assert ours.shape == theirs.shape
    assert np.linalg.norm(ours - theirs) <= tolerance * np.linalg.norm(theirs)


@pytest.mark.parametrize(("variant", "count"), PARAMETERS.items())
def test_parameter_counts(variant, count):
    module = models.build("wavegram", variant=variant)
    assert models.parameters(module) == count
    spec = models.family("wavegram").FRONTENDS[variant]
    assert frontends.build(**spec).n_mels == module.n_mels


@pytest.mark.parametrize("rest", [0, 1, 117, 316, 319, 636, 639])
def test_outputs_are_those_of_a_naive_network_at_every_length_it_takes(small, frontend, rest):
    module, variables, state = small
    wave = waves(640 * 18 + rest)
    feats = np.asarray(frontend(wave))
    logits, embedding = panns.wavegram(state, wave, feats[..., :32])
    out = apply(module, variables, feats)
    near(out["logits"], logits)
    near(out["embedding"], embedding)


@pytest.mark.parametrize("rest", [320, 500, 635])
def test_where_the_branches_disagree_zeros_are_appended_to_the_wave(small, frontend, rest):
    module, variables, state = small
    wave = waves(640 * 18 + rest)
    feats = np.asarray(frontend(wave))
    with pytest.raises(AssertionError, match="branches disagree"):
        panns.wavegram(state, wave, feats[..., :32])
    longer = np.pad(wave, ((0, 0), (0, 640 - rest)))
    logits, _ = panns.wavegram(state, longer, feats[..., :32])
    near(apply(module, variables, feats)["logits"], logits)


@pytest.mark.parametrize("samples", [1, 5000])
def test_short_input_is_32_frames_of_log_mel_and_their_samples(small, frontend, samples):
    module, variables, state = small
    wave = waves(samples)
    feats = np.asarray(frontend(wave))
    mean, var = state["bn0.running_mean"], state["bn0.running_var"]
    zero = mean - state["bn0.bias"] / state["bn0.weight"] * np.sqrt(var + 1e-5)  # bn0 gives 0
    mel = np.broadcast_to(zero, (2, 32, 32)).copy()
    mel[:, : feats.shape[1]] = feats[..., :32]
    longer = np.pad(wave, ((0, 0), (0, 640 * 16 - samples)))
    near(apply(module, variables, feats)["logits"], panns.wavegram(state, longer, mel)[0], 1e-4)


@pytest.mark.parametrize("rest", [0, 119])
def test_training_normalises_by_the_batch_without_the_loose_end(small, frontend, rest):
    """The last norms have few positions and amplify rounding; 119 more samples give 2e-2."""
    module, variables, state = small
    wave = waves(640 * 18 + rest, clips=3)
    feats = np.asarray(frontend(wave))
    logits, _ = panns.wavegram(state, wave[:, : 640 * 18], feats[..., :32], train=True)
    near(apply(module, variables, feats, train=True)["logits"], logits, 1e-3)


def test_what_mixes_clips_mixes_the_wavegram_too(small, frontend):
    """PANNs mix both branches, the wavegram after its last block."""
    module, variables, state = small
    wave = waves(640 * 16, clips=4)
    feats = np.asarray(frontend(wave))
    mix = lambda x: 0.3 * x[0::2] + 0.7 * x[1::2]  # noqa: E731
    logits, _ = panns.wavegram(state, wave, feats[..., :32], mix=mix)
    near(apply(module, variables, feats, augment=mix)["logits"], logits)


def test_stripes_leave_the_wavegram_alone():
    maps = jnp.float32(np.random.default_rng(0).normal(size=(4, 3, 5, 2)))
    rng = jax.random.key(3)
    flat = maps.reshape(4, 1, -1)
    for stripes in ("specaug(time_width=64)", "specaug(freq_width=28)"):
        chain = build.augment(f"{stripes} | mixup")
        alone = build.augment("specaug(time_width=0, freq_width=0) | mixup")
        got = wavegram._mix(lambda x, chain=chain: chain(rng, {"feats": x})["feats"], maps)
        mixed = alone(rng, {"feats": flat})["feats"].reshape(2, 3, 5, 2)
        np.testing.assert_allclose(got, mixed, rtol=1e-6)


def test_gradients_reach_every_parameter(small, frontend):
    module, variables, _ = small
    feats = frontend(waves(640 * 16, clips=3))

    def loss(params):
        out, _ = module.apply(
            {**variables, "params": params}, feats, train=True, mutable=["batch_stats"]
        )
        return (out["logits"] ** 2).mean()

    for path, g in jax.tree_util.tree_leaves_with_path(
        jax.jit(jax.grad(loss))(variables["params"])
    ):
        assert np.isfinite(g).all(), path
        assert np.abs(g).max() > 0, path


def test_weights_go_to_torch_and_back_bit_for_bit(small):
    module, variables, state = small
    assert state["pre_conv0.weight"].shape == (4, 1, 11)
    fields = {k: getattr(module, k) for k in ("channels", "wave_channels", "width", "n_mels")}
    name = "wavegram_logmel_cnn14"
    _, back = port.from_torch("wavegram", name, state, num_classes=5, **fields)
    jax.tree.map(np.testing.assert_array_equal, variables, back)


def test_features_of_another_frontend_are_refused(small):
    module, variables, _ = small
    for shape in ((2, 40, 32), (2, 0, 353), (40, 353)):
        with pytest.raises(AsjaxError, match="use the frontend wavegram_logmel64 with n_mels=32"):
            module.apply(variables, np.zeros(shape, np.float32))

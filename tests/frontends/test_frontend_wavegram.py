"""The frontend `wavegram`: log-mel and samples of each frame, and the end of the wave."""

import numpy as np
import pytest

from asjax import frontends
from asjax.config import AsjaxError
from asjax.frontends import wavegram


@pytest.fixture(scope="module")
def frontend():
    return frontends.build("wavegram_logmel64", n_mels=32)


def waves(samples, clips=2):
    rng = np.random.default_rng(samples)
    return np.float32(rng.uniform(-1, 1, (clips, samples)))


@pytest.mark.parametrize("samples", [1, 319, 320, 6400, 6401, 7039])
def test_features_are_the_log_mel_the_samples_and_their_number(frontend, samples):
    wave = waves(samples)
    feats = np.asarray(frontend(wave))
    assert feats.shape == (2, 1 + samples // 320, 32 + 320 + 1)
    mel = frontends.build("panns_logmel", n_mels=32)(wave)
    np.testing.assert_array_equal(feats[..., :32], mel)
    flat = feats[..., 32:-1].reshape(2, -1)
    np.testing.assert_array_equal(flat[:, :samples], wave)
    assert not flat[:, samples:].any()
    assert feats[:, :, -1].sum(1).tolist() == [samples, samples]


def test_int16_is_scaled_and_the_fields_are_those_of_the_log_mel(frontend):
    whole = np.int16([[16384, -32768, 0]])
    np.testing.assert_array_equal(frontend(whole), frontend(np.float32([[0.5, -1, 0]])))
    assert (frontend.sample_rate, frontend.n_mels, frontend.hop) == (32000, 32, 320)
    with pytest.raises(AsjaxError, match="field 'hop' does not exist"):
        frontends.build("wavegram_logmel64", hop=160)


def test_every_variant_has_the_hop_of_the_network_s_strides():
    for name in wavegram.VARIANTS:
        assert frontends.build(name).hop == wavegram.HOP == 5 * 4 * 4 * 4

"""A causal tagger with random weights, and a recording that it hears."""

import jax
import numpy as np
from small_tagger import LABELS

from asjax import frontends, models, predict

RATE, SECONDS = 16_000, 4.0
RNG = np.random.default_rng(3)
WAVE = (RNG.normal(size=round(RATE * SECONDS)) * 0.2).astype(np.float32)
WAVE[20_000:40_000] *= np.sin(np.arange(20_000) / 9).astype(np.float32)


def model_of(**fields):
    module = models.build("talnet", "crnn_causal", num_classes=4, width=32, **fields)
    variables = module.init(jax.random.key(0), np.zeros((1, 8, 64), np.float32))
    noisy = lambda a: a + 0.02 * RNG.normal(size=a.shape).astype("f")  # noqa: E731
    variables = jax.tree.map(noisy, variables)
    variables["params"]["block0"]["conv"]["kernel"] *= 0.02  # features in dB are large
    variables["params"]["head"]["fc_prob"]["kernel"] *= 50.0
    return module, variables


def tagger_of(clip_s=SECONDS, **frontend):
    how = dict(sample_rate=RATE, n_mels=64, n_fft=512, hop=320, centred=False)
    front = frontends.build("panns_logmel", **{**how, **frontend})
    return predict.Tagger(*MODEL, front, LABELS, sample_rate=RATE, clip_s=clip_s)


MODEL = model_of()
TAGGER = tagger_of()
WHOLE = TAGGER((WAVE, RATE))
assert WHOLE.frames.std(axis=0).min() > 1e-2  # it hears something

"""Torch checkpoints of our models with random weights, for the tests of port and export."""

import jax
import numpy as np

from asjax import models
from asjax.weights import port

RNG = np.random.default_rng(11)


def weights(family, variant, **fields):
    """Random torch weights of a model, with positive variances."""
    shapes = models.abstract(models.build(family, variant, **fields))
    drawn = jax.tree.map(lambda s: RNG.standard_normal(s.shape, np.float32) * 0.05, shapes)
    found = port.to_torch(family, drawn)
    return {k: np.abs(v) + 0.5 if k.endswith("running_var") else v for k, v in found.items()}


def shaped(family, variant, **fields):
    """Like `weights`, but with zeros that use no memory."""
    shapes = models.abstract(models.build(family, variant, **fields))
    zeros = jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes)
    return port.to_torch(family, zeros)


def with_tables(found):
    """A PANNs state dict as saved by torch: with counters, DFT and mel tables."""
    norms = [k.removesuffix("running_mean") for k in found if k.endswith("running_mean")]
    return {
        **found,
        **{f"{n}num_batches_tracked": np.array(600_000 + i) for i, n in enumerate(norms)},
        "spectrogram_extractor.stft.conv_real.weight": RNG.standard_normal((513, 1, 1024), "f4"),
        "logmel_extractor.melW": RNG.standard_normal((513, 64), "f4"),
    }

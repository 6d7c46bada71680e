"""Programs of small models with random weights of a sensible scale."""

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from asjax import build, labels, models
from asjax.export import program


def label_set(classes: int):
    names = tuple(f"Sound {i}" for i in range(classes))
    return labels.LabelSet("small", tuple(f"s{i}" for i in range(classes)), names)


def weights(module, seed: int = 0, draw=True):
    """Random weights; statistics are positive. draw=False: zeros without memory."""
    rng, made = np.random.default_rng(seed), {}
    for path, leaf in flatten_dict(models.abstract(module)).items():
        shape = leaf.shape
        if not draw:
            made[path] = np.broadcast_to(np.zeros((), leaf.dtype), shape)
            continue
        if path[-1] == "var":
            x = rng.uniform(0.5, 2, shape)
        elif path[-1] == "scale":
            x = 1 + 0.2 * rng.standard_normal(shape)
        elif len(shape) > 1:
            inputs = np.prod(shape[-4:-1] if len(shape) == 4 else shape[-2:-1])
            x = rng.standard_normal(shape) * (2 / max(1, inputs)) ** 0.5
        else:
            x = 0.1 * rng.standard_normal(shape)
        made[path] = np.asarray(x, leaf.dtype)
    return unflatten_dict(made)


def small(family, variant, clip_s=10.0, classes=None, draw=True, **fields) -> program.Program:
    file = models.family(family)
    if classes:
        fields["num_classes"] = classes
    module = file.model(variant, **fields)
    frontend = build.make("frontend", dict(file.FRONTENDS[variant]))
    variables, rate = weights(module, draw=draw), frontend.sample_rate
    samples = round(clip_s * rate)
    wave = jax.ShapeDtypeStruct((1, samples), np.float32)
    out = jax.eval_shape(lambda v, w: models.apply(module, v, frontend(w)), variables, wave)
    frames = out["frame_logits"].shape[1] if "frame_logits" in out else 0
    count = out["logits"].shape[-1]
    return program.Program(
        module, frontend, variables, label_set(count), {}, "sigmoid", rate, clip_s, samples,
        frames, f"{family} {variant}",
    )  # fmt: skip

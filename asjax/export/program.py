"""What is exported: a model and its frontend, in float32, and the lengths of wave they take."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from asjax import nn
from asjax.config import AsjaxError, split_spec, unknown

OUTPUTS = ("logits", "embedding", "frame_logits", "frame_embedding")
LENGTHS = ("dynamic", "clip")
_LEAST_S = (0.5, 1, 2, 4)  # shortest waves that are tried


@dataclass(frozen=True, eq=False)
class Program:
    """A model ready to be traced.

    Attributes:
      model, frontend, variables, label_set, record, activation: as of a `Tagger`.
      sample_rate: Hz. samples: of a window. frames: scores in time per window, or 0.
      name: family and variant. dtype: what the model in the folder computes in.
    """

    model: object
    frontend: object
    variables: dict
    label_set: object
    record: dict
    activation: str
    sample_rate: int
    clip_s: float
    samples: int
    frames: int
    name: str
    dtype: str = "float32"

    def features(self, wave):
        return self.frontend(wave)

    def outputs(self, variables, feats) -> dict:
        from asjax import models

        made = models.apply(self.model, variables, feats)
        return {name: made[name] for name in OUTPUTS if name in made}

    def __call__(self, variables, wave) -> dict:
        """wave [B, S] -> logits [B, C], embedding [B, D], and those of frames if there are any."""
        return self.outputs(variables, self.features(wave))


def load(directory) -> Program:
    """The program of a model folder; it computes in float32 whatever its config says.

    Raises:
      AsjaxError: as `asjax.load`.
    """
    from asjax.predict.tagger import load_one
    from asjax.store import model_dir

    tagger = load_one(directory)
    spec = model_dir.load_model(directory)[0]["model"]
    family, fields = split_spec(spec)
    module = tagger.model
    dtype = str(getattr(module, "dtype", "float32"))
    if dtype != "float32":
        module = replace(module, dtype="float32")
    return Program(
        module,
        tagger.frontend,
        single(tagger.variables),
        tagger.label_set,
        tagger.record,
        tagger.activation,
        tagger.sample_rate,
        tagger.clip_s,
        tagger.window,
        tagger.frame_count,
        f"{family} {fields.get('variant', '')}".strip(),
        dtype,
    )


def single(variables):
    """Weights in float32; integers stay."""
    import jax

    def convert(x):
        x = np.asarray(x)
        kind = str(x.dtype)
        return x.astype(np.float32) if kind in ("bfloat16", "float16", "float64") else x

    return jax.tree.map(convert, variables)


@dataclass(frozen=True, eq=False)
class Traced:
    """The two parts of a program for waves [b, s].

    Attributes:
      frontend, model: closed jaxprs: (wave) and (*weights, feats).
      names: of the outputs. least, most: samples of a wave; most None: no limit.
      why: why the length is fixed or limited, or "".
    """

    frontend: object
    model: object
    names: list[str]
    shapes: list
    wave: object
    least: int
    most: int | None
    why: str


def trace(program: Program, length: str = "dynamic") -> Traced:
    """Trace a program with any number of clips, and with any length of wave if that is possible.

    Models with chunks, or with tables of positions of their clip length, take waves up to the clip
    length. A model that computes a table from the length takes the clip length only.

    Raises:
      AsjaxError: `length` is neither "dynamic" nor "clip".
    """
    import jax
    from jax import export

    if length not in LENGTHS:
        raise unknown("length", length, LENGTHS)
    n, rate, failed = program.samples, program.sample_rate, None
    tries = [(max(1, int(s * rate)), most) for most in (None, n) for s in _LEAST_S]
    tries = [(least, most) for least, most in tries if least < n]
    for least, most in [*(tries if length == "dynamic" else []), (n, n)]:
        if least == most:
            (b,), s = export.symbolic_shape("b"), n
        else:
            limits = [f"s >= {least}"] + ([f"s <= {most}"] if most else [])
            b, s = export.symbolic_shape("b, s", constraints=limits)
        wave = jax.ShapeDtypeStruct((b, s), np.float32)
        try:
            return _traced(program, wave, least, most, failed or "")
        except AsjaxError as error:
            if least == most or not _is_length(error):
                raise
            failed = failed or _is_length(error)
        except Exception as error:  # jax has several errors for a comparison of unknown sizes
            if least == most or not _is_length(error):
                raise
            failed = failed or _is_length(error)
    raise AssertionError


_SIGNS = ("_DimExpr", "nconclusive", "ymbolic dimension", "boolean conversion", "TracerBool")


def _is_length(error) -> str:
    """The reason, if a length that is not known stopped the trace; else ""."""
    while error is not None:
        text = f"{type(error).__name__} {error}"
        if any(sign in text for sign in _SIGNS):
            return "the model computes frames or positions from the length of a wave"
        error = error.__cause__
    return ""


def _traced(program: Program, wave, least, most, why) -> Traced:
    import jax

    with nn.forms("graph"):
        frontend, feats = jax.make_jaxpr(program.features, return_shape=True)(wave)
        weights, tree = jax.tree.flatten(program.variables)
        shapes = [jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype) for x in weights]

        def run(*arguments):
            *flat, feats = arguments
            return program.outputs(jax.tree.unflatten(tree, flat), feats)

        model, made = jax.make_jaxpr(run, return_shape=True)(*shapes, feats)
    names = sorted(made)  # the order of the leaves of a dict
    return Traced(
        frontend, model, names, [made[name].shape for name in names], wave, least, most, why
    )

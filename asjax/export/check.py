"""Does a file give what jax gives? Two runs of jax, three of onnxruntime."""

from __future__ import annotations

import numpy as np

from asjax.config import AsjaxError

GATED = ("logits", "frame_logits")
# A clip logit that is pooled from frames is log(p / (1 - p)) of a float32 p. Beyond this value
# rounding of p, in jax as well, is more than 1e-4 of it.
LARGEST_POOLED = 8.0


def libraries():
    """AsjaxError: onnx or onnxruntime is missing."""
    for name in ("onnx", "onnxruntime"):
        try:
            __import__(name)
        except ImportError:
            raise AsjaxError(
                f'ONNX files need {name}, which is not installed: pip install "asjax[onnx]"'
            ) from None


def waves(samples: int, rate: int) -> np.ndarray:
    """float32 [3, samples]: noise and a sweep, silence, and a quiet part of the first."""
    t = np.arange(samples) / rate
    sweep = 0.3 * np.sin(2 * np.pi * (50 * t + 0.5 * (0.45 * rate - 50) * t * t / max(t[-1], 1e-3)))
    noise = 0.1 * np.random.default_rng(0).standard_normal(samples)
    first = (noise + sweep).astype(np.float32)
    return np.stack([first, np.zeros_like(first), 0.01 * first[::-1]])


def other_length(least: int, most: int | None, samples: int) -> int:
    """A length that is not the clip's, where the file takes one."""
    if least == most:
        return samples
    return max(least, int(0.63 * samples) | 1)


def onnx_run(path):
    """wave [B, S] -> dict of outputs, by onnxruntime."""
    from asjax.predict.onnx_session import session

    run = session(path)
    names = [output.name for output in run.get_outputs()]
    return lambda wave: dict(zip(names, run.run(names, {"wave": wave}), strict=True))


def compare(run, program, traced, allowed: float) -> dict[str, tuple[float, float]]:
    """Output -> (largest absolute difference, relative L2) against jax.

    Batches of three and one, the clip's length and another one.

    Args:
      run: wave [B, S] -> dict of arrays, what is compared.

    Raises:
      AsjaxError: an output of GATED differs by more than `allowed` (relative L2), or is not finite.
    """
    import jax

    jitted = jax.jit(program.__call__)
    clip = waves(program.samples, program.sample_rate)
    other = waves(other_length(traced.least, traced.most, program.samples), program.sample_rate)
    pairs = []
    for wave in (clip, other[:1]):
        expected = {k: np.asarray(v) for k, v in jitted(program.variables, wave).items()}
        pairs.append((expected, wave))
    pairs.append(({k: v[:1] for k, v in pairs[0][0].items()}, clip[:1]))
    pairs = [(expected, run(wave)) for expected, wave in pairs]
    errors = {}
    for name in traced.names:
        worst = [0.0, 0.0]
        for expected, given in pairs:
            found, wanted = given[name], expected[name]
            if found.shape != wanted.shape:
                raise AsjaxError(
                    f"the file gives {name} {list(found.shape)}, jax gives {list(wanted.shape)}"
                )
            if not np.isfinite(found).all():
                raise AsjaxError(f"the file's {name} is not finite; check the weights for NaN")
            found, wanted = found.astype(np.float64), wanted.astype(np.float64)
            if name == "logits" and "frame_logits" in traced.names:
                limits = -LARGEST_POOLED, LARGEST_POOLED
                found, wanted = np.clip(found, *limits), np.clip(wanted, *limits)
            distance = np.abs(found - wanted)
            relative = np.linalg.norm(distance) / max(np.linalg.norm(wanted), 1e-30)
            worst = [max(worst[0], float(distance.max())), max(worst[1], float(relative))]
        errors[name] = tuple(worst)
    for name in GATED:
        if name in errors and errors[name][1] > allowed:
            raise AsjaxError(
                f"the file differs from jax: {name} by {errors[name][1]:.1e} (relative L2), and "
                f"{allowed:.0e} is allowed; it was deleted"
            )
    return errors

"""The weighted mean of the logits of several models, as one model; and the weights of an ensemble.

`asjax logits` and `asjax tag` run it. `asjax eval` runs one model after the other
(`averages.average_scores`), which needs less memory and gives the same mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from asjax import models
from asjax.config import AsjaxError, quoted, shown, warn


@dataclass(frozen=True, eq=False)
class Mean:
    """Weighted sum of models on waves, with the interface of one model. Weights are floats.

    With `softmax` it is the sum of log-probabilities, so a constant per clip does not count.
    """

    members: list  # (model, frontend, weight)
    outputs: tuple[str, ...]
    softmax: bool

    def apply(self, variables, wave, train=False):
        import jax

        total = {}
        for k, (model, frontend, weight) in enumerate(self.members):
            out = models.apply(model, variables[str(k)], frontend(wave))
            for name in self.outputs:
                if out.get(name) is None:
                    return {**out, name: None}  # the caller's error lists what there is
                value = out[name].astype("float32")
                value = jax.nn.log_softmax(value) if self.softmax else value
                total[name] = weight * value + total.get(name, 0.0)
        return total


def add_options(parser) -> None:
    """The options of an ensemble: weights, and what stored logits lack."""
    parser.add_argument(
        "--weights", help="one weight for each member of an ensemble, such as 1,2 (default: equal)"
    )
    parser.add_argument(
        "--rest",
        choices=("zero", "uniform"),
        default="zero",
        help="stored logits of the highest classes only: what the others get, probability 0 "
        "(default) or the lowest stored one divided by their number",
    )


def numbers(text: str | None) -> list[float] | None:
    """The value of an option --weights, such as 1,2,1. AsjaxError: not numbers."""
    try:
        return None if text is None else [float(one) for one in text.split(",")]
    except ValueError:
        raise AsjaxError(f"--weights must be numbers such as 1,2,1, got {quoted(text)}") from None


def weights(given, count: int) -> list[float]:
    """One finite weight above 0 for each of `count` models; AsjaxError otherwise."""
    found = [1.0] * count if given is None else list(map(float, given))
    if len(found) != count or not all(0 < w < math.inf for w in found):
        raise AsjaxError(
            f"--weights must be numbers above 0, one for each of {count} models, got "
            f"{','.join(f'{w:g}' for w in found)}"
        )
    return found


def say_twice(paths) -> None:
    """Warn about a member that is given twice, because it then counts twice."""
    seen = set()
    for path in map(str, paths):
        if path in seen:
            warn(f"{shown(path)} is given twice, so it counts twice; --weights does the same")
        seen.add(path)

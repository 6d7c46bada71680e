"""The zoo with its sizes: parameters and MACs of every variant, counted once and stored.

`computed` counts them, which takes seconds for each variant. The result for all variants is the
file assets/models/zoo.json, so that `asjax models` needs neither jax nor a trace. After a change of
the models, `python tests/weights/test_sizes.py` writes the file again; tests compare it.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

FILE = Path(__file__).parent.parent / "assets" / "models" / "zoo.json"
SECONDS = 10.0


@cache
def stored() -> tuple[dict, ...]:
    """One dict per variant, in the order of `models.list_models`: family, variant, parameters,
    macs, frontend, n_mels, sample_rate, fields; and parity (`parity`) or None."""
    return tuple(json.loads(FILE.read_text(encoding="utf-8")))


def computed(names: list[str] | None = None):
    """Yield the rows of `stored`, counted now. `names`: only these families."""
    from asjax import frontends, models

    for row in models.list_models(names):
        module = models.build(row["family"], row["variant"])
        frontend = frontends.build(**row["frontend"])
        rate = frontend.sample_rate
        yield {**row, "sample_rate": rate, "macs": macs(module, frontend)}


def macs(module, frontend) -> int:
    """Multiply-accumulates of a forward pass over 10 s of audio, without the frontend.

    Counted are matrix products and convolutions. A model that takes another length of audio is
    counted at its own, and the number is scaled to 10 s.
    """
    import jax
    import jax.numpy as jnp

    from asjax import models
    from asjax.nn import flops
    from asjax.weights.convert import clip_seconds

    seconds = clip_seconds(module, frontend)
    wave = jax.ShapeDtypeStruct((1, round(seconds * frontend.sample_rate)), jnp.float32)
    feats = jax.eval_shape(frontend, wave)
    if module.n_mels != frontend.n_mels:  # a bare encoder, which hears another network's output
        feats = jax.ShapeDtypeStruct((*feats.shape[:2], module.n_mels), jnp.float32)
    variables = models.abstract(module)
    forward = lambda v, x: module.apply(v, x, train=False)  # noqa: E731
    return round(flops.count(forward, variables, feats) / 2 * SECONDS / seconds)


def parity() -> dict[tuple[str, str], float]:
    """(family, variant) -> the worst relative L2 against the authors' code over all parity cases.

    Read from the table in asjax/models/README.md, which tests/parity_table.py prints.
    """
    text = (Path(__file__).parent.parent / "models" / "README.md").read_text(encoding="utf-8")
    worst: dict = {}
    for name, number in re.findall(
        r"^\| \w+ \| (\w+ \w+) \|[^|]*\|[^|]*\| ([\d.e-]+) \|", text, re.M
    ):
        key = tuple(name.split())
        worst[key] = max(worst.get(key, 0.0), float(number))
    return worst


def write() -> None:
    """Count everything and write the file."""
    worst = parity()
    rows = ({**row, "parity": worst.get((row["family"], row["variant"]))} for row in computed())
    lines = ",\n".join(json.dumps(row, sort_keys=True) for row in rows)
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")

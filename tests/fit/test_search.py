"""The search for the largest batch against trying every batch, and the remedies in their order."""

import numpy as np
import pytest

from asjax import build
from asjax.config import AsjaxError
from asjax.fit import search


@pytest.mark.parametrize("unit", [1, 8, 24])
@pytest.mark.parametrize("seed", range(6))
def test_the_largest_batch_is_that_of_trying_every_one(unit, seed):
    rng = np.random.default_rng(seed)
    fixed, slope = rng.integers(0, 10**9), rng.integers(10**4, 10**7)
    steps = rng.integers(0, 10**6, 200_000).cumsum() if seed % 2 else np.zeros(200_000, int)
    memory = lambda batch: int(fixed + slope * batch + steps[batch])  # noqa: E731
    limit = int(rng.integers(fixed, fixed + 4000 * slope))
    every = [b for b in range(unit, 100_000, unit) if memory(b) <= limit]
    asked = unit * int(rng.integers(1, 50))
    tried = []

    def total(batch):
        tried.append(batch)
        return memory(batch) if memory(batch) < 2 * limit else None  # the compiler refused

    known = {asked: memory(asked)}
    found = search.largest(total, limit, unit=unit, known=known)
    best = max(every, default=0)
    assert found <= best
    assert best - found <= max(unit, search.CLOSE * best)
    assert found == 0 or found in {asked, *tried}
    assert len(tried) == len({*tried, asked}) - 1
    assert len(tried) <= 14
    assert all(batch % unit == 0 and batch > 0 for batch in tried)


def test_a_step_that_never_fits_has_no_batch():
    found = search.largest(lambda batch: None, 100, unit=4, known={32: 200})
    assert found == 0


def configs(recipe):
    return lambda fields: build.load(recipe, fields)


def test_remedies_are_fields_of_the_recipe_and_the_cheapest_come_first():
    found = list(search.remedies(configs("configs/hlp_passt.py"), 12, 4))
    fields = [f for f, _ in found]
    assert fields[0] == {"model.dtype": "bfloat16"}
    assert fields[1] == {"mesh": "data=1,fsdp=4"}
    assert {"model.dtype": "bfloat16", "model.remat": "True"} in fields
    assert all("optim.accumulate_steps" not in f for f in fields)  # 12 clips on 4 devices: 3 each
    assert len(fields) == len({str(f) for f in fields})
    for some in fields:
        build.load("configs/hlp_passt.py", some)


def test_remedies_leave_out_what_the_model_has_not_and_what_is_set():
    def without_remat(fields):
        if "model.remat" in fields:
            raise AsjaxError("no such field")
        return build.load("configs/quickstart.py:tiny", fields)

    plain = [f for f, _ in search.remedies(without_remat, 8, 1)]
    assert not any("model.remat" in f for f in plain)
    assert {"model.dtype": "bfloat16", "optim.accumulate_steps": "2"} in plain
    half = configs("configs/ast.py:dtype=bfloat16,remat=True")
    fields = [f for f, _ in search.remedies(half, 12, 1)]
    assert all("model.dtype" not in f and "model.remat" not in f for f in fields)
    assert {"optim.accumulate_steps": "2"} in fields

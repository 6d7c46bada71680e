"""Out-of-memory errors of a training become one line; others stay as they are."""

import pytest

from asjax import build
from asjax.config import AsjaxError
from asjax.fit import advice

FULL = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 137438953472 bytes."


def raised(cfg, error):
    try:
        with advice.on_full_memory(cfg):
            raise error
    except Exception as caught:
        return caught


def test_a_full_memory_says_what_the_config_can_change():
    cfg = build.load("configs/hlp_passt.py")
    found = raised(cfg, RuntimeError(FULL))
    assert isinstance(found, AsjaxError)
    text = str(found)
    assert "\n" not in text
    assert "Out of memory while trying to allocate 137438953472 bytes" in text
    for way in ("model.dtype=bfloat16", "accumulate_steps=2", "model.remat=True", "batch_size=6"):
        assert f"--config.{way}" in text or way in text
    assert "asjax fit" in text
    for way in text.split("try ")[1].split(". ")[0].replace(" or ", ", ").split(", "):
        key, _, value = way.removeprefix("--config.").partition("=")
        build.load("configs/hlp_passt.py", {key: value})  # every way is a field


def test_a_full_memory_of_the_machine_names_what_the_host_needs():
    recipe, fields = "configs/quickstart.py:tiny", {"batch_size": "20000000", "data.workers": "8"}
    cfg = build.load(recipe, fields)
    found = raised(cfg, MemoryError("Unable to allocate 1.16 TiB for an array"))
    assert isinstance(found, AsjaxError)
    assert "memory of this machine is used up (Unable to allocate 1.16 TiB" in str(found)
    ways = str(found).split("try ")[1].split(";")[0].replace(" or ", ", ").split(", ")
    given = dict(way.removeprefix("--config.").split("=") for way in ways)
    assert given == {"batch_size": "10000000", "data.cache": "False", "data.workers": "4"}
    build.load(recipe, given)  # every way is a field


def test_what_is_set_already_is_no_advice():
    cfg = build.load("configs/ast.py:dtype=bfloat16,remat=True,accumulate=4")
    text = advice.advice(cfg)
    assert "dtype" not in text
    assert "remat" not in text
    assert "batch_size=6" in text


@pytest.mark.parametrize("error", [AsjaxError("no clip"), ValueError("shapes"), KeyError("x")])
def test_other_errors_stay_as_they_are(error):
    assert raised(build.load("configs/quickstart.py:tiny"), error) is error

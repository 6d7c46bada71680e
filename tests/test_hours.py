"""benchmarks/hours.py: hours by hand, and the stored lines against independent counts."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CLIPS = {  # of the papers: epochs x clips, or steps x batch
    "atdr": 10 * 1_998_999,
    "hlp_passt": 130 * 100_000,
    "hlp_cnn6": 600_000 * 64,
    "balancing_ast": 120_000 * 1024,
}


@pytest.fixture(scope="module")
def hours():
    spec = importlib.util.spec_from_file_location("hours", ROOT / "benchmarks" / "hours.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def lines(hours):
    return list(map(json.loads, hours.LINES.read_text().splitlines()))


def line(**changes):
    """64 clips on 4 chips: 16 clips of 1.97 TFLOP on one are 0.16 s at the peak of 197 TFLOP/s."""
    whole = {"topology": "v5e:2x2", "devices": 4, "batch": 64, "plain": 1.97e12, "accessed": None}
    whole["arguments"] = 1e9  # 2.4 ms of memory, read and written
    return {**whole, "collectives": {"all-reduce": {"count": 3, "bytes": 4e8}}, **changes}


def test_hours_of_a_step_a_second_by_hand(hours):
    """3600 steps. A ring sends 2 x 3/4 x 0.4 GB, 3 ms at 200 GB/s; at worst 12 ms, not hidden."""
    found = hours.predict(line(), 3600 * 64, "ast")
    assert found["shares"] == (0.128, 0.305)
    assert found["low"] == pytest.approx(0.16 / 0.305)
    assert found["high"] == pytest.approx(0.16 / 0.128 + 0.012)
    assert found["clips_s"] == pytest.approx(64 / (0.16 / 0.305))
    assert found["measured"]


def test_memory_or_links_are_the_limit_by_hand(hours):
    big = line(arguments=819e9)
    assert hours.predict(big, 3600 * 64, "ast")["low"] == pytest.approx(2)
    slow = line(accessed=819e9 * 5)  # five seconds of memory
    assert hours.predict(slow, 3600 * 64, "cnn")["low"] == pytest.approx(5)
    assert not hours.predict(slow, 3600 * 64, "cnn")["measured"]
    full = line(collectives={"reduce-scatter": {"count": 1, "bytes": 1e11}})  # 3 pieces are sent
    found = hours.predict(full, 3600 * 64, "passt")
    assert found["low"] == pytest.approx(3e11 / 200e9)
    assert found["high"] == pytest.approx(0.16 / 0.182 + 4 * 1.5)


def test_few_clips_on_a_device_halve_the_lowest_share(hours):
    """Half the clips take half the seconds at the peak, but twice the steps."""
    few = hours.predict(line(batch=32, collectives={}), 3600 * 64, "ast")
    assert few["high"] == pytest.approx(2 * 0.08 / 0.064)
    assert few["low"] == pytest.approx(2 * 0.08 / 0.305)


def test_one_gpu_sends_nothing(hours):
    alone = line(topology="h100:1", devices=1, collectives={}, plain=989e12 / 64)
    found = hours.predict(alone, 3600 * 64, "passt")
    assert (found["low"], found["high"]) == pytest.approx((1 / 0.211, 1 / 0.182))


def test_stored_lines_have_the_papers_clips_and_the_counts_of_other_programs(hours, lines):
    """A forward pass of AST has 261.0 GFLOP (README, Accelerators), of which training has three."""
    assert {row["topology"] for row in lines} >= {"h100:1", "v5e:4x4"}
    for row in lines:
        cfg = hours.read_config(row["config"])
        name = Path(row["config"].partition(":")[0]).stem
        assert cfg.total_steps * cfg.batch_size == pytest.approx(CLIPS[name], rel=1e-4)
        assert cfg.batch_size <= row["batch"] < cfg.batch_size + row["devices"]
        if "refused" not in row:  # the step has also what remat repeats
            assert row["flops"] * row["devices"] / row["batch"] > 0.99 * row["plain"]
        if cfg.model.name == "ast":
            assert row["plain"] == pytest.approx(3 * 261.0e9, rel=0.01)


def test_the_table_has_a_row_for_each_stored_line(hours, lines):
    head, _, *rows = hours.table(lines).splitlines()
    assert head.count("prediction") == 3
    assert len(rows) == len(lines)

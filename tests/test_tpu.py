"""Programs for TPUs: a training step compiles without one; their collectives are counted right."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from asjax import build, models, sharding

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def hlo():
    spec = importlib.util.spec_from_file_location("hlo", ROOT / "benchmarks" / "hlo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(
    not importlib.util.find_spec("libtpu"),
    reason="needs libtpu, as jax[tpu] names it: pip install 'libtpu==0.0.42.*'",
)
def test_a_training_step_compiles_for_eight_tpus():
    """Half a minute, because XLA for TPUs takes that long for the smallest transformer."""
    command = [sys.executable, "benchmarks/compile.py", "--topology", "v5e:2x4"]
    command += ["--configs", "configs/balancing_ast.py:tiny,dtype=bfloat16,remat=True"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--meshes", "data"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (row,) = map(json.loads, done.stdout.splitlines())
    assert "refused" not in row
    assert (row["devices"], row["batch"]) == (8, 8)
    assert 0 < row["temporaries"] < 2**27
    c = build.load(f"{ROOT}/configs/balancing_ast.py:tiny")
    parameters = models.parameters(build.make("model", c.model, num_classes=527))
    assert row["arguments"] > 3 * 4 * parameters  # and Adam's two numbers for each
    # The gradient of each parameter is summed over the devices once, in bfloat16 or float32.
    assert 2 * parameters < row["collectives"]["all-reduce"]["bytes"] < 4 * parameters + 1000
    assert not any("unknown_loops" in kind for kind in row["collectives"].values())


def test_a_collective_in_a_loop_counts_as_often_as_the_loop_turns(hlo):
    mesh = sharding.make_mesh("data=2")

    def local(x):
        def turn(carried, _):
            return jnp.cos(jax.lax.psum(carried, "data")), None

        return jax.lax.scan(turn, x, None, length=5)[0]

    rows = PartitionSpec("data")
    run = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False))
    text = run.lower(jnp.ones((2, 8))).compile().as_text()
    assert hlo.collectives(text) == {"all-reduce": {"count": 5, "bytes": 5 * 8 * 4}}


TPU_TEXT = """HloModule m

%piece.1 (p: f32[4]) -> f32[8] {
  %p = f32[4]{0:T(128)} parameter(0)
  ROOT %g.1 = f32[8]{0:T(128)S(1)} all-gather(%p), channel_id=7, dimensions={0}
}

%piece.2 (p: f32[4]) -> f32[8] {
  %p = f32[4]{0:T(128)} parameter(0)
  ROOT %g.2 = f32[8]{0:T(128)S(1)} all-gather(%p), channel_id=7, dimensions={0}
}

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

%body (t: (f32[4], s32[])) -> (f32[4], s32[]) {
  %t = (f32[4]{0:T(128)}, s32[]) parameter(0)
  %r = (bf16[4]{0:T(128)}, bf16[2,3]{1,0:T(8,128)}) all-reduce(%x, %y), channel_id=1, to_apply=%sum
  ROOT %u = (f32[4], s32[]) tuple(%v, %w)
}

%test (t: (f32[4], s32[])) -> pred[] {
  %t.1 = (f32[4]{0:T(128)}, s32[]) parameter(0)
  %bound = s32[]{:T(128)} constant(9)
  %i = s32[]{:T(128)} get-tuple-element(%t.1), index=1
  ROOT %less = pred[]{:T(512)} compare(%i, %bound), direction=LT, metadata={op_name="while/cond"}
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0:T(128)} parameter(0)
  %three = s32[]{:T(128)} constant(3)
  %start = s32[]{:T(128)} copy(%three)
  %carried = (f32[4]{0:T(128)}, s32[]) tuple(%x, /*index=1*/%start)
  %f.1 = f32[8]{0:T(128)} fusion(%x), kind=kCustom, calls=%piece.1
  %f.2 = f32[8]{0:T(128)} fusion(%f.1), kind=kCustom, calls=%piece.2
  %w = (f32[4], s32[]) while(%carried), condition=%test, body=%body, metadata={op_name="a/body"}
  %b = ((f32[4]{0}), (f32[8]{0}), u32[], u32[]) all-gather-start(%x), channel_id=3, dimensions={0}
  ROOT %o = f32[4]{0:T(128)} get-tuple-element(%w), index=0
}
"""


def test_loops_and_fused_pieces_of_a_program_for_tpus(hlo):
    """A counter from 3 to 9; one all-gather in two fusions, and one that begins by itself."""
    assert hlo.collectives(TPU_TEXT) == {
        "all-gather": {"count": 2, "bytes": 8 * 4 + 8 * 4},
        "all-reduce": {"count": 6, "bytes": 6 * (4 + 6) * 2},
    }


def test_a_loop_without_a_known_end_is_named(hlo):
    text = TPU_TEXT.replace("constant(9)", "multiply(%i, %i)")
    found = hlo.collectives(text)
    assert found["all-reduce"] == {"count": 1, "bytes": 20, "unknown_loops": True}
    assert "unknown_loops" not in found["all-gather"]


def test_collectives_of_loops_and_of_what_they_call(hlo):
    """The loop's body calls %deep, which has an all-gather; that of the entry is in no loop."""
    assert [line.split(" = ")[0] for line in hlo.in_loops(TPU_TEXT)] == ["%r"]
    deep = "%deep (p: f32[4]) -> f32[8] {\n  ROOT %g.3 = f32[8] all-gather(%p), channel_id=9\n}\n\n"
    text = TPU_TEXT.replace("%body (t", deep + "%body (t")
    text = text.replace("  ROOT %u =", "  %c = f32[8] call(%x), to_apply=%deep\n  ROOT %u =")
    assert [line.split(" = ")[0] for line in hlo.in_loops(text)] == ["%r", "ROOT %g.3"]

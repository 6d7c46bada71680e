"""The forward pass: rows match ids for any mesh, processes and outputs."""

import gc
import os
import socket
import subprocess
import sys
import textwrap
import threading
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from asjax import build, frontends, labels, sharding
from asjax.config import AsjaxError
from asjax.evaluation import infer


class Echo(nn.Module):
    """A model whose outputs identify their wave."""

    @nn.compact
    def __call__(self, feats, train: bool):
        first = feats[:, 0, :1]
        scale = self.param("scale", nn.initializers.ones, (3,))
        return {
            "logits": first * scale[None],
            "frame_logits": feats[:, :, :1] * scale[None, None],
            "count": jnp.full(len(feats), 7),
            "nothing": None,
        }


def features(wave):
    return frontends.to_float(wave).reshape(len(wave), -1, 2)


VARIABLES = {"params": {"scale": np.float32([1, 10, 100])}}


class Data:
    """An evaluation pipeline with given batches; `closed` counts the passes that ended."""

    def __init__(self, batches, max_bad=9):
        self.batches, self.closed, self.max_bad = batches, 0, max_bad
        self.rows, self.batch_size = np.arange(2), 2
        self.steps_per_epoch = len(batches)

    def iterate(self):
        data = self

        class Pass(list):
            def __enter__(self):
                return self

            def __exit__(self, *_):
                data.closed += 1

        return Pass(self.batches)


def batch(ids, mask, value, bad=(), dtype=np.float32):
    rows = len(mask)
    wave = np.full((rows, 4), value, dtype)
    target = np.eye(rows, 3, dtype=np.float32)
    return {"wave": wave, "target": target, "mask": np.float32(mask), "id": ids, "bad": list(bad)}


def echo(outputs=("logits",), mesh=None):
    return infer.Forward(Echo(), features, mesh or sharding.make_mesh(), outputs)


def test_padding_and_undecodable_clips_are_left_out_and_said_so(capsys):
    data = Data(
        [
            batch(["a", "b"], [1, 1], 1.0),
            batch(["c", ""], [0, 0], 2.0, bad=[("c", "truncated FLAC")]),
            batch(["d", ""], [1, 0], 3.0),
        ]
    )
    bad, forward = [], echo()
    variables = forward.put(VARIABLES)
    ids, logits, targets = infer.scores(forward, variables, data, 3, bad=bad)
    assert ids == ["a", "b", "d"]
    np.testing.assert_array_equal(logits, [[1, 10, 100], [1, 10, 100], [3, 30, 300]])
    np.testing.assert_array_equal(targets, [[1, 0, 0], [0, 1, 0], [1, 0, 0]])
    assert (logits.dtype, targets.dtype) == (np.float32, np.uint8)
    assert bad == [("c", "truncated FLAC")]
    assert data.closed == 1
    assert "left out 1 clip, first c: truncated FLAC" in capsys.readouterr().err


def test_a_model_of_other_classes_or_outputs_is_refused():
    data = Data([batch(["a", "b"], [1, 1], 1.0)])
    with pytest.raises(AsjaxError, match=r"must return logits \(2, 4\).*got \(2, 3\)"):
        infer.scores(echo(), VARIABLES, data, 4, progress=False)
    for name in ("frame_logit", "nothing"):
        with pytest.raises(AsjaxError, match=f"output {name!r} does not exist.*frame_logits"):
            list(echo([name]).over(VARIABLES, data.batches))


def test_any_output_comes_with_the_rest_of_its_batch_and_int16_is_its_32768th():
    batches = [batch([str(i)] * 2, [1, 1], 100 * i, dtype=np.int16) for i in range(5)]
    batches[3]["wave"] = np.arange(8, dtype=np.int16).reshape(2, 4)
    forward = echo(("frame_logits", "count"))
    for ahead in (0, 2):
        found = list(forward.over(forward.put(VARIABLES), batches, ahead))
        assert [rest["id"][0] for _, rest in found] == list("01234")
        assert all(rest.keys() == batches[0].keys() - {"wave"} for _, rest in found)
        frames = found[3][0]["frame_logits"]
        want = np.arange(8).reshape(2, 2, 2)[:, :, :1] * np.float32([1, 10, 100]) / 32768
        np.testing.assert_array_equal(frames, want.astype(np.float32))
        assert found[3][0]["count"].tolist() == [7, 7]
        assert found[3][0]["count"].dtype.kind == "i"


def test_a_batch_is_given_to_the_device_before_the_one_before_it_is_read():
    asked = []

    def batches():
        for i in range(4):
            asked.append(i)
            yield batch(["a", "b"], [1, 1], float(i))

    steps = echo().over(VARIABLES, batches(), ahead=0)
    for i in range(3):
        out, _ = next(steps)
        assert out["logits"][0, 0] == i
        assert asked[-1] == i + 1
    assert next(steps)[0]["logits"][0, 0] == 3


def test_a_pass_that_is_left_stops_its_thread():
    endless = (batch(["a", "b"], [1, 1], 0.0) for _ in iter(int, 1))
    steps = echo().over(VARIABLES, endless)
    next(steps)
    assert "asjax-prefetch" in [t.name for t in threading.enumerate()]
    steps.close()
    gc.collect()
    assert "asjax-prefetch" not in [t.name for t in threading.enumerate()]


def test_weights_that_are_placed_are_not_placed_again():
    forward = echo()
    once = forward.put(VARIABLES)
    twice = forward.put(once)
    for a, b in zip(jax.tree.leaves(once), jax.tree.leaves(twice), strict=True):
        pointers = [[s.data.unsafe_buffer_pointer() for s in x.addressable_shards] for x in (a, b)]
        assert pointers[0] == pointers[1]


def test_rows_follow_ids_on_a_mesh_in_any_order():
    mesh = Mesh(np.array(jax.devices())[::-1], ("data",))
    assert sharding.local_rows(mesh, 4).tolist() == [0, 1, 2, 3]
    rows = {"wave": np.arange(16, dtype=np.float32).reshape(4, 4)}
    ((out, _),) = echo(mesh=mesh).over(VARIABLES, [rows])
    assert out["logits"][:, 0].tolist() == [0, 4, 8, 12]


def test_in_a_single_process_too_many_bad_clips_stop_the_pass_early(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.wav").write_text("no audio")
    (tmp_path / "c.csv").write_text("filename,labels\n" + "".join(f"{i}.wav,x\n" for i in range(8)))
    own = labels.LabelSet("own", ("x",), ("x",))
    source = build.source({"name": "folder", "csv": str(tmp_path / "c.csv")}, own)
    data = build.pipeline(
        source, batch_size=2, sample_rate=100, clip_s=0.04, num_classes=1, train=False, max_bad=0.3
    )
    asked = []

    def over(variables, batches, stop=None):
        for each in batches:
            asked.append(each)
            yield {"logits": np.zeros((2, 1), np.float32)}, each

    with pytest.raises(AsjaxError, match="4 clips of the evaluation set cannot be decoded"):
        infer.scores(SimpleNamespace(over=over), None, data, 1, progress=False)
    assert len(asked) == 1


# ---------------------------------------------------------------------------- several processes

RANK = """
import functools, sys
import numpy as np
from asjax import build, devices, labels, sharding
devices.setup(cpu_devices=2, coordinator="localhost:" + sys.argv[1], num_processes=2,
              process_id=int(sys.argv[2]))
import jax
from jax.sharding import Mesh
from test_infer import VARIABLES, echo
from asjax.config import AsjaxError
from asjax.data import ops
from asjax.evaluation import infer

folder = sys.argv[3]
own = labels.LabelSet("own", ("a", "b", "c"), ("a", "b", "c"))
source = build.source(dict(name="folder", csv=folder + "/clips.csv"), own)
devices = np.array(jax.devices())
decoded = []
original = ops.decode
@functools.wraps(original)
def decode(example, rng, **fields):
    decoded.append(example["id"])
    return original(example, rng, **fields)
ops.decode = decode

def pipeline(mesh, **fields):
    return build.pipeline(
        source, batch_size=8, sample_rate=1000, clip_s=.004, num_classes=3, threads=0,
        rows=sharding.local_rows(mesh, 8), max_bad=.2, **fields)

for order in ([0, 1, 2, 3], [0, 2, 1, 3], [3, 0, 2, 1]):
    mesh = Mesh(devices[order], ("data",))
    data = pipeline(mesh, train=False)
    decoded.clear()
    forward, bad = echo(mesh=mesh), []
    ids, logits, targets = infer.scores(
        forward, forward.put(VARIABLES), data, 3, progress=False, bad=bad)
    # clip i is a constant i / 64, of class i mod 3; clip 5 is broken
    assert ids == [f"{i}.wav" for i in range(21) if i != 5], ids
    numbers = np.array([int(i.split(".")[0]) for i in ids])
    assert np.array_equal(logits, numbers[:, None] / 64 * np.float32([[1, 10, 100]]))
    assert targets.argmax(axis=1).tolist() == (numbers % 3).tolist()
    assert [clip for clip, _ in bad] == ["5.wav"]
    # this process has decoded the rows of its devices and no others
    mine = [k * 8 + int(row) for k in range(3) for row in data.rows]
    assert decoded == [f"{i}.wav" for i in mine if i < 21], (decoded, mine)
    # in training the global batch is in the order of the draws
    train = pipeline(mesh, draw="sequential")
    with train.iterate(2) as batches:
        for step in (2, 3):
            batch = next(batches)
            got = sharding.gather(sharding.place(mesh, batch, owned=True)["wave"])
            whole = np.arange(8 * step, 8 * step + 8) % 21
            real = whole != 5
            assert np.array_equal(got[real, 0], whole[real] / np.float32(64)), got[:, 0]
try:
    data = pipeline(mesh, train=False)
    object.__setattr__(data, "max_bad", 0)
    infer.scores(forward, forward.put(VARIABLES), data, 3, progress=False)
except AsjaxError as error:
    print("all say:", str(error)[:60])
try:
    sharding.local_rows(mesh, 6, "eval.batch_size")
except AsjaxError as error:
    print(error)
print("rank fine")
"""


def test_two_processes_give_rows_to_their_ids_under_any_order_of_devices(tmp_path):
    """Two processes with two devices each, in a mesh that does not list them process by process."""
    import soundfile

    rows = ["filename,labels"]
    for i in range(21):
        soundfile.write(tmp_path / f"{i}.wav", np.full(4, i / 64), 1000, "FLOAT")
        rows.append(f"{i}.wav,{'abc'[i % 3]}")
    (tmp_path / "5.wav").write_text("no audio")
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "ASJAX_CACHE": "off", "PYTHONPATH": path}
    env.pop("XLA_FLAGS", None)
    command = [sys.executable, "-c", textwrap.dedent(RANK), str(port)]
    ranks = [
        subprocess.Popen(
            [*command, str(i), str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env,
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        said = [rank.communicate(timeout=600)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for text in said:
        assert "rank fine" in text, text
        assert "all say: 1 clips of the evaluation set cannot be decoded" in text
        assert "eval.batch_size 6 must be a multiple of the 4 devices" in text

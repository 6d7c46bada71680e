"""Waves that stay on the devices: the same batches, the same weights, and what is refused."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest
import soundfile
from flax.traverse_util import flatten_dict

from asjax import build, labels, sharding
from asjax.config import AsjaxError
from asjax.data import resident, sources
from asjax.store.model_dir import load_model

LABELS = labels.LabelSet("two", ("a", "b"), ("a", "b"))
RATE = 8000


def folder(path, seconds=(0.5, 0.25, 0.4, 0.5, 0.1, 0.3), rate=RATE, subtype="PCM_16"):
    path.mkdir()
    rng, lines = np.random.default_rng(0), ["filename,labels"]
    for i, s in enumerate(seconds):
        wave = rng.uniform(-0.5, 0.5, round(s * rate))
        soundfile.write(path / f"{i}.wav", wave, rate, subtype=subtype)
        lines.append(f"{i}.wav,{'ab'[i % 2]}")
    (path / "list.csv").write_text("\n".join(lines) + "\n")
    return sources.folder(LABELS, csv=path / "list.csv")


def pipe(source, **data):
    fields = dict(num_classes=2, batch_size=4, sample_rate=RATE, clip_s=0.5, seed=3)
    return build.pipeline(source, **fields, **data)


def batches(pipeline, count=4):
    with pipeline.iterate() as found:
        return [next(found) for _ in range(count)]


def filled(pipeline, batch):
    """The batch with the waves of its numbers."""
    return {**batch, "wave": pipeline.table.waves[batch["wave"][:, 0]]}


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_batches_are_those_without_it(tmp_path):
    source = folder(tmp_path / "d")
    plain, kept = pipe(source), pipe(source, resident=True)
    assert kept.table.exact
    assert kept.table.waves.dtype == np.int16
    assert kept.fingerprint == plain.fingerprint
    for a, b in zip(batches(plain), batches(kept), strict=True):
        same(a, filled(kept, b))
    assert "6 clips stay on the devices" in kept.notes[0]


def test_a_clip_that_cannot_be_decoded_is_replaced_as_without_it(tmp_path):
    source = folder(tmp_path / "d")
    (tmp_path / "d" / "3.wav").write_bytes(b"RIFF not a wave")
    source = dataclasses.replace(source, pcm16_hz=RATE)
    plain, kept = pipe(source), pipe(source, resident=True)
    bad = 0
    for a, b in zip(batches(plain, 6), batches(kept, 6), strict=True):
        same(a, filled(kept, b))
        bad += len(a["bad"])
    assert bad


def test_samples_of_other_rates_are_rounded_to_16_bits_and_that_is_said(tmp_path):
    source = folder(tmp_path / "d", rate=12_000)
    plain, kept = pipe(source), pipe(source, resident=True)
    assert not kept.table.exact
    assert kept.fingerprint != plain.fingerprint
    assert "rounded to 16 bits" in kept.notes[0]
    for a, b in zip(batches(plain), batches(kept), strict=True):
        wave = filled(kept, b)["wave"] / np.float32(32768)
        assert np.abs(a["wave"] - wave).max() <= 0.5 / 32768 + 1e-7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(seconds=(0.5, 0.7)), "needs clips of at most clip_s = 0.5 s, and 1.wav has 0.70 s"),
        (dict(ops="multihot"), "must begin with decode | crop"),
        (dict(ops="decode | crop(train_s=0.2) | multihot"), "crop cannot have train_s"),
        (dict(ops="decode | crop | random_piece | multihot"), "host op random_piece may need"),
    ],
)
def test_what_it_cannot_keep_is_one_line(tmp_path, change, message):
    ops = {key: change.pop(key) for key in ("ops",) if key in change}
    with pytest.raises(AsjaxError) as error:
        pipe(folder(tmp_path / "d", **change), resident=True, **ops)
    assert message in str(error.value)


def test_a_set_larger_than_the_memory_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(resident, "_free_memory", lambda: 1000)
    with pytest.raises(AsjaxError, match="GiB are free on this machine"):
        pipe(folder(tmp_path / "d"), resident=True)


@pytest.mark.parametrize("clips", [16, 13])
@pytest.mark.parametrize("split", [False, True])
def test_a_step_gets_the_waves_of_the_numbers_on_two_devices(clips, split, monkeypatch):
    mesh = sharding.make_mesh(devices=jax.devices()[:2])
    rng = np.random.default_rng(0)
    waves = rng.integers(-32768, 32768, (clips, 50)).astype(np.int16)
    monkeypatch.setattr(resident, "_limit", lambda device: waves.nbytes * (1 if split else 100))
    table = resident.placed(waves, mesh)
    assert table.sharding.is_fully_replicated is not split
    step = resident.reading(lambda state, batch, frozen: (state, batch["wave"]), mesh, table)
    numbers = rng.integers(0, clips, (8, 1)).astype(np.int32)
    numbers[0], numbers[1] = 0, clips - 1
    batch = {**sharding.place(mesh, {"wave": numbers}), "table": table}
    _, found = jax.jit(step)(None, batch)
    np.testing.assert_array_equal(found, waves[numbers[:, 0]])


def test_devices_that_are_too_small_are_told(monkeypatch):
    mesh = sharding.make_mesh(devices=jax.devices()[:2])
    monkeypatch.setattr(resident, "_limit", lambda device: 100)
    with pytest.raises(AsjaxError, match="do not fit into 2 devices"):
        resident.placed(np.zeros((10, 50), np.int16), mesh)


@pytest.mark.slow
def test_a_training_has_the_same_weights(tmp_path):
    """Two runs in processes of their own, on files of 16-bit PCM at the model's rate."""
    folder(tmp_path / "d", seconds=[1.0, 0.7, 0.9, 1.0] * 4, rate=16_000)
    path = tmp_path / "d" / "list.csv"
    path.write_text(path.read_text().replace(",a", ",/m/0bt9lr").replace(",b", ",/m/01yrx"))
    data = f"folder(csv='{tmp_path}/d/list.csv')"
    found = []
    for value in ("False", "True"):
        work = tmp_path / value
        command = [sys.executable, "-m", "asjax", "train", "--config=configs/quickstart.py:tiny"]
        command += [f"--workdir={work}", f"--config.data.resident={value}"]
        command += [f"--config.data.train={data}", f"--config.data.eval={data}"]
        command += ["--config.data.clip_s=1.0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
        assert ("16 clips stay on the devices" in done.stdout) is (value == "True")
        found.append(flatten_dict(load_model(work / "model")[2], sep="/"))
    assert found[0].keys() == found[1].keys()
    for key, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][key], err_msg=key)


def test_a_clip_that_is_a_little_too_long_loses_its_end_and_that_is_said(tmp_path):
    kept = pipe(folder(tmp_path / "d", seconds=(0.5, 0.505, 0.3)), resident=True)
    assert kept.table.cut == 1
    assert not kept.table.exact
    assert "1 clip cut at the end" in kept.notes[0]
    whole, _ = soundfile.read(tmp_path / "d" / "1.wav", dtype="int16")
    np.testing.assert_array_equal(kept.table.waves[1], whole[: RATE // 2])


def test_the_field_is_one_of_a_config():
    assert build.load("configs/quickstart.py:tiny", {"data.resident": "True"}).data.resident

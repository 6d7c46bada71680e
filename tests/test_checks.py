"""Wrong parts of a user: `asjax train` ends with one line that names the part and the error."""

import sys

import pytest

from asjax.__main__ import main

PARTS = """
import flax.linen as nn
import jax.numpy as jnp
import optax

value = 3

def op_none(example, rng): return None
def op_drop(example, rng): return {"id": example["id"]}
def op_raise(example, rng): raise RuntimeError("no sound\\nhere")
def op_file(example, rng): return open("/no/such/file")
def op_signature(example): return example

def aug_none(rng, batch): return None
def aug_drop(rng, batch): return {}
def aug_raise(rng, batch): raise RuntimeError("no noise")
def aug_good(rng, batch): return {**batch, "wave": batch["wave"] * 0.5}

class Wide(nn.Module):
    num_classes: int
    @nn.compact
    def __call__(self, feats, *, train=False, augment=None):
        return {"logits": nn.Dense(self.num_classes + 1)(feats.mean(1))}

class Mute(Wide):
    @nn.compact
    def __call__(self, feats, *, train=False, augment=None):
        return {"other": nn.Dense(self.num_classes)(feats.mean(1))}

class Broken(Wide):
    @nn.compact
    def __call__(self, feats, *, train=False, augment=None):
        raise RuntimeError("no weights")

def junk(**fields): return 3
def raises(**fields): raise RuntimeError("no luck")
def no_pair(**fields): return optax.sgd(0.1)
def bad_loss(**fields): return lambda params, stats, batch, rng: 3
def vector_loss(**fields): return lambda params, stats, batch, rng: (jnp.ones(3), ({}, {}))
def key_loss(**fields): return lambda params, stats, batch, rng: batch["nothing"]
"""
CASES = [
    ("data.ops=crop | decode | multihot", "host op crop needs 'wave'"),
    ("data.ops=decode | crop | multihot | {m}:op_none", "{m}:op_none must return the example"),
    ("data.ops=decode | crop | multihot | {m}:op_drop", "{m}:op_drop must keep wave"),
    ("data.ops=decode | crop | multihot | {m}:op_raise", "{m}:op_raise: RuntimeError: no sound "),
    ("data.ops=decode | crop | multihot | {m}:op_file", "{m}:op_file: FileNotFoundError"),
    ("data.ops=decode | crop | multihot | {m}:op_signature", "{m}:op_signature: TypeError"),
    ("data.ops=decode | crop | multihot | {m}:value", "must be a function, got 3"),
    ("data.ops=decode | crop", "the host ops must make labels of one shape"),
    ("augment.wave={m}:aug_none", "augmentation {m}:aug_none must return the batch"),
    ("augment.wave={m}:aug_drop", "augmentation {m}:aug_drop must return the batch"),
    ("augment.wave={m}:aug_raise", "augmentation {m}:aug_raise: RuntimeError: no noise"),
    ("model={m}:Wide()", "model Wide must return a dict with logits [8, 527]"),
    ("model={m}:Mute()", "model Mute must return a dict with logits [8, 527] (clips, classes)"),
    ("model={m}:Broken()", "model Broken: RuntimeError: no weights"),
    ("model={m}:raises()", "model family {m}:raises: RuntimeError: no luck"),
    ("model={m}:junk()", "model family {m}:junk must return a module of flax.linen, got a int"),
    ("frontend={m}:junk()", "frontend {m}:junk must return"),
    ("objective={m}:junk()", "objective {m}:junk must return"),
    ("objective={m}:raises()", "objective {m}:raises: RuntimeError: no luck"),
    ("objective={m}:bad_loss()", "objective {m}:bad_loss: its function must return (loss"),
    ("objective={m}:vector_loss()", "objective {m}:vector_loss: its function must return (loss"),
    ("objective={m}:key_loss()", "objective {m}:key_loss: KeyError: 'nothing'"),
    ("optim={m}:no_pair()", "optimiser {m}:no_pair must return a pair"),
    ("optim={m}:junk()", "optimiser {m}:junk must return a pair"),
    ("data.train={m}:junk()", "data source {m}:junk must return a data source"),
    ("data.draw={m}:junk()", "draw {m}:junk must return a draw"),
    ("data.draw={m}:raises()", "draw {m}:raises: RuntimeError: no luck"),
]


@pytest.fixture
def parts(tmp_path, monkeypatch, repo):
    name = f"parts_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(repo)
    yield name
    sys.modules.pop(name, None)


def train(tmp_path, *fields):
    argv = ["train", "--config=configs/quickstart.py:tiny", f"--workdir={tmp_path / 'run'}"]
    if not any(field.startswith("data.train=") for field in fields):
        argv += ["--config.data.train.splits=('fold1',)"]
    argv += ["--config.data.clip_s=0.5"]
    argv += ["--config.eval.bootstrap=0", *(f"--config.{field}" for field in fields)]
    return main(argv)


@pytest.mark.parametrize(("field", "message"), CASES, ids=[field for field, _ in CASES])
def test_a_wrong_part_is_one_line_that_names_it(field, message, parts, tmp_path, capsys):
    normed = [] if "model=" not in field else ["augment.normed="]
    assert train(tmp_path, *normed, field.format(m=parts)) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("asjax train: error: ")
    assert message.format(m=parts) in last


def test_the_cause_is_shown_on_demand(parts, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ASJAX_DEBUG", "1")
    assert train(tmp_path, f"objective={parts}:raises()") == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "in raises" in err

"""`--trust` of tag, embed and eval: a model folder with the user's own model."""

import sys

import jax
import numpy as np
import pytest
from small_models import LABELS
from small_tagger import steps, write

from asjax import build, config
from asjax.__main__ import main
from asjax.store import model_dir

PARTS = """
import flax.linen as nn

class Tagger(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, feats, train=False, augment=None):
        x = feats.mean(axis=1)
        return {"embedding": x, "logits": nn.Dense(self.num_classes)(x)}

def model(num_classes):
    return Tagger(num_classes)
"""
NAME = "my_trusted_parts:model"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model folder whose model is the user's own code, which is not trusted."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_trusted_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setattr(config, "_TRUSTED", {NAME})
    cfg = {
        "model": {"name": NAME, "num_classes": 3},
        "frontend": {"name": "panns_logmel", "sample_rate": 8000, "n_mels": 8},
        "data": {"sample_rate": 8000, "clip_s": 0.5},
    }
    feats = build.make("frontend", cfg["frontend"])(np.zeros((1, 4000), np.float32))
    variables = build.make("model", cfg["model"]).init(jax.random.key(0), feats)
    model_dir.save_model(
        tmp_path / "m", config=cfg, label_set=LABELS, variables=dict(variables), record={}
    )
    monkeypatch.setattr(config, "_TRUSTED", set())
    yield tmp_path / "m"
    sys.modules.pop("my_trusted_parts", None)


def words_of(verb, folder, tmp_path):
    wav = write(tmp_path / "a.wav", steps(0.3), 8000)
    (tmp_path / "l.csv").write_text("filename,labels\na.wav,Dog\n")
    return {
        "tag": [str(wav)],
        "embed": [str(wav), "--to", str(tmp_path / "e.npz")],
        "eval": ["--data", f"folder(csv='{tmp_path}/l.csv', root='{tmp_path}')", "--bootstrap=0"],
    }[verb]


@pytest.mark.parametrize("verb", ["tag", "embed", "eval"])
def test_own_code_runs_only_if_the_user_names_it(verb, folder, tmp_path, capsys):
    words = [verb, *words_of(verb, folder, tmp_path), "--model", str(folder)]
    for more in ([], ["--trust", "my_trusted_parts:other"]):
        assert main([*words, *more]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert NAME in err
        assert "--trust" in err
    assert main([*words, "--trust", NAME]) == 0
    assert not (tmp_path / "e.npz.parts").exists()


def test_a_name_that_cannot_be_imported_is_one_line(folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "code" / "my_trusted_parts.py").unlink()
    sys.modules.pop("my_trusted_parts", None)
    words = ["tag", *words_of("tag", folder, tmp_path), "--model", str(folder), "--trust", NAME]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "is it on PYTHONPATH?" in err

"""`from_pretrained`, and `save_pretrained` and `push_to_hub` of a tagger (saving.py)."""

import pickle

import jax
import numpy as np
import pytest
from small_models import small_model

import asjax
from asjax import models, predict
from asjax.config import AsjaxError
from asjax.store import model_dir
from asjax.weights import hub, hub_push

library = pytest.importorskip("huggingface_hub")


def test_a_tagger_saves_the_folder_that_it_was_loaded_from(tmp_path, monkeypatch):
    shapes = models.abstract(models.build("cnn", "mini", num_classes=3))
    variables = jax.tree.map(lambda s: np.full(s.shape, 0.01, "f4"), shapes)
    model = small_model(tmp_path / "model", variables)
    tagger = predict.from_pretrained(model, overlap=0.5)
    assert tagger.overlap == 0.5
    to = pickle.loads(pickle.dumps(tagger)).save_pretrained(tmp_path / "out", license="mit")
    assert model_dir.hash_of(to) == model_dir.hash_of(model)
    assert library.ModelCard.load(to / "README.md").data.license == "mit"
    calls = []
    monkeypatch.setattr(hub_push, "push", lambda *args, **how: calls.append((args, how)) or "url")
    assert tagger.push_to_hub("org/name", private=False, revision="v1", license="mit") == "url"
    how = dict(private=False, token=None, commit_message=None, revision="v1", create_pr=False)
    assert calls == [((model, "org/name"), {**how, "licence": "mit"})]
    small_model(model, variables, seed=8)
    with pytest.raises(AsjaxError, match="holds another model now"):
        tagger.save_pretrained(tmp_path / "out")
    tagger.folder = None
    with pytest.raises(AsjaxError, match="was not loaded from a model folder"):
        tagger.push_to_hub("org/name")


def test_the_arguments_go_to_the_hub(monkeypatch, tmp_path):
    asked = []

    def resolve(*args, **how):
        asked.append((args, how))
        return tmp_path

    monkeypatch.setattr(hub, "resolve", resolve)
    with pytest.raises(AsjaxError, match="is empty"):
        asjax.from_pretrained("org/name", revision="v1", cache_dir="c", token=False)
    how = dict(revision="v1", cache_dir="c", token=False, local_files_only=False)
    assert asked[0] == (("org/name",), how)

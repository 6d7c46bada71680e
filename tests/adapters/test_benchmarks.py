"""The rules of HEAR 2021, X-ARES 0.1.3 and MTEB 2.26, restated, on the smallest real models."""

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import jax
import numpy as np
import pytest
from small_models import CONFIG, LABELS, small_model

from asjax import models
from asjax.adapters import hear, mteb, xares
from asjax.config import AsjaxError

SAMPLES = 20_000  # 1.25 s at 16 kHz: more than the model's window of 1 s


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    module = models.build("cnn", "mini", num_classes=3)
    feats = np.zeros((1, *module.example_shape), np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), feats)
    to = tmp_path_factory.mktemp("hear") / "model"
    small_model(to, jax.tree.map(np.asarray, variables), cfg=CONFIG, label_set=LABELS)
    return to


def _audio():
    return np.random.default_rng(0).uniform(-0.5, 0.5, (2, SAMPLES)).astype(np.float32)


def check_hear(module, model, audio):
    """The checks of HEAR's validator, in its order."""
    assert model.sample_rate in (16_000, 22_050, 32_000, 44_100, 48_000)
    assert isinstance(model.scene_embedding_size, int)
    assert isinstance(model.timestamp_embedding_size, int)
    scenes = module.get_scene_embeddings(audio, model)
    assert type(scenes) is type(audio)
    assert "float32" in str(scenes.dtype)
    assert tuple(scenes.shape) == (2, model.scene_embedding_size)
    frames, stamps = module.get_timestamp_embeddings(audio, model)
    assert tuple(frames.shape) == (2, stamps.shape[1], model.timestamp_embedding_size)
    assert tuple(stamps.shape) == tuple(frames.shape[:2])
    stamps = np.asarray(stamps)
    assert (np.diff(stamps) > 0).all()
    assert np.diff(stamps).max() <= 50.001
    assert stamps.min() >= 0
    assert stamps.max() <= 1000 * SAMPLES / model.sample_rate
    assert 1000 * SAMPLES / model.sample_rate - stamps.max() < 50.001
    return np.asarray(scenes), np.asarray(frames)


def test_hear(folder):
    model = hear.load_model(str(folder), batch_size=2)
    check_hear(hear, model, _audio())
    one = hear.get_scene_embeddings(_audio()[:1, :7000], model)  # shorter than the window
    assert one.shape == (1, model.scene_embedding_size)


def test_hear_with_torch(folder):
    torch = pytest.importorskip("torch")
    model = hear.load_model(str(folder), batch_size=2)
    a = check_hear(hear, model, torch.from_numpy(_audio()))
    b = check_hear(hear, model, _audio())
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_hear_needs_a_model(tmp_path):
    with pytest.raises(AsjaxError, match="give a model folder"):
        hear.load_model()
    with pytest.raises(AsjaxError, match="does not exist"):
        hear.load_model(str(tmp_path / "none"))


def test_xares(folder):
    """What X-ARES checks before a run, with its own 3.125 s of noise."""
    torch = pytest.importorskip("torch")
    made = xares.encoder(folder, "MiniEncoder", batch_size=2)()
    assert type(made).__name__.endswith("Encoder")
    assert isinstance(made, torch.nn.Module)
    encoded = made(torch.randn(2, 50_000))
    assert isinstance(encoded, torch.Tensor)
    assert encoded.ndim == 3
    assert encoded.size(0) == 2
    assert encoded.size(2) == made.output_dim
    expected = 50_000 / made.sampling_rate * 1000 / made.hop_size_in_ms
    assert abs(encoded.size(1) - expected) <= 1
    assert made.to("cpu").eval() is made


def test_xares_wants_a_name(folder, monkeypatch):
    with pytest.raises(AsjaxError, match="must end with Encoder"):
        xares.encoder(folder, "mini")
    with pytest.raises(AsjaxError, match="must end with Encoder, got 5"):
        xares.encoder(folder, 5)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(AsjaxError, match="torch is not installed"):
        xares.encoder(folder)


def _fake_mteb(monkeypatch):
    """The two classes that the adapter takes from MTEB, with the fields of its ModelMeta."""
    fields = {
        "loader", "name", "revision", "release_date", "languages", "n_parameters",
        "n_embedding_parameters", "memory_usage_mb", "max_tokens", "embed_dim", "license",
        "open_weights", "public_training_code", "public_training_data", "framework",
        "similarity_fn_name", "use_instructions", "training_datasets", "modalities",
    }  # fmt: skip

    def model_meta(**kw):
        assert set(kw) == fields
        return SimpleNamespace(**kw)

    names = {"mteb": {}, "mteb.models": {"ModelMeta": model_meta}}
    names["mteb.models.abs_encoder"] = {"AbsEncoder": type("AbsEncoder", (), {})}
    for name, content in names.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)


class Loader(list):
    """A DataLoader over rows with a column `audio`."""

    def __init__(self, rows, size=2):
        super().__init__(rows)
        self.size, self.dataset, self.collate_fn = (
            size,
            SimpleNamespace(features={"audio": 0}),
            None,
        )

    def __iter__(self):
        rows = list(super().__iter__())
        for i in range(0, len(rows), self.size):
            yield self.collate_fn(rows[i : i + self.size])


def test_mteb(folder, monkeypatch):
    _fake_mteb(monkeypatch)
    encoder = mteb.encoder(folder, batch_size=2)
    waves = [_audio()[0], _audio()[1, :8000], _audio()[1, :12_000]]
    rows = [{"audio": {"array": w, "sampling_rate": 16_000}, "label": 1} for w in waves]
    rows[0]["audio"]["array"] = np.stack([waves[0], waves[0]])  # stereo
    task = SimpleNamespace(name="task")
    found = encoder.encode(
        Loader(rows), task_metadata=task, hf_split="test", hf_subset="default",
        show_progress_bar=False,
    )  # fmt: skip
    right = hear.Embedder(folder, batch_size=2).clips(waves)
    np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)
    assert encoder.mteb_model_meta.embed_dim == found.shape[1]
    loader = Loader(rows)
    loader.dataset.features = {"text": 0}
    with pytest.raises(AsjaxError, match="no column audio"):
        encoder.encode(loader, task_metadata=task, hf_split="test", hf_subset="default")


def test_mteb_is_missing(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(AsjaxError, match="mteb is not installed"):
        mteb.encoder(folder)


@pytest.mark.parametrize("name", ["core.Embedder", "hear.load_model", "mteb.encoder"])
def test_the_names_of_the_pages_need_no_import_of_their_own(name):
    code = f"import asjax; print(asjax.adapters.{name}.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == f"asjax.adapters.{name.partition('.')[0]}", done.stderr

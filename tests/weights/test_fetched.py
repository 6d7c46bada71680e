"""`asjax.load("cnn14")`: a published checkpoint is fetched, proved, converted and kept."""

import hashlib
import http.server
import json
import threading

import jax
import numpy as np
import pytest
import torch_writer
from checkpoints import weights, with_tables

import asjax
from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.store import model_dir
from asjax.weights import convert, download, fetched, hub, port, published

ROW = published.Row(
    "small_one", "cnn", "mini", "small.pth", (), "mAP .1", "AudioSet eval (x copy)", "MIT"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    found = weights("cnn", "mini", num_classes=527)
    path = tmp_path_factory.mktemp("checkpoint") / "small.pth"
    torch_writer.save(with_tables(found), path)
    return found, path.read_bytes()


@pytest.fixture
def server(checkpoint, tmp_path, monkeypatch):
    """A server with the checkpoint; its row is in the table. `asked` counts requests."""
    content, asked = checkpoint[1], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{found.server_port}/small.pth"
    found.asked, found.row = asked, ROW._replace(
        urls=(url,), sha256=hashlib.sha256(content).hexdigest()
    )  # fmt: skip
    monkeypatch.setenv("ASJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(published, "ROWS", (found.row, *published.ROWS))
    monkeypatch.chdir(tmp_path)
    yield found
    found.shutdown()
    found.server_close()


def test_the_second_load_asks_and_converts_nothing(server, checkpoint, monkeypatch, capsys):
    rate = 16_000
    wave = np.random.default_rng(0).standard_normal(10 * rate).astype("f4") / 10
    tags = asjax.load("small_one")((wave, rate))
    module, variables = port.from_torch("cnn", "mini", checkpoint[0])
    frontend = asjax.frontends.build(**asjax.models.family("cnn").FRONTENDS["mini"])
    wanted = module.apply(variables, frontend(wave[None]), train=False)["logits"][0]
    np.testing.assert_allclose(tags.logits, wanted, rtol=1e-5, atol=1e-5)
    said = capsys.readouterr().err
    assert (
        "mAP .1 on AudioSet eval (x copy), as its authors report; licence of the weights: MIT"
        in said
    )
    assert len(server.asked) == 1
    server.shutdown()
    monkeypatch.setattr(convert, "convert", lambda *a, **k: pytest.fail("it was converted again"))
    monkeypatch.setattr(download, "fetch", lambda *a, **k: pytest.fail("it was fetched again"))
    folder = hub.resolve("small_one")
    assert model_dir.load_model(folder)[3]["ported_from"]["checkpoint"] == "small_one"
    assert asjax.load("small_one").record == model_dir.load_model(folder)[3]
    assert len(server.asked) == 1


def test_the_verbs_take_the_name(server, tmp_path, capsys):
    wav = tmp_path / "x.wav"
    import soundfile

    soundfile.write(wav, np.zeros(16_000, "f4"), 16_000)
    assert main(["tag", str(wav), "--model=small_one", "--top=1"]) == 0
    (tmp_path / "clips").mkdir()
    for i in range(2):
        noise = np.random.default_rng(i).standard_normal(16_000) / 10
        soundfile.write(tmp_path / "clips" / f"{i}.wav", noise, 16_000)
    (tmp_path / "clips.csv").write_text("filename,labels\n0.wav,Dog\n1.wav,Rain\n")
    data = "folder(csv='clips.csv', root='clips')"
    assert main(["eval", "--model=small_one", f"--data={data}", "--bootstrap=0"]) == 0
    capsys.readouterr()
    (out,) = tmp_path.glob("eval-*")  # here, and not in the cache
    assert out.name.startswith("eval-small_one")
    assert (out / "metrics.json").is_file()
    assert sorted(p.name for p in (tmp_path / "cache" / "models").iterdir()) == [
        ".small_one.lock", "small_one",
    ]  # fmt: skip


def test_a_killed_conversion_leaves_nothing_that_is_read(server, monkeypatch):
    real = model_dir.seal

    def kill(folder, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(model_dir, "seal", kill)
    with pytest.raises(KeyboardInterrupt):
        hub.resolve("small_one")
    place = fetched._folder(server.row)
    assert not model_dir.is_model(place)
    monkeypatch.setattr(model_dir, "seal", real)
    leftover = place.with_name(".small_one.0123.new")  # as SIGKILL leaves it
    leftover.mkdir()
    (leftover / ".made-by-asjax").touch()
    (leftover / "card.json").write_text("{")
    assert model_dir.load_model(hub.resolve("small_one"))
    assert not leftover.exists()
    assert len(server.asked) == 1  # the file was there already


def test_a_conversion_of_another_version_is_made_again_from_the_file(server):
    folder = hub.resolve("small_one")
    card = json.loads((folder / "card.json").read_text())

    def age():
        cfg, label_set, variables, _ = model_dir.load_model(folder)
        record = {k: v for k, v in card.items() if k != "sha256"}
        model_dir.save_model(
            folder, config=cfg, label_set=label_set, variables=variables, record=record
        )
        old = json.loads((folder / "card.json").read_text())
        names = [name for name in old.pop("sha256") if name != "card.json"]
        model_dir.seal(folder, {**old, "asjax": "0.0.1"}, names)

    age()
    assert json.loads((hub.resolve("small_one") / "card.json").read_text()) == card
    age()
    (download.folder() / "small.pth").unlink()  # nothing to convert: the old one stays
    assert model_dir.load_model(hub.resolve("small_one"))[3]["asjax"] == "0.0.1"
    assert len(server.asked) == 1


def test_another_file_than_the_published_one_is_not_converted(server, monkeypatch):
    wrong = server.row._replace(sha256="0" * 64)
    monkeypatch.setattr(published, "ROWS", (wrong,))
    with pytest.raises(AsjaxError, match="is not the published small_one"):
        hub.resolve("small_one")
    assert not fetched._folder(wrong).exists()


def test_without_a_network_the_line_has_the_address_and_the_place(
    server, checkpoint, monkeypatch, capsys
):
    away = server.row._replace(urls=("http://127.0.0.1:9/small.pth",))
    monkeypatch.setattr(published, "ROWS", (away,))
    assert main(["export", "small_one", "--safetensors=x.st"]) == 2
    error = capsys.readouterr().err
    place = download.folder() / "small.pth"
    assert error.count("\n") == 1
    assert "there is no network" in error
    assert f"fetch http://127.0.0.1:9/small.pth by other means and put it at {place}" in error
    place.write_bytes(checkpoint[1])
    assert model_dir.is_model(hub.resolve("small_one"))


def test_a_file_that_only_a_browser_can_fetch_has_its_place(server, checkpoint, monkeypatch):
    row = server.row._replace(urls=(), page="https://example.org/page")
    monkeypatch.setattr(published, "ROWS", (row,))
    place = download.folder() / "small.pth"
    with pytest.raises(AsjaxError, match="by hand from https://example.org/page") as caught:
        hub.resolve("small_one")
    assert str(caught.value).endswith(f"put it at {place}")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(checkpoint[1])
    assert model_dir.is_model(hub.resolve("small_one"))


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("passt_s", ["passt_s_swa_p16_128_ap476 (mAP .476)", "passt_s_kd_p16_128_ap486"]),
        ("mn10", ["mn10_as (mAP .471)", "mn10_as_fc"]),
        ("wavegram", None),
        ("convnext", ["convnext_tiny_471 (mAP .471)", "convnext_tiny_465"]),
    ],
)
def test_a_name_of_several_checkpoints_lists_them(name, listed, monkeypatch):
    if listed is None:  # a family with one checkpoint
        assert [row.name for row in fetched.rows_of(name)] == ["wavegram_logmel_cnn14"]
        return
    monkeypatch.setattr(download, "fetch", lambda *a, **k: pytest.fail("something was fetched"))
    with pytest.raises(AsjaxError, match="published checkpoints; give one of") as caught:
        hub.resolve(name)
    assert all(text in str(caught.value) for text in listed)
    assert str(caught.value).count("(mAP") == len(fetched.rows_of(name))


def test_a_name_of_a_checkpoint_and_of_a_variant_is_the_checkpoint():
    assert [row.name for row in fetched.rows_of("cnn14")] == ["cnn14"]
    assert [row.name for row in fetched.rows_of("ced_tiny")] == ["ced_tiny"]
    assert fetched.rows_of("runs") == []


def test_weights_to_train_from_are_no_tagger(monkeypatch):
    monkeypatch.setattr(download, "fetch", lambda *a, **k: pytest.fail("something was fetched"))
    with pytest.raises(AsjaxError, match="is an image model, not a tagger.*imagenet:mn10_im"):
        hub.resolve("mn10_im")


def test_a_training_starts_from_the_name(server, capsys):
    from types import SimpleNamespace

    from asjax.weights import start

    module = asjax.models.build("cnn", "mini", num_classes=527)
    shapes = asjax.models.abstract(module)
    zeros = jax.tree.map(lambda s: jax.numpy.zeros(s.shape, s.dtype), dict(shapes))
    params = zeros.pop("params")
    state = SimpleNamespace(params=params, stats=zeros, average=None)
    state.replace = lambda **new: SimpleNamespace(**{**vars(state), **new})
    spec = {"name": "cnn", "variant": "mini", "num_classes": 527}
    found = start.start(state, "small_one", model=module, spec=spec)
    wanted = model_dir.load_model(hub.resolve("small_one"))[2]["params"]
    jax.tree.map(np.testing.assert_array_equal, found.params, wanted)
    assert "small_one" in capsys.readouterr().out

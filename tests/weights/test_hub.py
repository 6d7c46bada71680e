"""Models of the Hugging Face Hub: names, cache, offline use, round trips over a small hub here."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import fake_hub
import numpy as np
import pytest
from small_models import LABELS, small_model

from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.store import model_dir
from asjax.weights import hub, hub_errors, hub_push

constants = pytest.importorskip("huggingface_hub.constants")
SHA = "a" * 40


@pytest.fixture
def model(tmp_path):
    return small_model(tmp_path / "model")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub for this process, with an empty cache and no token."""
    found = fake_hub.Hub()
    monkeypatch.setattr(constants, "ENDPOINT", found.url)
    template = found.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    yield found
    found.close()


@pytest.fixture
def no_sockets(monkeypatch):
    def refuse(*args):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def line(*words, **how):
    with pytest.raises(AsjaxError) as caught:
        hub.resolve(*words, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("org/name", ("org/name", None)),
        ("org/name@v1.0", ("org/name", "v1.0")),
        ("hf://org/na.me_2@refs/pr/1", ("org/na.me_2", "refs/pr/1")),
        ("hf://org/model.onnx", ("org/model.onnx", None)),
        ("cnn14", None),
        ("runs/quickstart/model", None),
        ("../name", None),
        ("org/..", None),
        ("org/a..b", None),
        ("org/a--b", None),
        ("org/.name", None),
        ("/etc/passwd", None),
        ("org/name.git", None),
        ("export/model.onnx", None),
        ("org/na me", None),
        ("org/nam\u00e9", None),
        ("", None),
    ],
)
def test_what_names_a_repository(text, wanted):
    assert hub.parse(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "hf://name",
        "hf://../x",
        "hf://a/b/c",
        "hf://a/..",
        "hf://",
        "hf:///etc/passwd",
        "hf://a/b\n",
    ],
)
def test_the_scheme_takes_repositories_only(text):
    assert "must be hf://org/name" in line(text)


@pytest.mark.parametrize("revision", ["../../x", "a/../b", "-x", "", "a b", "/etc", "x\n", 3])
def test_a_revision_is_no_path(revision, no_sockets):
    assert "must be a branch, a tag or a commit" in line("hf://org/name", revision=revision)


def test_a_local_path_wins(tmp_path, monkeypatch, no_sockets):
    monkeypatch.chdir(tmp_path)
    small_model(tmp_path / "org" / "name")
    small_model(tmp_path / "cnn14")
    assert hub.resolve("org/name") == Path("org/name")
    assert hub.resolve("cnn14") == Path("cnn14")
    assert hub.resolve("org/other") == Path("org/other")  # the folder org is here
    assert hub.resolve(Path("other/name")) == Path("other/name")  # a Path is a path
    assert hub.resolve("quickstart") == Path("quickstart")  # a bare word is no repository
    with pytest.raises(AsjaxError, match="needs a repository org/name"):
        hub.resolve("org/name", revision="main")


# --------------------------------------------------------------------------------- the round trip


def test_a_pushed_model_comes_back_and_the_second_load_opens_no_socket(
    server, model, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("HF_TOKEN", fake_hub.TOKEN)
    sent = hub_push.push(model, "org/name", private=True, commit_message="one", licence="mit")
    assert sent == f"{server.url}/org/name"
    repo = server.repos["org/name"]
    assert (repo["private"], repo["message"], len(repo["commits"])) == (True, "one", 1)
    folder = hub.resolve("org/name")
    for name in ("card.json", *model_dir.FILES):
        assert (folder / name).read_bytes() == (model / name).read_bytes(), name
    assert model_dir.hash_of(folder) == model_dir.hash_of(model)
    server.asked.clear()
    assert hub.resolve("org/name@main") == folder  # a branch may have moved: asked for anew
    assert server.asked
    server.close()
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("a socket was opened"))
    assert hub.resolve("org/name") == folder
    assert hub.resolve(f"hf://org/name@{folder.name}") == folder
    assert main(["export", "org/name", f"--safetensors={tmp_path / 'x.st'}"]) == 2
    assert "no rule gives the torch name" in capsys.readouterr().err  # so it was found and read


def test_a_branch_that_moved_is_fetched_and_a_plain_name_stays(server, model, tmp_path):
    first = server.add("org/name", fake_hub.files_of(model))
    assert hub.resolve("org/name").name == first
    other = small_model(tmp_path / "other", seed=8)
    second = server.add("org/name", fake_hub.files_of(other))
    assert hub.resolve("org/name").name == first
    assert hub.resolve("org/name@main").name == second
    assert hub.resolve("org/name").name == second
    assert hub.resolve(f"org/name@{first}").name == first
    server.down = 503
    assert hub.resolve("org/name@main").name == second  # out of order: what is in the cache


def test_only_the_files_of_a_model_are_downloaded(server, model):
    more = {"evil.pkl": b"x", "model/evil.bin": b"x", "run.py": b"x", "model.onnx": b"x"}
    server.add("org/name", {**fake_hub.files_of(model), **more})
    folder = hub.resolve("org/name")
    assert {p.name for p in folder.iterdir()} == {"card.json", *model_dir.FILES}
    assert not any(name in path for _, path in server.asked for name in more)


def test_an_interrupted_download_is_completed(server, model):
    server.add("org/name", fake_hub.files_of(model))
    folder = hub.resolve("org/name")
    (folder / "model.safetensors").unlink()
    assert "not wholly in the cache" in line("org/name", local_files_only=True)
    assert hub.resolve("org/name") == folder
    assert (folder / "model.safetensors").is_file()
    card = json.loads((model / "card.json").read_text())
    assert card["sha256"].keys() > {"labels.csv"}
    server.add("org/half", {"card.json": model / "card.json"})
    assert "lacks config.json, labels.csv, model.safetensors" in line("org/half")


def test_an_edited_readme_loads_and_other_files_are_proved(server, model):
    files = fake_hub.files_of(model)
    server.add("org/name", {**files, "README.md": b"mine", "preprocessor_config.json": b"{}"})
    assert model_dir.load_model(hub.resolve("org/name"))[1] == LABELS
    server.add("org/bad", {**files, "labels.csv": b"changed"})
    with pytest.raises(AsjaxError, match=r"labels\.csv was changed or is damaged") as caught:
        model_dir.load_model(hub.resolve("org/bad"))
    assert str(caught.value).endswith("models--org--bad to fetch it again")


def test_the_cache_is_never_written(server, model):
    server.add("org/name", fake_hub.files_of(model))
    folder = hub.resolve("org/name")
    for place in (folder, folder / "sub"):
        with pytest.raises(AsjaxError, match="is in the cache of the Hub"):
            small_model(place)


# --------------------------------------------------------------------------------------- errors


def test_errors_are_one_line_that_says_what_to_do(server, model, monkeypatch):
    server.add("org/private", fake_hub.files_of(model), private=True)
    server.add("org/name", fake_hub.files_of(model))
    for repo in ("org/none", "org/private"):
        assert f"{repo} is no folder here" in line(repo)
        assert "needs a token and none was given" in line(repo)
        assert "the Hub does not know it" in line(f"hf://{repo}", token="hf_other")
    assert "org/name has no revision v9" in line("org/name@v9")
    assert "names another revision" in line("org/name@v9", revision="v8")
    assert "local_files_only is set" in line("org/name", local_files_only=True)
    assert hub.resolve("org/private", token=fake_hub.TOKEN).is_dir()
    server.down = 500
    assert "the Hub cannot be reached" in line("org/third")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'asjax[hub]'" in line("org/name")


def test_a_full_disk_and_a_broken_line_are_told_apart():
    full = OSError(28, "No space left on device")
    assert not hub_errors.no_network(full)
    assert "No space left on device" in str(
        hub_errors.line(full, "org/name", None, False, "fetched")
    )
    assert hub_errors.no_network(ConnectionResetError("cut"))


def test_a_gated_repository_is_said(server, monkeypatch):
    def gated(request, path=None):
        server._error(request, 403, "GatedRepo")

    monkeypatch.setattr(server, "_answer", gated)
    assert "accept its terms" in line("org/name", token=fake_hub.TOKEN)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"config.json": b'{"model_type": "audio-spectrogram-transformer"}',
             "model.safetensors": b"x", "pytorch_model.bin": b"x"},
            "one of transformers (model_type 'audio-spectrogram-transformer'); convert it with: "
            "asjax port org/name --to=FOLDER",
        ),
        ({"pytorch_model.bin": b"\x80", "README.md": b""}, "which was not downloaded or opened"),
        ({"README.md": b"", "a.txt": b""}, "it has no card.json; its files: README.md, a.txt"),
        ({"config.json": b"[1]", "x.gguf": b""}, "its files: config.json, x.gguf"),
        ({"config.json": b"{", "x.gguf": b""}, "config.json cannot be read"),
    ],
)  # fmt: skip
def test_other_repositories_are_named_for_what_they_are(server, files, message):
    server.add("org/name", files)
    assert message in line("org/name")
    served = {path.rpartition("/")[2] for _, path in server.asked if "/resolve/" in path}
    assert served <= {"config.json"}
    before = sorted(p.name for p in Path("cache").rglob("*"))
    assert "pytorch_model.bin" not in before


def test_a_published_repository_of_transformers_is_named_by_its_row(server):
    config = {"config.json": b'{"model_type": "ced"}', "model.safetensors": b"x"}
    server.add("mispeech/ced-tiny", config)
    assert "or load it by its name ced_tiny_hf" in line("mispeech/ced-tiny")


# -------------------------------------------------------------------------------------- offline

_OFFLINE = """
import socket, sys
def refuse(*args):
    raise AssertionError("a socket was opened")
socket.socket.connect = socket.getaddrinfo = refuse
import numpy as np, asjax
wave = np.load(sys.argv[1])
taggers = [asjax.load("org/name"), asjax.load("hf://org/name@v1")]
taggers.append(asjax.from_pretrained("org/name", local_files_only=True, overlap=0.5))
assert taggers[2].overlap == 0.5
np.save(sys.argv[2], [t((wave, 16_000)).logits for t in taggers[:2]])
for name, cache in (("org/none", None), ("org/name@v9", None), ("org/name", sys.argv[3])):
    try:
        asjax.from_pretrained(name, cache_dir=cache)
    except asjax.AsjaxError as error:
        print(error)
"""


def test_offline_a_laid_cache_loads_without_a_socket(tmp_path):
    """HF_HUB_OFFLINE is read when the library is imported, so this is another process."""
    import jax

    from asjax import models, predict
    from asjax.models import build

    module = build("cnn", "mini", num_classes=3)
    rng = np.random.default_rng(0)
    shapes = models.abstract(module)
    variables = jax.tree.map(lambda s: np.abs(rng.normal(size=s.shape)).astype("f4") / 9, shapes)
    model = small_model(tmp_path / "model", variables)
    for revision in ("main", "v1"):
        sha = {"main": SHA, "v1": "b" * 40}[revision]
        fake_hub.lay(tmp_path / "home", "org/name", fake_hub.files_of(model), revision, sha)
    wave = rng.normal(size=40_000).astype("f4") / 10
    np.save(tmp_path / "wave.npy", wave)
    words = [str(tmp_path / name) for name in ("wave.npy", "out.npy", "empty")]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    run = subprocess.run(
        [sys.executable, "-c", _OFFLINE, *words],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    wanted = predict.load(model)((wave, 16_000)).logits
    for found in np.load(tmp_path / "out.npy"):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    none, revision, cache = run.stdout.splitlines()
    assert "repository org/none is not or not wholly in the cache" in none
    assert str(tmp_path / "home" / "hub") in none
    assert "HF_HUB_OFFLINE is set" in none
    assert "repository org/name@v9 is not or not wholly in the cache" in revision
    assert f"not wholly in the cache {tmp_path / 'empty'}" in cache

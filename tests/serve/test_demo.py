"""`asjax demo` without a browser: its folder, the files of onnxruntime-web, and faults."""

import errno
import hashlib
import io
import json
import os
import shlex
import stat
import tarfile

import pytest
import small_tagger

from asjax import predict
from asjax.__main__ import main
from asjax.config import AsjaxError, AsjaxWarning
from asjax.serve import answers, demo, ort
from asjax.serve.service import PAGE


def contents(version=ort.VERSION) -> dict:
    head = f"/*!\n * ONNX Runtime Web v{version}\n */".encode()
    return {name: head if name == "ort.wasm.min.js" else name.encode() for name in ort.SHA256}


@pytest.fixture
def dist(tmp_path, monkeypatch):
    """A folder with files that count as those of the pinned version."""
    folder = tmp_path / "onnxruntime-web" / "dist"
    folder.mkdir(parents=True)
    for name, content in contents().items():
        (folder / name).write_bytes(content)
        monkeypatch.setitem(ort.SHA256, name, hashlib.sha256(content).hexdigest())
    return folder


def write(to, dist, model=lambda path: path.write_bytes(b"model")):
    demo.write(small_tagger.tagger(), "four", model, to, str(dist))


def test_the_folder_has_all_that_the_page_needs(tmp_path, dist):
    write(tmp_path / "site", dist)
    names = {path.name for path in (tmp_path / "site").iterdir()}
    page = {path.name for path in PAGE.iterdir()}
    assert names == page | {"model.onnx", "labels.json", *ort.SHA256, "ort-LICENSE.txt"}
    about = json.loads((tmp_path / "site/labels.json").read_text())
    assert about["onnx"] == "model.onnx"
    assert about["ort"] == ort.VERSION
    assert about["labels"][0] == {"name": "Rain", "id": "/m/a"}
    assert "MIT License" in (tmp_path / "site/ort-LICENSE.txt").read_text()


def test_an_older_page_is_replaced_and_other_files_stay(tmp_path, dist):
    write(tmp_path / "site", dist)
    (tmp_path / "site/CNAME").write_text("mine")
    write(tmp_path / "site", dist, lambda path: path.write_bytes(b"newer"))
    assert (tmp_path / "site/model.onnx").read_bytes() == b"newer"
    assert (tmp_path / "site/CNAME").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["onnxruntime-web", "site"]


def test_a_folder_with_other_contents_stays(tmp_path, dist):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/labels.json").write_text("{}")
    with pytest.raises(AsjaxError, match="other contents"):
        write(tmp_path / "site", dist)
    assert os.listdir(tmp_path / "site") == ["labels.json"]


def test_a_page_that_fails_leaves_the_older_one(tmp_path, dist):
    write(tmp_path / "site", dist)

    def broken(path):
        path.write_bytes(b"half")
        raise AsjaxError("no such primitive")

    with pytest.raises(AsjaxError, match="no such primitive"):
        write(tmp_path / "site", dist, broken)
    assert (tmp_path / "site/model.onnx").read_bytes() == b"model"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["onnxruntime-web", "site"]


def test_the_folder_above_dist_will_do(tmp_path, dist):
    (tmp_path / "out").mkdir()
    assert ort.put(tmp_path / "out", str(dist.parent)) == ort.VERSION


def test_a_file_that_is_missing_or_damaged_is_named(tmp_path, dist):
    (dist / "ort-wasm-simd-threaded.wasm").write_bytes(b"other")
    with pytest.raises(AsjaxError, match=r"ort-wasm-simd-threaded\.wasm is not that of"):
        ort.put(tmp_path, str(dist))
    (dist / "ort-wasm-simd-threaded.wasm").unlink()
    with pytest.raises(
        AsjaxError, match=r"ort-wasm-simd-threaded\.wasm cannot be read: .*npm inst"
    ):
        ort.put(tmp_path, str(dist))
    with pytest.raises(AsjaxError, match="npm install onnxruntime-web@"):
        ort.put(tmp_path, str(tmp_path / "nowhere"))


def test_a_full_disk_is_said_of_to_and_not_of_ort(tmp_path, dist, monkeypatch):
    def full(source, copy):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ort.shutil, "copyfileobj", full)
    with pytest.raises(AsjaxError, match="--to .*site cannot be written: No space left"):
        write(tmp_path / "site", dist)
    assert not (tmp_path / "site").exists()


def test_another_version_is_said(tmp_path, dist):
    for name, content in contents("1.2.3").items():
        (dist / name).write_bytes(content)
    with pytest.warns(AsjaxWarning, match=r"onnxruntime-web 1\.2\.3"):
        assert ort.put(tmp_path, str(dist)) == "1.2.3"


def fake_npm(folder, monkeypatch, script):
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_npm_gives_the_files(tmp_path, dist, monkeypatch):
    package = tmp_path / "package.tgz"
    with tarfile.open(package, "w:gz") as archive:
        for name, content in {**contents(), "../evil": b"x"}.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    said = tmp_path / "said"
    script = f'echo "$@" > {said}\nfor to; do :; done\ncp {package} "$to/x.tgz"'
    fake_npm(tmp_path / "bin", monkeypatch, script)
    (tmp_path / "out").mkdir()
    assert ort.put(tmp_path / "out", None) == ort.VERSION
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.suffix != ".txt"} == (
        contents()
    )
    assert said.read_text().startswith(f"pack onnxruntime-web@{ort.VERSION} ")


def test_npm_that_fails_is_one_line(tmp_path, monkeypatch):
    fake_npm(tmp_path / "bin", monkeypatch, "echo 'npm error network' >&2; exit 1")
    with pytest.raises(AsjaxError, match=r"npm could not get .*npm error network; run npm install"):
        ort.put(tmp_path, None)
    (tmp_path / "bin/npm").write_text('#!/bin/sh\nfor to; do :; done\necho no > "$to/x.tgz"\n')
    with pytest.raises(AsjaxError, match="is damaged"):
        ort.put(tmp_path, None)


def test_without_npm_one_line_says_how(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AsjaxError, match="there is no npm here; run npm install onnxruntime-web@"):
        ort.put(tmp_path, None)


def test_the_printed_command_works_for_any_name(tmp_path, dist, monkeypatch, capsys):
    (tmp_path / "a.onnx").write_bytes(b"x")
    monkeypatch.setattr(predict, "load", lambda path: small_tagger.tagger())
    to = str(tmp_path / "my sité's" / ("long" * 40))
    assert main(["demo", str(tmp_path / "a.onnx"), "--to", to, "--ort", str(dist)]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[-3:] == ["--directory", to, "8000"]


def test_wrong_models_are_one_line(tmp_path, capsys):
    for argv, said in (
        (["no.onnx"], "no.onnx does not exist"),
        (["no"], "does not exist"),
    ):
        assert main(["demo", *argv, "--to", str(tmp_path / "site")]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
    (tmp_path / "a.onnx").write_bytes(b"")
    options = ["--to", str(tmp_path / "site"), "--weights", "int8"]
    assert main(["demo", str(tmp_path / "a.onnx"), *options]) == 2
    assert "--weights" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("runs/quickstart/model", "quickstart"), ("models/cnn14", "cnn14"), ("a/b.onnx", "b"),
        ("runs/x/model/model.onnx", "x"), ("/model", "model"),
    ],
)  # fmt: skip
def test_titles(path, name):
    assert answers.title(path) == name

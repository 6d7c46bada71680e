"""`asjax serve` as people start it: what it prints, and how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
from small_detectors import CLASSES, RATE, make

import asjax
from asjax.__main__ import main

GUARD_S = 600


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "pets" / "model"
    make(folder)
    return folder


START = "import sys; from asjax.__main__ import main; sys.exit(main(sys.argv[1:]))"


@contextmanager
def serving(model, *options, start=START):
    """(process, address) of the verb in a process of its own."""
    command = [sys.executable, "-c", start, "serve", str(model), "--port", "0", *options]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"  # starts sooner
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen(command, env={**os.environ, "XLA_FLAGS": flags}, **pipes)
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"asjax serve: pets on (http://\S+/) \(Ctrl-C ends it\)\n", line)
        assert found, line + process.stderr.read()
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def test_a_model_is_served_until_sigterm(model, tmp_path):
    wave = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype="FLOAT")
    with serving(model) as (process, url):
        assert url.startswith("http://127.0.0.1:")
        body = (tmp_path / "a.wav").read_bytes()
        with urllib.request.urlopen(f"{url}events?scores=1", body, timeout=GUARD_S) as answer:
            found = json.load(answer)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=GUARD_S)
    assert process.returncode == 0, err
    lines = err.splitlines()
    assert lines[-1] == "asjax serve: SIGTERM: stopped"
    assert lines[-2].startswith("asjax serve: POST /events 200 (")
    assert all(line.startswith("asjax serve: ") for line in lines), err
    want = asjax.load(model)(tmp_path / "a.wav")
    np.testing.assert_allclose(found["logits"], want.logits, rtol=1e-4, atol=1e-4)
    assert [t["label"] for t in found["tags"]] == [n for n, _ in want.top(len(CLASSES))]
    times = [(e["onset_s"], e["offset_s"], e["id"]) for e in found["events"]]
    assert times == [(round(e.onset_s, 6), round(e.offset_s, 6), e.id) for e in want.events()]


def test_an_onnx_file_is_served_without_jax(model, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    assert main(["export", str(model), "--onnx", str(tmp_path / "pets.onnx")]) == 0
    wave = np.random.default_rng(1).normal(0, 0.1, 2 * RATE).astype(np.float32)
    soundfile.write(tmp_path / "a.flac", wave, RATE)
    start = f"import sys; sys.modules.update(jax=None, flax=None); {START}"
    with serving(tmp_path / "pets.onnx", start=start) as (_, url):
        body = (tmp_path / "a.flac").read_bytes()
        with urllib.request.urlopen(f"{url}events?scores=1", body, timeout=GUARD_S) as answer:
            found = json.load(answer)
        with urllib.request.urlopen(f"{url}embed", body, timeout=GUARD_S) as answer:
            embedding = json.load(answer)["embedding"]
    want = asjax.load(model)(tmp_path / "a.flac")
    np.testing.assert_allclose(found["logits"], want.logits, atol=1e-3)
    np.testing.assert_allclose([w["p"] for w in found["windows"]], want.windows, atol=1e-3)
    np.testing.assert_allclose(embedding, want.embedding, atol=1e-3)


def test_ctrl_c_ends_it_and_an_open_address_is_said(model):
    with serving(model, "--host", "0.0.0.0") as (process, _):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=GUARD_S)
    assert process.returncode == 0, err
    assert err.splitlines()[-1] == "asjax serve: Ctrl-C: stopped"
    assert "without a password" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "70000"], "--port must be from 0 to 65535"),
        (["--max-mb", "0"], "--max-mb must be"),
        (["--max-minutes", "nan"], "--max-minutes must be"),
    ],
)
def test_wrong_options_are_one_line(model, capsys, options, said):
    assert main(["serve", str(model), *options]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_model_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["serve", str(tmp_path / "no")]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["serve", "demo"])
def test_help_has_an_example(verb, capsys):
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    assert f"asjax {verb} runs/quickstart/model" in capsys.readouterr().out

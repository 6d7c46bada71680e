"""`asjax embed`: rows against naive windows, kills at every moment, files of others left alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_embeddings import check, read, wanted
from small_tagger import steps, tagger, write

from asjax import predict
from asjax.__main__ import main
from asjax.tag import embeddings, parts


@pytest.fixture(autouse=True)
def model(monkeypatch, tmp_path_factory):
    monkeypatch.setattr(predict, "load", lambda path, **kw: tagger(**kw))
    return str(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(capsys, model):
    def call(*words):
        code = main(["embed", *map(str, words), "--model", model])
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


@pytest.fixture
def clips(tmp_path):
    """Three recordings of different lengths: path -> wave."""
    rng = np.random.default_rng(2)
    waves = [rng.uniform(-0.5, 0.5, n).astype(np.float32) for n in (1700, 300, 1000)]
    return {write(tmp_path / "in" / f"{i}.wav", wave): wave for i, wave in enumerate(waves)}


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet"])
@pytest.mark.parametrize(("per", "overlap"), [("file", 0.0), ("window", 0.0), ("window", 0.6)])
def test_rows_equal_naive_windows(tmp_path, run, clips, kind, per, overlap):
    out = tmp_path / f"e.{kind}"
    code, said, err = run(tmp_path / "in", "--to", out, "--per", per, "--overlap", overlap)
    assert (code, err) == (0, "")
    rows = len(wanted(clips, per, overlap)[0])
    assert said == f"3 of 3 files, {rows} embeddings, 4 numbers each, to {out}\n"
    check(out, clips, per, overlap)


def test_many_parts_and_long_recordings_give_the_same(tmp_path, run, clips, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    out = tmp_path / "e.npz"
    assert run(tmp_path / "in", "--to", out, "--per", "window")[0] == 0
    check(out, clips, "window")


def test_failed_files_are_listed_and_every_input_is_counted(tmp_path, run, clips):
    (tmp_path / "in" / "00 bad\x1b.wav").write_text("no sound")
    out = tmp_path / "e.npz"
    for again in ("to", "in"):
        code, said, err = run(tmp_path / "in", "--to", out)
        assert code == 1
        assert said.startswith("3 of 4 files, 3 embeddings")
        assert f" {again} {out}" in said
        first, last = err.splitlines()
        assert "00 bad?.wav" in first
        assert last == "asjax embed: 1 of 4 files could not be embedded"
    check(out, clips)


def test_if_all_files_fail_nothing_is_written(tmp_path, run):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_text("no sound")
    code, said, err = run(tmp_path / "in", "--to", tmp_path / "e.npz")
    assert (code, said) == (1, "")
    assert err.splitlines()[-1].startswith("asjax embed: no file of 1 could be embedded")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


# -------------------------------------------------------------------------------------- resuming


@pytest.fixture
def heard(monkeypatch):
    """The names of the recordings that the model has heard."""
    names, stream = [], predict.Tagger.stream

    def counting(self, sources, **kw):
        names.extend(map(str, sources))
        return stream(self, sources, **kw)

    monkeypatch.setattr(predict.Tagger, "stream", counting)
    return names


def test_a_finished_output_is_made_again_only_after_a_change(tmp_path, run, clips, heard):
    out, folder = tmp_path / "e.npz", tmp_path / "in"
    run(folder, "--to", out)
    about = (out.stat().st_ino, out.stat().st_mtime_ns)
    code, said, _ = run(folder, "--to", out)
    assert (code, said) == (0, f"3 of 3 files, 3 embeddings in {out} already; nothing to do\n")
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == about
    assert len(heard) == 3
    wave = steps(0.4)
    clips[write(folder / "3.wav", wave)] = wave
    assert run(folder, "--to", out)[0] == 0
    check(out, clips)
    changed = next(iter(clips))
    clips[changed] = steps(0.2, 0.1)
    write(changed, clips[changed])
    assert run(folder, "--to", out)[0] == 0
    check(out, clips)
    for words in (("--per", "window"), ("--per", "window", "--overlap", 0.5)):
        assert run(folder, "--to", out, *words)[0] == 2
        assert run(folder, "--to", out, *words, "--overwrite")[0] == 0
        check(out, clips, "window", words[-1] if len(words) > 2 else 0.0)


def test_another_model_starts_again(tmp_path, run, clips, monkeypatch):
    out = tmp_path / "e.npz"
    run(tmp_path / "in", "--to", out)
    monkeypatch.setattr(
        predict,
        "load",
        lambda path, **kw: tagger(record={"sha256": {"card.json": "cd" * 32}}, **kw),
    )
    code, said, err = run(tmp_path / "in", "--to", out)
    assert (code, said, err.count("\n")) == (2, "", 1)
    assert "another value of model; add --overwrite" in err
    assert run(tmp_path / "in", "--to", out, "--overwrite")[0] == 0
    assert str(np.load(out)["model"]) == "cd" * 32


def test_the_embeddings_of_other_inputs_are_not_replaced_without_a_word(tmp_path, run, clips):
    out = tmp_path / "e.npz"
    assert run(tmp_path / "in", "--to", out)[0] == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    code, said, err = run(next(iter(clips)), "--to", out, "--per", "window")
    assert (code, said, err.count("\n")) == (2, "", 1)
    assert "another value of per, inputs; add --overwrite" in err
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert not list(tmp_path.glob("*.parts"))
    assert "nothing to do" in run(tmp_path / "in", "--to", out)[1]


class Killed(BaseException):
    pass


def killed(*_):
    raise Killed


# the functions in which a run may be killed, and how often they are called before
MOMENTS = [
    *((parts.Parts, "add", n) for n in range(3)),
    *((parts.Parts, "flush", n) for n in range(3)),
    *((parts.files, "write_atomic", n) for n in range(2)),
    *((Path, "replace", n) for n in range(7)),
    *((Path, "unlink", n) for n in range(10)),
    *((Path, "rmdir", n) for n in range(1)),
    (parts.Parts, "finish", 0),
    (parts.Parts, "_clear", 0),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name", "n"), MOMENTS)
def test_a_run_killed_at_any_moment_goes_on(
    tmp_path, run, clips, monkeypatch, owner, name, n, after
):
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    out, words = tmp_path / "e.npz", (tmp_path / "in", "--to", tmp_path / "e.npz")
    original, calls = getattr(owner, name), []

    def dies(*args, **kw):
        calls.append(args)
        if len(calls) > n + 1 or (len(calls) == n + 1 and not after):
            raise Killed  # a killed process does nothing more, so later calls fail too
        result = original(*args, **kw)
        if len(calls) == n + 1:
            raise Killed
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dies)
        try:
            run(*words)
        except Killed:
            pass
        else:
            pytest.skip("a run has fewer such calls")
    code, _, err = run(*words)
    assert (code, err) == (0, "")
    check(out, clips)


def test_a_resumed_run_hears_only_what_is_left(tmp_path, run, clips, monkeypatch, heard):
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    original, calls = parts.Parts.add, []

    def dies(self, *args):
        if len(calls) == 2:
            raise Killed
        calls.append(original(self, *args))

    with monkeypatch.context() as patch:
        patch.setattr(parts.Parts, "add", dies)
        with pytest.raises(Killed):
            run(tmp_path / "in", "--to", tmp_path / "e.npz")
    del heard[:]
    assert run(tmp_path / "in", "--to", tmp_path / "e.npz")[0] == 0
    assert heard == [str(list(clips)[2])]
    check(tmp_path / "e.npz", clips)


PROGRAM = """
import sys, time
import small_tagger
from asjax import predict
from asjax.__main__ import main
from asjax.tag import parts
predict.load = lambda path, **kw: small_tagger.tagger(**kw)
parts.PART_BYTES = 1
add = parts.Parts.add
def slow(*args):
    add(*args)
    time.sleep(0.2)
parts.Parts.add = slow
sys.exit(main(["embed", *sys.argv[1:]]))
"""


def test_kill_9_in_the_middle_loses_nothing(tmp_path, run, model):
    clips = {}
    for i in range(8):
        wave = steps(0.1 * (i + 1), 0.2)
        clips[write(tmp_path / "in" / f"{i}.wav", wave)] = wave
    out = tmp_path / "e.npz"
    path = os.pathsep.join([os.path.dirname(os.path.dirname(__file__)), *sys.path])
    words = [
        sys.executable,
        "-c",
        PROGRAM,
        str(tmp_path / "in"),
        "--to",
        str(out),
        "--model",
        model,
    ]
    with subprocess.Popen(words, env={**os.environ, "PYTHONPATH": path}) as process:
        folder, until = tmp_path / "e.npz.parts", time.monotonic() + 100
        while len(list(folder.glob("part-*.npz"))) < 3 and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    assert run(tmp_path / "in", "--to", out)[0] == 0
    check(out, clips)


def test_a_damaged_part_is_computed_again_with_a_word(tmp_path, run, clips, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    with monkeypatch.context() as patch:
        patch.setattr(parts.Parts, "finish", killed)
        with pytest.raises(Killed):
            run(tmp_path / "in", "--to", tmp_path / "e.npz")
    part = tmp_path / "e.npz.parts" / "part-000001.npz"
    part.write_bytes(part.read_bytes()[:-40])
    code, _, err = run(tmp_path / "in", "--to", tmp_path / "e.npz")
    assert code == 0
    assert "part-000001.npz is damaged and is computed again" in err
    check(tmp_path / "e.npz", clips)


def test_one_process_at_a_time(tmp_path, run, clips):
    with parts.opened(tmp_path / "e.npz", {}):
        code, _, err = run(tmp_path / "in", "--to", tmp_path / "e.npz")
    assert code == 2
    assert "another asjax embed writes" in err


# ---------------------------------------------------------------------------- files of other people


@pytest.mark.parametrize(
    "name",
    [
        "e.npz",
        "e.npz.manifest.json",
        "e.npz.parts",
        "e.npz.parts/notes.txt",
        "e.npz.parts/manifest.json",
        "e.npz.parts/part-000000.npz",
        "e.npz.parts/output.tmp",
    ],
)
def test_files_of_others_are_never_replaced_or_removed(tmp_path, run, clips, name):
    place = tmp_path / name
    place.parent.mkdir(exist_ok=True)
    place.write_text('{"made_by": "me"}')
    code, _, err = run(tmp_path / "in", "--to", tmp_path / "e.npz")
    assert (code, err.count("\n")) == (2, 1)
    assert "asjax embed did not write it" in err
    assert place.read_text() == '{"made_by": "me"}'


def test_an_output_that_was_changed_since_is_left_alone(tmp_path, run, clips):
    out = tmp_path / "e.csv"
    run(tmp_path / "in", "--to", out)
    out.write_text(out.read_text() + "my,own,row\n")
    before = out.read_text()
    code, _, err = run(tmp_path / "in", "--to", out, "--per", "window")
    assert code == 2
    assert "changed since" in err
    assert out.read_text() == before


def test_a_file_put_among_the_parts_stays(tmp_path, run, clips, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(parts.Parts, "finish", killed)
        with pytest.raises(Killed):
            run(tmp_path / "in", "--to", tmp_path / "e.npz")
    mine = tmp_path / "e.npz.parts" / "mine.txt"
    mine.write_text("mine")
    assert run(tmp_path / "in", "--to", tmp_path / "e.npz")[0] == 0
    assert [p.name for p in mine.parent.iterdir()] == ["mine.txt"]


# ---------------------------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("IN --to DIR/e.txt", "must end in .npz, .parquet, .csv"),
        ("IN --to DIR", "must end in"),
        ("IN --to=", "must end in"),
        ("IN --to DIR/folder.npz", "must be a file, it is a folder"),
        ("IN --to DIR/no/e.npz", "does not exist"),
        ("IN --to DIR/in/0.wav/e.npz", "does not exist"),
        ("IN --to DIR/e.npz --overlap 1", "less than 1"),
        ("IN --to DIR/e.npz --overlap nan", "less than 1"),
        ("IN --to DIR/e.npz --batch-size 0", "batch_size must be 1 or more"),
        ("IN --to DIR/e.npz --trust x", "--trust must be a name"),
        ("DIR/gone --to DIR/e.npz", "no such file or folder"),
        ("DIR/folder.npz --to DIR/e.npz", "holds no audio"),
        ("DIR/sound.npz --to DIR/sound.npz", "is one of the files to read"),
    ],
)
def test_wrong_use_is_one_line(tmp_path, run, clips, words, match):
    (tmp_path / "folder.npz").mkdir()
    write(tmp_path / "x.wav", steps(0.3)).rename(tmp_path / "sound.npz")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    words = words.replace("IN", str(tmp_path / "in")).replace("DIR", str(tmp_path))
    code, out, err = run(*words.split(" "))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert match in err
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_parquet_without_pyarrow_says_what_to_choose(tmp_path, run, clips, monkeypatch):
    monkeypatch.setattr(embeddings, "find_spec", lambda name: None)
    code, _, err = run(tmp_path / "in", "--to", tmp_path / "e.parquet")
    assert (code, err.count("\n")) == (2, 1)
    assert "choose .npz" in err


def test_names_that_are_not_utf8_stay_different(tmp_path, run):
    names = [b"a\xff.wav", b"a\xfe.wav"]
    for name in names:
        path = write(tmp_path / "in" / "x.wav", steps(0.3))
        path.rename(os.path.join(os.fsencode(path.parent), name).decode("utf-8", "surrogateescape"))
    for kind in ("npz", "csv", "parquet"):
        assert run(tmp_path / "in", "--to", tmp_path / f"e.{kind}")[0] == 0
        got = read(tmp_path / f"e.{kind}")[0]
        assert {name.rpartition("/")[2] for name in got} == {"a\\xff.wav", "a\\xfe.wav"}

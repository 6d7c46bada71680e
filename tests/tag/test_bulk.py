"""`asjax tag --from --to`: tables against `asjax tag`, kills, shards, bad files, other options."""

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import small_tagger
import soundfile
from small_detectors import CLIP_S, RATE, make

from asjax import predict
from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.store import files
from asjax.tag import collection, tables

ROOT = Path(__file__).parents[2]
GUARD_S = 600
LENGTHS = (1.0, 0.4, 2.7, 1.0, 0.1, 5.2, 1.0)  # clips: one window, less, several


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """22 recordings below lake/, two of them bad, and two detectors."""
    root = tmp_path_factory.mktemp("bulk")
    rng = np.random.default_rng(5)
    (root / "lake" / "deep").mkdir(parents=True)
    for i in range(20):
        wave = rng.normal(0, 0.1, round(LENGTHS[i % len(LENGTHS)] * CLIP_S * RATE))
        place = root / "lake" / ("deep" if i % 3 else "") / f"{i:02d} x.wav"
        soundfile.write(place, wave, RATE)
    (root / "lake" / "05 bad.wav").write_text("no sound")
    (root / "lake" / "deep" / "zz empty.wav").touch()
    for name in "ab":
        make(root / name, key=ord(name))
    return root


def tag(root, *words, model="a"):
    models = [f"--model={root / name}" for name in model]
    return main(["tag", *map(str, words), *models, "--batch-size=4"])


def content(folder) -> dict:
    """Every file of a folder: name -> bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def rows(folder) -> list[list[str]]:
    found = []
    for path in sorted(folder.glob("tags-*.tsv")):
        lines = path.read_text().splitlines()
        found += [line.split("\t") for line in lines[1:]]
    return found


def good(root) -> list[Path]:
    paths = sorted((root / "lake").rglob("*.wav"))
    return [p for p in paths if "bad" not in p.name and p.stat().st_size]


@pytest.fixture(scope="module")
def plain(root, tmp_path_factory):
    """The results of one run: folder."""
    out = tmp_path_factory.mktemp("plain") / "tags"
    assert tag(root, "--from", root / "lake", "--to", out, "--unit-size=5") == 1
    return out


def test_each_file_has_the_tags_of_asjax_tag(root, plain, capsys):
    found = rows(plain)
    for path in good(root):
        assert tag(root, path, "--tsv") == 0
        want = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
        name = str(path.relative_to(root / "lake"))
        mine = [row for row in found if row[0] == name]
        assert [row[1:-1] for row in mine] == [row[1:-1] for row in want]
        p = np.array([[row[-1] for row in some] for some in (mine, want)], float)
        np.testing.assert_allclose(p[0], p[1], rtol=0, atol=2e-7)  # batches of 4 or of 1


def test_a_unit_is_byte_for_byte_the_table_of_asjax_tag(root, tmp_path, capsys):
    """A unit of several batches has the batches of `asjax tag FILES`."""
    paths = good(root)
    (tmp_path / "all.txt").write_text("".join(f"{p}\n" for p in paths))
    how = ["--threshold=0.4", "--windows"]
    words = ["--from", tmp_path / "all.txt", "--to", tmp_path / "out"]
    assert tag(root, *words, *how, model="ab") == 0
    capsys.readouterr()
    assert tag(root, *paths, "--tsv", *how, model="ab") == 0
    assert (tmp_path / "out" / "tags-00000.tsv").read_text() == capsys.readouterr().out


def test_every_recording_is_there_once(root, plain):
    names = {str(p.relative_to(root / "lake")) for p in (root / "lake").rglob("*.wav")}
    with (plain / "left_out.csv").open(newline="") as file:
        left = list(csv.reader(file))
    assert left[0] == ["file", "reason"]
    assert [name for name, _ in left[1:]] == ["05 bad.wav", "deep/zz empty.wav"]
    assert "05 bad.wav" in left[1][1]
    tagged = list(dict.fromkeys(row[0] for row in rows(plain)))
    assert sorted([*tagged, *(name for name, _ in left[1:])]) == sorted(names)
    about = json.loads((plain / "manifest.json").read_text())
    assert about["counts"]["recordings"] == len(names) == 22
    assert (about["counts"]["tagged"], about["counts"]["left_out"]) == (20, 2)
    assert about["counts"]["rows"] == len(rows(plain))
    for name, digest in about["files"].items():
        assert hashlib.sha256((plain / name).read_bytes()).hexdigest() == digest
    assert not [p for p in plain.rglob("*") if p.name.startswith((".", "lock"))]


def test_events_are_those_of_asjax_tag(root, tmp_path, capsys):
    how = ["--events", "--threshold=0.45", "--median=0"]
    code = tag(root, "--from", root / "lake", "--to", tmp_path / "out", "--unit-size=6", *how)
    assert code == 1
    capsys.readouterr()
    assert tag(root, *good(root), "--tsv", *how) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    want = [line.split("\t") for line in lines]
    assert (tmp_path / "out" / "tags-00000.tsv").read_text().startswith(header)
    mine = rows(tmp_path / "out")
    assert len(want) > 20
    lake = root / "lake"
    assert [r[:-1] for r in mine] == [[str(Path(r[0]).relative_to(lake)), *r[1:-1]] for r in want]
    p = np.array([[row[-1] for row in some] for some in (mine, want)], float)
    np.testing.assert_allclose(p[0], p[1], rtol=0, atol=2e-7)


@pytest.mark.parametrize("how", [["--windows"], ["--events", "--threshold=0.45"]])
def test_parquet_has_the_rows_of_the_tsv(root, tmp_path, how):
    from pyarrow import parquet

    for kind in ("tsv", "parquet"):
        words = ["--from", root / "lake", "--to", tmp_path / kind, "--format", kind, *how]
        assert tag(root, *words, "--unit-size=9") == 1
    found = [parquet.read_table(p) for p in sorted((tmp_path / "parquet").glob("tags-*.parquet"))]
    assert len(found) == 3
    mine = [list(row.values()) for table in found for row in table.to_pylist()]
    texts = [
        ["" if v is None else f"{v:.7g}" if i == len(row) - 1 else
         f"{v:.6f}" if isinstance(v, float) else str(v) for i, v in enumerate(row)]
        for row in mine
    ]  # fmt: skip
    assert texts == rows(tmp_path / "tsv")


def test_shards_make_the_bytes_of_one_process(root, plain, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--from", root / "lake", "--unit-size=5"]
    for i in (2, 0):
        tag(root, *words, "--to", out, f"--shard={i}/3")
        assert f"shard {i}/3: " in capsys.readouterr().out
        assert not (out / "left_out.csv").exists()
    assert tag(root, *words, "--to", out, "--shard=1/3") == 1
    assert "22 of 22 recordings: 20 tagged, 2 left out" in capsys.readouterr().out
    assert content(out) == content(plain)


def test_folders_of_machines_are_joined_by_copying(root, plain, tmp_path):
    words = ["--from", root / "lake", "--unit-size=5"]
    for i in range(2):
        tag(root, *words, "--to", tmp_path / str(i), f"--shard={i}/2")
    shutil.copytree(tmp_path / "1", tmp_path / "0", dirs_exist_ok=True)
    assert tag(root, *words, "--to", tmp_path / "0") == 1
    assert content(tmp_path / "0") == content(plain)


def started(root, out, **more):
    words = ["tag", "--from", root / "lake", "--to", out, "--model", root / "a"]
    words = [sys.executable, "-m", "asjax", *words, "--batch-size=4", "--unit-size=5"]
    return subprocess.Popen(
        list(map(str, words)),
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **more,
    )


def until(condition, process):
    end = time.monotonic() + GUARD_S
    while not condition() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.002)


def test_kill_9_three_times_makes_the_same_bytes(root, plain, tmp_path):
    """Each kill comes a random time after the next unit is there."""
    out, rng = tmp_path / "out", np.random.default_rng()
    for n in range(3):
        run = started(root, out)
        until(lambda n=n: len(list(out.glob("units/0*.json"))) > n, run)
        time.sleep(rng.uniform(0, 0.05))
        run.kill()
        run.wait(GUARD_S)
    run = started(root, out)
    said, _ = run.communicate(timeout=GUARD_S)
    assert run.returncode == 1, said
    assert "are done already" in said
    assert content(out) == content(plain)


def test_sigterm_ends_with_75_and_the_command_goes_on(root, plain, tmp_path):
    out = tmp_path / "out"
    run = started(root, out)
    until(lambda: list(out.glob("units/0*.json")), run)
    run.send_signal(signal.SIGTERM)
    said, _ = run.communicate(timeout=GUARD_S)
    assert (run.returncode, "goes on" in said) == (75, True), said
    assert tag(root, "--from", root / "lake", "--to", out, "--unit-size=5") == 1
    assert content(out) == content(plain)


def test_a_damaged_unit_is_made_again(root, plain, tmp_path):
    out = shutil.copytree(plain, tmp_path / "out")
    (out / "tags-00001.tsv").write_text("x")
    (out / "units" / "00002.json").write_text("{")
    assert tag(root, "--from", root / "lake", "--to", out, "--unit-size=5") == 1
    assert content(out) == content(plain)


def test_left_out_recordings_are_tried_again_on_demand(root, tmp_path, capsys):
    (tmp_path / "list.csv").write_text("n,file\n1,one.wav\n2,two.wav\n3,one.wav\n")
    soundfile.write(tmp_path / "one.wav", np.ones(400) / 9, RATE)
    words = ["--from", tmp_path / "list.csv", "--to", tmp_path / "out"]
    assert tag(root, *words) == 1
    said = capsys.readouterr()
    assert "1 lines repeat a recording" in said.err
    assert "2 of 2 recordings: 1 tagged, 1 left out" in said.out
    soundfile.write(tmp_path / "two.wav", np.ones(400) / 9, RATE)
    assert tag(root, *words) == 1
    assert tag(root, *words, "--retry") == 0
    assert {row[0] for row in rows(tmp_path / "out")} == {"one.wav", "two.wav"}


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--threshold=0.3"], "threshold"),
        (["--unit-size=6"], "unit_size"),
        (["--events"], "events"),
        (["--format=parquet"], "format"),
        (["--overlap=0.5"], "overlap"),
    ],
)
def test_other_options_are_refused_in_one_line(root, plain, capsys, more, named):
    before = content(plain)
    more = [*([] if named == "unit_size" else ["--unit-size=5"]), *more]
    assert tag(root, "--from", root / "lake", "--to", plain, *more) == 2
    err = capsys.readouterr().err.strip()
    assert "\n" not in err
    assert named in err
    assert "--overwrite" in err
    assert content(plain) == before


def test_another_list_or_model_is_refused_and_overwrite_replaces(root, plain, tmp_path, capsys):
    out = shutil.copytree(plain, tmp_path / "out")
    (out / "units" / "note").touch()
    words = ["--from", root / "lake", "--to", out, "--unit-size=5"]
    assert tag(root, *words, model="b") == 2
    assert "models" in capsys.readouterr().err
    (tmp_path / "list").write_text(f"{good(root)[0]}\n")
    words[1] = tmp_path / "list"
    assert tag(root, *words) == 2
    assert "list" in capsys.readouterr().err
    with (out / "units" / "lock-1-of-2").open("w") as other:
        assert files.lock(other)
        assert tag(root, *words, "--overwrite") == 2
        assert "at work" in capsys.readouterr().err
    assert tag(root, *words, "--overwrite") == 0
    assert [p.name for p in out.glob("tags-*")] == ["tags-00000.tsv"]
    before = (out / "tags-00000.tsv").stat().st_mtime_ns
    assert tag(root, *words, "--overwrite") == 0
    assert (out / "tags-00000.tsv").stat().st_mtime_ns == before  # shards keep others' units


def test_one_process_for_each_shard(root, plain, tmp_path, capsys):
    out = shutil.copytree(plain, tmp_path / "out")
    with (out / "units" / "lock-0-of-1").open("w") as other:
        assert files.lock(other)
        assert tag(root, "--from", root / "lake", "--to", out, "--unit-size=5") == 2
    assert "wait for it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give audio files"),
        (["--from", "x"], "--to"),
        (["--shard=0/2"], "--from"),
        (["a.wav", "--from", "x", "--to", "y"], "not both"),
        (["--from", "x", "--to", "y", "--json"], "--json"),
        (["--from", "x", "--to", "y", "--shard=2/2"], "0/3"),
        (["--from", "nowhere", "--to", "y"], "does not exist"),
        (["--from", "x", "--to", "y", "--unit-size=0"], "--unit-size"),
    ],
)
def test_wrong_options_are_one_line(root, capsys, words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tag(root, *words) == 2
    err = capsys.readouterr().err.strip()
    assert "\n" not in err
    assert said in err


def test_a_folder_of_others_is_left_alone(root, tmp_path, capsys):
    (tmp_path / "note").write_text("mine")
    assert tag(root, "--from", root / "lake", "--to", tmp_path) == 2
    assert "holds other files" in capsys.readouterr().err
    assert content(tmp_path) == {"note": b"mine"}


def test_records_are_tagged_by_id_and_a_damaged_record_is_named(root, tmp_path, capsys):
    paths = good(root)
    lines = [f"{p.relative_to(root / 'lake')},Dog" for p in paths]
    (tmp_path / "list.csv").write_text("\n".join(["filename,labels", *lines]))
    words = ["prepare", "folder", "--csv", tmp_path / "list.csv", "--audio", root / "lake"]
    assert main([*map(str, words), "--labels=own", f"--out={tmp_path / 'records'}"]) == 0
    how = ["--from", tmp_path / "records", "--unit-size=50"]
    assert tag(root, *how, "--to", tmp_path / "out") == 0
    capsys.readouterr()
    assert tag(root, *paths, "--tsv") == 0
    want = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    found = {row[0]: [] for row in rows(tmp_path / "out")}
    for row in rows(tmp_path / "out"):
        found[row[0]].append(row[1:-1])
    assert len(found) == len(paths)
    values = sorted(str([row[1:-1] for row in want if row[0] == str(p)]) for p in paths)
    assert sorted(map(str, found.values())) == values
    shard = next((tmp_path / "records").glob("*.array_record*"))
    content = bytearray(shard.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    shard.write_bytes(content)
    assert tag(root, *how, "--to", tmp_path / "again") == 1
    said = capsys.readouterr().out
    about = json.loads((tmp_path / "again" / "manifest.json").read_text())["counts"]
    assert about["left_out"] >= 1
    assert about["tagged"] + about["left_out"] == len(paths)
    assert f"{len(paths)} of {len(paths)} recordings" in said
    assert "is damaged at record" in (tmp_path / "again" / "left_out.csv").read_text()


def test_one_program_serves_all_units(root, tmp_path, monkeypatch):
    """The model is traced once, although the units have 1 to 20 windows."""
    calls = []

    def counted(variables, feats, train):
        calls.append(feats.shape)
        return small_tagger._apply(variables, feats, train)

    def load(path, **settings):
        made = small_tagger.tagger(**settings)
        made.model.apply = counted
        return made

    monkeypatch.setattr(predict, "load", load)
    words = ["--from", root / "lake", "--to", tmp_path / "out", "--unit-size=3"]
    assert tag(root, *words) == 1
    assert calls == [(4, small_tagger.SIZE)]


def test_tags_above_a_threshold_only_and_recordings_without_one(root, plain, tmp_path, capsys):
    out, best = tmp_path / "out", [float(row[-1]) for row in rows(plain) if row[4] == "1"]
    least = round(float(np.median(best)), 6)
    words = ["--from", root / "lake", "--to", out, "--unit-size=5", f"--threshold={least}"]
    assert tag(root, *words) == 1
    want = [row[:4] + row[5:] for row in rows(plain) if float(row[-1]) >= least]
    mine = [row[:4] + row[5:] for row in rows(out)]
    assert sorted(mine) == sorted(want)
    units = [json.loads(p.read_text()) for p in sorted(out.glob("units/*.json"))]
    without = {name for unit in units for name in unit["without_rows"]}
    assert without == {row[0] for row in rows(plain)} - {row[0] for row in mine}
    assert 0 < len(without) < 20
    assert f"no tag in {len(without)} recordings" in capsys.readouterr().out


def test_names_of_lists(tmp_path):
    odd = os.fsdecode(b"caf\xe9 \xe2\x80\xa8.wav")  # not UTF-8, and a separator of lines in Unicode
    content = b"\xef\xbb\xbfa.wav\r\n\r\n" + os.fsencode(odd) + b"\n/x/b.wav\n"
    (tmp_path / "l").write_bytes(content)
    found = collection.opened(str(tmp_path / "l"))
    assert list(found.names) == ["a.wav", odd, "/x/b.wav"]
    want = [tmp_path / "a.wav", tmp_path / odd, Path("/x/b.wav")]
    assert [found.source(i) for i in range(3)] == want
    joined = b"".join(os.fsencode(name) + b"\0" for name in found.names)
    assert found.hash == hashlib.sha256(joined).hexdigest()
    (tmp_path / "l.tsv").write_text('labels\tpath\nx\t"a\nb.wav"\n\t\n')
    assert list(collection.opened(str(tmp_path / "l.tsv")).names) == ["a\nb.wav"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("l.csv", b"a,b\n", "no column file"),
        ("l", b"\n", "no recording"),
        ("l", b"\0", "not a text"),
    ],
)
def test_lists_that_are_none_are_one_line(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AsjaxError, match=said):
        collection.opened(str(tmp_path / name))


def test_tables_need_pyarrow_for_parquet(monkeypatch):
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    tables.check("tsv")
    with pytest.raises(AsjaxError, match="pyarrow"):
        tables.check("parquet")

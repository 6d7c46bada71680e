"""`asjax tag`: which tags, of which windows, in which form; what `outputs` refuses.

The oracle is naive float64 code.
"""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from small_tagger import LABELS, RATE, SIZE, expected, steps, tagger, windows, write

from asjax import predict
from asjax.__main__ import main
from asjax.data import recordings


@pytest.fixture(autouse=True)
def model(monkeypatch, tmp_path_factory):
    """A model folder that loads as the small tagger."""
    monkeypatch.setattr(predict, "load", lambda path, **kw: tagger(**kw))
    return str(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(capsys, model):
    def call(*words):
        code = main(["tag", *map(str, words), "--model", model])
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def tags_of(text) -> dict:
    return {t["label"]: t["probability"] for t in json.loads(text)["tags"]}


# ------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("n", [1, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE, 1777])
def test_overlapping_windows_equal_naive_ones(n, overlap):
    wave = np.random.default_rng(n).uniform(-1, 1, n).astype(np.float32)
    hop = max(1, round(SIZE * (1 - overlap)))
    found = list(recordings.windows((wave, RATE), RATE, SIZE, name="x", hop=hop))
    wanted = windows(n, overlap)
    assert [start for start, _, _ in found] == [start for start, _ in wanted]
    assert sum(new for _, _, new in found) == n
    for (_, window, _), (start, stop) in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(window, wave[start:stop])


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_rows_per_window_have_the_times_and_tags_of_naive_windows(tmp_path, run, overlap):
    wave = steps(0.05, 0.3, 0.9, 0.15)[:-77]
    path = write(tmp_path / "a.wav", wave)
    code, out, err = run(path, "--json", "--per", "window", "--overlap", overlap, "--top", 4)
    times, p, _ = expected(wave, overlap)
    item = json.loads(out)
    assert (code, err) == (0, "")
    assert "tags" not in item
    got = [(w["start_s"], w["end_s"]) for w in item["windows"]]
    np.testing.assert_allclose(got, times, atol=1e-6)
    for window, row in zip(item["windows"], p, strict=True):
        found = {t["label"]: t["probability"] for t in window["tags"]}
        np.testing.assert_allclose([found[name] for name in LABELS.names], row, atol=1e-5)


def test_per_window_writes_no_rows_for_files_and_windows_writes_both(tmp_path, run):
    path = write(tmp_path / "a.wav", steps(0.3, 0.3))
    alone = list(
        csv.DictReader(io.StringIO(run(path, "--tsv", "--per", "window")[1]), delimiter="\t")
    )
    both = list(csv.DictReader(io.StringIO(run(path, "--tsv", "--windows")[1]), delimiter="\t"))
    file = list(csv.DictReader(io.StringIO(run(path, "--tsv", "--per", "file")[1]), delimiter="\t"))
    assert [row["window"] for row in alone] == ["0"] * 4 + ["1"] * 4
    assert [row["window"] for row in both] == [""] * 4 + ["0"] * 4 + ["1"] * 4
    assert [row["window"] for row in file] == [""] * 4


# --------------------------------------------------------------------------------------- choice


def test_a_threshold_keeps_all_tags_from_it_on_and_top_limits_them(tmp_path, run):
    wave = steps(0.3)
    path = write(tmp_path / "a.wav", wave)
    p = dict(zip(LABELS.names, expected(wave)[1][0], strict=True))
    for threshold in (0.0, 0.01, 0.5, 0.981, 1.0):
        found = tags_of(run(path, "--json", "--threshold", threshold)[1])
        assert set(found) == {name for name, value in p.items() if value >= threshold}
    assert list(tags_of(run(path, "--json", "--threshold", 0.5, "--top", 1)[1])) == ["Rain"]


def test_a_probability_reaches_itself(tmp_path, run):
    path = write(tmp_path / "a.wav", steps(0.237))
    for n, p in enumerate(sorted(tagger()(path).clip, reverse=True), 1):
        assert len(tags_of(run(path, "--json", "--threshold", f"{p:.9g}")[1])) == n


def test_files_without_a_tag_are_mentioned_in_every_form(tmp_path, run):
    loud, quiet = write(tmp_path / "l.wav", steps(0.9)), write(tmp_path / "q.wav", steps(0.01))
    say = f"asjax tag: no tag of 0.7 or more in 1 of 2 files, first {quiet}\n"
    for form in ("--json", "--tsv"):
        assert run(loud, quiet, form, "--threshold", 0.7)[::2] == (0, say)
    code, out, err = run(loud, quiet, "--threshold", 0.7)
    assert (code, err) == (0, "")
    assert out.count("no tag has a probability of 0.7 or more") == 1
    assert run(quiet, "--audacity", tmp_path / "x")[::2] == (
        0,
        f"asjax tag: no tag of 0.5 or more in 1 of 1 files, first {quiet}\n",
    )


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["dog"], [2]),
        (["Rain; Dog"], [0, 2]),
        (["Dog,Rain"], [2, 0]),
        (["Dishes, pots, and pans"], [1]),
        (["Rain, Dishes, pots, and pans,dog"], [0, 1, 2]),
        (["boat, water vehicle;/m/a"], [3, 0]),
        (["3,1"], [3, 1]),
        (["/m/c", "0", "Dog"], [2, 0]),
        (["Rain;;", ";Dog,"], [0, 2]),
        (["@FILE"], [1, 3, 0]),
    ],
)
def test_classes_are_chosen_in_any_spelling(tmp_path, run, words, wanted):
    path = write(tmp_path / "a.wav", steps(0.3))
    listed = tmp_path / "list.txt"
    listed.write_text("\ufeffdishes, pots, and pans\r\n\r\n/m/d\r\nRain\r\n", encoding="utf-8")
    options = [w for word in words for w in ("--classes", word.replace("FILE", str(listed)))]
    _, out, _ = run(path, "--csv", *options)
    assert next(csv.reader(io.StringIO(out)))[3:] == [LABELS.names[i] for i in wanted]
    assert set(tags_of(run(path, "--json", *options)[1])) == {LABELS.names[i] for i in wanted}


# ---------------------------------------------------------------------------------------- forms


@pytest.mark.parametrize("per", ["file", "window"])
def test_the_csv_has_a_column_per_class_and_a_row_per_clip(tmp_path, run, per):
    waves = [steps(0.3), steps(0.05, 0.5), steps(0.9, 0.1)[:-3]]
    paths = [write(tmp_path / f'{i}, "x".wav', wave) for i, wave in enumerate(waves)]
    bad = tmp_path / "bad.wav"
    bad.write_text("no sound")
    out = tmp_path / "table.csv"
    code, printed, err = run(*paths, bad, "--csv", "--per", per, "--out", out)
    assert (code, printed) == (1, "")
    assert "bad.wav" in err
    header, *rows = csv.reader(out.open(encoding="utf-8", newline=""))
    assert header == ["file", "start_s", "end_s", *LABELS.names]
    wanted = []
    for path, wave in zip(paths, waves, strict=True):
        times, p, _ = expected(wave)
        if per == "file":
            times, p = [(0, len(wave) / RATE)], [p.mean(0)]
        wanted += [(str(path), *t, *row) for t, row in zip(times, p, strict=True)]
    assert [row[0] for row in rows] == [row[0] for row in wanted]
    got = np.array([row[1:] for row in rows], float)
    np.testing.assert_allclose(got, [row[1:] for row in wanted], atol=2e-6)


# ------------------------------------------------------------------------------- standard input


class Piped:
    def __init__(self, data, terminal=False):
        self.buffer, self.terminal = io.BytesIO(data), terminal

    def isatty(self):
        return self.terminal


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_standard_input_has_the_tags_of_the_file(tmp_path, run, monkeypatch, kind):
    rate = 16_000 if kind in ("ogg", "mp3") else RATE
    wave = np.repeat(steps(0.3, 0.1, 0.6), rate // RATE)
    path = write(tmp_path / f"a.{kind}", wave, rate)
    monkeypatch.setattr(sys, "stdin", Piped(path.read_bytes()))
    code, out, err = run("-", path, "-", "--json")
    piped, file = out.splitlines()
    assert (code, err) == (0, "")
    assert json.loads(piped)["file"] == "standard input"
    assert tags_of(piped) == pytest.approx(tags_of(file), abs=1e-6)
    monkeypatch.setattr(sys, "stdin", Piped(path.read_bytes()))
    assert run("-", "--json")[1] == f"{piped}\n"


def test_a_real_pipe_is_read(tmp_path):
    path = write(tmp_path / "a.flac", steps(0.3))
    code = (
        "import sys; from asjax.tag import inputs; from asjax.data import audio;"
        "(r,) = inputs.recordings(['-']); print(r.name, audio.info(r.source), r.stamp[:5])"
    )
    with path.open("rb") as file:
        out = subprocess.run(
            [sys.executable, "-c", code], stdin=file, capture_output=True, text=True
        )
    assert out.stdout.startswith(f"standard input Info(rate={RATE}, channels=1, frames={SIZE}) ")


@pytest.mark.parametrize(
    ("stdin", "code", "match"),
    [
        (Piped(b""), 2, "standard input is empty"),
        (Piped(b"x", terminal=True), 2, "pipe a file into it"),
        (None, 2, "pipe a file into it"),
        (Piped(b"no sound"), 1, "standard input is not audio"),
        (Piped(bytes(5000)), 2, "at most 4,000 bytes"),
    ],
    ids=["empty", "terminal", "closed", "text", "long"],
)
def test_a_wrong_standard_input_is_one_line(run, monkeypatch, stdin, code, match):
    monkeypatch.setattr("asjax.tag.inputs.MOST_BYTES", 4000)
    monkeypatch.setattr(sys, "stdin", stdin)
    found, out, err = run("-")
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert match in err


# ---------------------------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("WAV --threshold nan", "--threshold must be a probability from 0 to 1, got nan"),
        ("WAV --threshold 1.01", "from 0 to 1"),
        ("WAV --threshold=-1e-9", "from 0 to 1"),
        ("WAV --overlap 1", "--overlap must be 0 or more and less than 1, got 1.0"),
        ("WAV --overlap nan", "less than 1, got nan"),
        ("WAV --overlap -0.1", "0 or more"),
        ("WAV --classes=", "must name at least one class"),
        ("WAV --classes=;,", "must name at least one class"),
        ("WAV --classes=@", "--classes: @ cannot be read"),
        ("WAV --classes=@DIR", "cannot be read: Is a directory"),
        ("WAV --classes=@WAV", "not a UTF-8 text"),
        ("WAV --classes=@/dev/zero", "must have at most 4,194,304 bytes"),
        ("WAV --classes=@DIR/no", "cannot be read: No such file"),
        ("WAV --classes=Doge", "'Doge' is not a class of four"),
        ("WAV --classes=Rain,Doge", "'Doge' is not a class of four"),
        ("WAV --classes=Dishes,pots,and,pans", "'Dishes,pots,and,pans' is not a class of four"),
        ("WAV --classes=4", "from 0 to 3"),
        ("WAV --classes=-1", "'-1' is not a class"),
        ("WAV --top 0", "--top must be 1 or more"),
        ("WAV --windows --per file", "leave it out with --per"),
        ("WAV --csv --windows", "--per window"),
        ("WAV --csv --top 3", "choose them with --classes"),
        ("WAV --csv --threshold 0.5", "leave out --threshold"),
        ("WAV --audacity DIR/x --top 3", "--top does not choose labels"),
        ("WAV --audacity WAV", "must be a folder"),
        ("WAV --raven WAV/x", "must be a folder"),
        ("WAV --audacity=", "got an empty one"),
        ("WAV --overwrite", "--overwrite is for files"),
        ("WAV --out LIST", "list.txt exists; add --overwrite to replace it"),
        ("WAV --out DIR/no/x.csv", "/no does not exist; make it first"),
        ("WAV --out WAV/x.csv", "a.wav does not exist; make it first"),
        ("WAV --out DIR", "must be a file, it is a folder"),
        ("WAV --out DIR/", "must be a file, it is a folder"),
        ("WAV --out=", "must be a file, it is a folder"),
        ("WAV --out DIR/t/../a.wav", "is one of the files to read"),
        ("WAV --classes @LIST --out LIST", "is one of the files to read"),
        ("WAV --out LINK", "is one of the files to read"),
        ("WAV --out DIR/t/a.txt --audacity DIR/t", "is also the output of --audacity"),
        ("WAV --out DIR/new --audacity DIR/new", "is also the folder of another output"),
        ("WAV --trust os.system", "--trust must be a name such as"),
        ("WAV --trust=", "--trust must be a name such as"),
        ("WAV ", "a path is empty"),
    ],
)
def test_wrong_use_is_one_line_and_nothing_is_written(tmp_path, run, words, match):
    (tmp_path / "t").mkdir()
    wav = write(tmp_path / "a.wav", steps(0.3))
    (tmp_path / "list.txt").write_text("Rain\n")
    (tmp_path / "link").hardlink_to(wav)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    places = {"WAV": wav, "DIR": tmp_path, "LIST": tmp_path / "list.txt", "LINK": tmp_path / "link"}
    for key, place in places.items():
        words = words.replace(key, str(place))
    code, out, err = run(*words.split(" "))
    assert (code, out) == (2, "")
    assert match in err
    assert err.count("\n") == 1
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_out_replaces_a_file_only_if_told_to(tmp_path, run):
    wav, out = write(tmp_path / "a.wav", steps(0.3)), tmp_path / "t.csv"
    assert run(wav, "--csv", "--out", out)[0] == 0
    table = out.read_text()
    assert run(wav, "--tsv", "--out", out)[0] == 2
    assert out.read_text() == table
    assert run(wav, "--tsv", "--out", out, "--overwrite")[0] == 0
    assert out.read_text().startswith("file\twindow")
    assert run(wav, "--out", "/dev/null")[0] == 0


@pytest.mark.parametrize("form", ["--csv", "--tsv"])
def test_names_that_are_not_utf8_stay_different(tmp_path, run, form):
    for name in (b"a\xff.wav", b"a\xfe.wav"):
        path = write(tmp_path / "in" / "x.wav", steps(0.3))
        path.rename(os.path.join(os.fsencode(path.parent), name).decode("utf-8", "surrogateescape"))
    assert run(tmp_path / "in", form, "--out", tmp_path / "t")[0] == 0
    text = (tmp_path / "t").read_text()
    assert "a\\xff.wav" in text
    assert "a\\xfe.wav" in text
    assert run(tmp_path / "in", form)[1] == text


def test_no_output_overwrites_the_model(tmp_path, capsys):
    wav = write(tmp_path / "a.wav", steps(0.3))
    card = tmp_path / "run" / "model" / "card.json"
    card.parent.mkdir(parents=True)
    card.write_text("{}")
    assert main(["tag", str(wav), "--model", str(tmp_path / "run"), "--out", str(card)]) == 2
    assert "is one of the files to read" in capsys.readouterr().err
    assert card.read_text() == "{}"

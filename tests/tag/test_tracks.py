"""Label tracks: merged labels against naive code, files read back by asjax's own readers."""

import os
import unicodedata
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from small_tagger import CLIP_S, LABELS, RATE, expected, steps, tagger, windows, write

from asjax import predict
from asjax.__main__ import main
from asjax.data import strong
from asjax.tag import tracks
from asjax.tag.inputs import Recording

RNG = np.random.default_rng(5)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path_factory):
    monkeypatch.setattr(predict, "load", lambda path, **kw: tagger(**kw))
    model = str(tmp_path_factory.mktemp("model"))

    def call(*words):
        code = main(["tag", *map(str, words), "--model", model])
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def naive_labels(n: int, spans, p, threshold: float) -> set:
    """{(first sample, end, class, highest probability)}: runs of marked samples of each class."""
    found = set()
    for c in range(p.shape[1]):
        marked = [False] * (n + 1)
        for (start, stop), row in zip(spans, p, strict=True):
            if row[c] >= threshold:
                for sample in range(start, stop):
                    marked[sample] = True
        first = None
        for sample in range(n + 1):
            if marked[sample] and first is None:
                first = sample
            elif not marked[sample] and first is not None:
                inside = [
                    row[c]
                    for (start, stop), row in zip(spans, p, strict=True)
                    if first <= start and stop <= sample and row[c] >= threshold
                ]
                found.add((first, sample, c, float(max(inside))))
                first = None
    return found


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("n", [100, 500, 2000, 3333])
def test_labels_are_the_runs_of_samples_under_windows_above_the_threshold(n, overlap):
    spans = windows(n, overlap)
    times = np.array(spans) / RATE
    for _ in range(5):
        p = RNG.uniform(size=(len(spans), 3)).astype(np.float32)
        found = tracks.merged(times, p, 0.6)
        got = {(round(a * RATE), round(b * RATE), c, score) for a, b, c, score in found}
        assert got == naive_labels(n, spans, p, np.float32(0.6))
        assert len(got) == len(found)
        assert [x[:3] for x in found] == sorted(x[:3] for x in found)
        some = tracks.merged(times, p, 0.6, classes=[2, 0])
        assert some == [label for label in found if label.index != 1]


@pytest.mark.parametrize("overlap", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["audacity", "raven"])
def test_tracks_are_read_back_by_the_readers_of_event_lists(tmp_path, run, kind, overlap):
    waves = {"a.wav": steps(0.3, 0.3, 0.05, 0.9), "b/c d.flac": steps(0.45, 0.45)[:-99]}
    paths = {name: write(tmp_path / "in" / name, wave) for name, wave in waves.items()}
    folder = tmp_path / "out"
    code, out, err = run(
        tmp_path / "in", f"--{kind}", folder, "--threshold", 0.6, "--overlap", overlap
    )
    assert (code, err) == (0, "")
    ending = tracks.ENDINGS[kind]
    places = {"a.wav": folder / f"a{ending}", "b/c d.flac": folder / "b" / f"c d{ending}"}
    for name, place in places.items():
        times, p, _ = expected(waves[name], overlap)
        spans = np.rint(times * RATE).astype(int).tolist()
        wanted = naive_labels(len(waves[name]), spans, p, 0.6)
        rows = strong.read(place)
        got = {
            (round(r.onset_s * RATE), round(r.offset_s * RATE), LABELS.index(r.label)) for r in rows
        }
        assert got == {label[:3] for label in wanted}
        assert len(rows) == len(wanted) > 0
        assert {strong.stem(r.recording) for r in rows} == {Path(name).stem}
        assert f"{place}  {len(rows)} labels\n" in out
        tidied = strong.tidy(rows, LABELS, lambda _, name=name: len(waves[name]) / RATE)
        assert (tidied.lines(), tidied.unknown) == ([], {})
        assert paths[name].exists()


def test_the_text_of_a_selection_table_is_what_raven_opens(tmp_path, run):
    write(tmp_path / "in.wav", steps(0.3, 0.3, 0.05))
    run(tmp_path / "in.wav", "--raven", tmp_path / "out", "--audacity", tmp_path / "out")
    head, first, *others = (tmp_path / "out" / "in.Table.1.selections.txt").read_text().split("\n")
    assert head.split("\t")[:7] == [
        "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)",
        "High Freq (Hz)",
    ]  # fmt: skip
    fields = dict(zip(head.split("\t"), first.split("\t"), strict=True))
    assert fields["Score"] == f"{1 / (1 + np.exp(-40 * (0.3 - 0.1))):.6f}"
    assert {k: v for k, v in fields.items() if k != "Score"} == {
        "Selection": "1", "View": "Spectrogram 1", "Channel": "1", "Begin Time (s)": "0.000000",
        "End Time (s)": "1.000000", "Low Freq (Hz)": "0", "High Freq (Hz)": "500",
        "Species": "Rain", "Begin File": "in.wav",
    }  # fmt: skip
    assert others[-1] == ""
    track = (tmp_path / "out" / "in.txt").read_text()
    assert track == "0.000000\t1.000000\tRain\n0.000000\t1.000000\tDishes, pots, and pans\n"


def test_a_recording_without_labels_has_an_empty_track(tmp_path, run):
    write(tmp_path / "q.wav", steps(0.01))
    out = tmp_path / "out"
    run(tmp_path / "q.wav", "--raven", out, "--audacity", out)
    assert (out / "q.txt").read_text() == ""
    assert strong.read(out / "q.Table.1.selections.txt") == []


# ---------------------------------------------------------------------------------------- names


def placed(*names, words=(), kind="audacity", folder="out") -> list[str]:
    found = [Recording(name, Path(name), "") for name in names]
    return [os.fspath(p) for p in tracks.paths(folder, kind, found, words or names).values()]


def test_names_of_tracks_differ_where_those_of_recordings_do():
    assert placed("x/a.wav") == ["out/a.txt"]
    here = os.path.dirname(__file__)
    assert placed(f"{here}/x/y/a.wav", words=[here]) == ["out/x/y/a.txt"]
    assert placed("x/a.wav", "y/a.wav") == ["out/x/a.txt", "out/y/a.txt"]
    assert placed("x/a.wav", "x/a.flac") == ["out/a.wav.txt", "out/a.flac.txt"]
    assert placed("x/a.wav", "x/A.wav") == ["out/a.wav.txt", "out/A.wav-2.txt"]
    assert placed("/in/x/a.wav", "/in/x/y/a.wav") == ["out/a.txt", "out/y/a.txt"]
    both = [unicodedata.normalize(form, "ä") for form in ("NFC", "NFD")]
    assert len({p.casefold() for p in placed(*(f"{x}.wav" for x in both))}) == 2
    ends = ("", ".wav", ".wav.wav", "-2", ".WAV", ".wav-2", ".wav.WAV")
    names = [f"x/{a}{b}.{c}" for a, b, c in product(("n", "N"), ends, ("wav", "flac"))]
    assert len({unicodedata.normalize("NFC", p).casefold() for p in placed(*names)}) == len(names)
    long = placed("x/" + "a" * 230 + "1.wav", "x/" + "a" * 230 + "2.wav", kind="raven")
    assert len(set(long)) == 2
    assert all(len(os.path.basename(p)) < 200 for p in long)


def test_tracks_replace_nothing_unless_told_to(tmp_path, run):
    wav, out = write(tmp_path / "a.wav", steps(0.3)), tmp_path / "out"
    out.mkdir()
    (out / "a.txt").write_text("0\t1\tmine\n")
    code, _, err = run(wav, "--audacity", out)
    assert code == 2
    assert "1 of 1 files exist already" in err
    assert (out / "a.txt").read_text() == "0\t1\tmine\n"
    assert run(wav, "--audacity", out, "--overwrite")[0] == 0
    assert (out / "a.txt").read_text().startswith("0.000000\t0.500000\tRain")
    named = write(tmp_path / "x.wav", steps(0.3)).rename(tmp_path / "x.txt")
    before = named.read_bytes()
    assert run(named, "--audacity", tmp_path, "--overwrite")[0] == 2
    assert named.read_bytes() == before


def test_a_damaged_file_has_no_track_and_the_others_have(tmp_path, run):
    wav = write(tmp_path / "in" / "a.wav", steps(0.3))
    (tmp_path / "in" / "b.wav").write_text("no sound")
    code, out, err = run(wav.parent, "--audacity", tmp_path / "out")
    assert code == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.txt"]
    assert "b.wav" in err
    assert "1 of 2 files could not be tagged" in err
    assert CLIP_S == 0.5

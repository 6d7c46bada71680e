"""`asjax eval --restrict-to`: two models on their common clips, and what compare says of others."""

import hashlib

import numpy as np
import pytest
from test_scoring import clips as clips
from test_scoring import make_model

from asjax import labels
from asjax.__main__ import main
from asjax.data import content, records, sources, writer
from asjax.data.clips import Clip
from asjax.store import clip_list
from asjax.store.scores import load_scores


@pytest.fixture
def two(tmp_path, clips):
    """Two models with the data each was scored on: B lacks clip 4 and has another clip 2."""
    import shutil

    import soundfile

    other = tmp_path / "other"
    shutil.copytree(clips, other)
    soundfile.write(other / "2.wav", np.zeros(4000) + 0.1, 8000)
    (other / "4.wav").unlink()
    lines = (other / "clips.csv").read_text().splitlines()
    (other / "clips.csv").write_text("\n".join(lines[:-1]) + "\n")
    made = []
    for name, folder, key in (("a", clips, 0), ("b", other, 1)):
        make_model(tmp_path / name / "model", folder, key=key)
        assert main(["eval", f"--model={tmp_path / name / 'model'}", "--bootstrap=0"]) == 0
        made.append(tmp_path / name)
    return made, [clips, other]


def digest(path):
    """As asjax.data.content documents it: of the size and all bytes."""
    data = path.read_bytes()
    return hashlib.sha256(f"{len(data)}\n".encode() + data).hexdigest()


def test_scores_have_the_hash_of_their_clips(two, capsys):
    (a, b), folders = two
    for run, folder in zip((a, b), folders, strict=True):
        loaded = load_scores(run / "eval" / "scores.npz")
        wanted = [digest(folder / clip) for clip in loaded["ids"]]
        assert clip_list.as_hex(loaded["content"]) == wanted
    assert main(["compare", str(a), str(b), "--bootstrap=10", f"--out={a / 'compare'}"]) == 0
    note = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("note: "))
    assert "different clips, 5 (" in note
    assert "1 of 4 common clips have other audio" in note


def test_two_models_on_their_common_clips(two, capsys):
    (a, b), _ = two
    for run, other in ((a, b), (b, a)):
        words = [f"--model={run / 'model'}", "--bootstrap=0", f"--restrict-to={other}"]
        assert main(["eval", *words]) == 0
        text = capsys.readouterr()
        assert "1 of 4 clips have other audio than in the list, such as 2.wav" in text.err
        assert ("of its 5 clips are not in the data" in text.err) == (run == b)
        got = load_scores(run / "eval-restricted" / "scores.npz")
        whole = load_scores(run / "eval" / "scores.npz")
        rows = [whole["ids"].index(clip) for clip in got["ids"]]
        assert sorted(got["ids"]) == [f"{i}.wav" for i in range(4)]
        np.testing.assert_allclose(got["scores"], whole["scores"][rows], atol=1e-5)
        out = run / "again"
        stored = ["--scores", str(run / "eval" / "scores.npz"), "--bootstrap=0", f"--out={out}"]
        assert main(["eval", *stored, f"--restrict-to={other}"]) == 0
        again = load_scores(out / "scores.npz")
        np.testing.assert_array_equal(again["scores"], whole["scores"][rows])
        np.testing.assert_array_equal(again["content"], whole["content"][rows])
        capsys.readouterr()
    pair = [str(run / "eval-restricted") for run in (a, b)]
    assert main(["compare", *pair, "--bootstrap=10", f"--out={a / 'compare'}"]) == 0
    out = capsys.readouterr().out
    assert "the same clips with other audio" in out
    only = a / "only.txt"
    only.write_text("0.wav\n1.wav\n3.wav\n")
    for run in (a, b):
        words = [f"--model={run / 'model'}", "--bootstrap=0", f"--out={run / 'three'}"]
        assert main(["eval", *words, f"--restrict-to={a}", f"--restrict-to={only}"]) == 0
    pair = [str(run / "three") for run in (a, b)]
    capsys.readouterr()
    assert main(["compare", *pair, "--bootstrap=10", f"--out={a / 'compare'}"]) == 0
    assert "note:" not in capsys.readouterr().out


def test_wrong_lists_are_one_line(two, tmp_path, capsys):
    (a, _), _ = two
    (tmp_path / "none.txt").write_text("other.wav\n")
    for words, message in (
        (["--restrict-to", str(tmp_path / "none.txt")], "the data have no clip of"),
        (["--restrict-to", str(tmp_path / "gone.csv")], "cannot be read"),
        (["--restrict-to", str(a), "--restrict-to", str(tmp_path / "none.txt")], "in all of"),
    ):
        assert main(["eval", f"--model={a / 'model'}", *words]) == 2
        err = capsys.readouterr().err
        assert message in err.splitlines()[-1]
        assert "Traceback" not in err


def test_records_have_the_hashes_of_their_manifest(tmp_path, clips):
    label_set = labels.get("esc10")
    made = [Clip(f"{i}", clips / f"{i}.wav", (label_set.ids[i],), "eval") for i in range(5)]
    writer.write(tmp_path / "set", made, label_set, progress=False)
    source = sources.records(label_set, path=tmp_path / "set")
    got = clip_list.as_hex(content.of_source(source, ["3", "1"]))
    assert got == [hashlib.sha256((clips / f"{i}.wav").read_bytes()).hexdigest() for i in (3, 1)]
    assert [row[6] for row in records.Dataset(tmp_path / "set").rows()][1] == got[1]

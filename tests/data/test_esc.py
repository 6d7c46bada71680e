"""ESC builders: ESC-50 from a user's copy, ESC-10 from a labels table."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asjax import build, labels
from asjax.__main__ import main as asjax_main
from asjax.config import AsjaxError
from asjax.data import esc50 as esc50_set
from asjax.data import records, sources

REPO = Path(__file__).parent.parent.parent
ROWS = [  # three rows of esc50.csv, one per kind of class
    ("1-100032-A-0.wav", 1, 0, "dog", True, 100032, "A"),
    ("2-100786-A-1.wav", 2, 1, "rooster", True, 100786, "A"),
    ("5-9032-A-12.wav", 5, 12, "crackling_fire", True, 9032, "A"),
]


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("esc_builder", REPO / "data_prep" / "esc.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def esc50(tmp_path):
    (tmp_path / "ESC-50" / "meta").mkdir(parents=True)
    (tmp_path / "ESC-50" / "audio").mkdir()
    with (tmp_path / "ESC-50" / "meta" / "esc50.csv").open("w", newline="") as f:
        out = csv.writer(f)
        out.writerow(["filename", "fold", "target", "category", "esc10", "src_file", "take"])
        out.writerows(ROWS)
    for i, row in enumerate(ROWS):
        wave = 0.3 * np.sin(np.arange(44100) * (0.02 + 0.01 * i))
        soundfile.write(tmp_path / "ESC-50" / "audio" / row[0], wave, 44100)
    return tmp_path / "ESC-50"


def test_esc50_becomes_records_in_its_official_folds(esc50, tmp_path):
    out = tmp_path / "esc50" / "1.0.0"
    assert asjax_main(["prepare", "esc50", "--source", str(esc50), "--out", str(out)]) == 0
    source = build.source({"name": "records", "path": str(out)}, labels.get("esc50"))
    assert source.ids == [Path(row[0]).stem for row in ROWS]
    assert source.split == [f"fold{row[1]}" for row in ROWS]
    assert source.labels.indices.tolist() == [row[2] for row in ROWS]
    for i, row in enumerate(ROWS):
        assert source[i]["audio"] == (esc50 / "audio" / row[0]).read_bytes()
    opened = records.Dataset(out)
    assert [row[3] for row in opened.rows()] == [row[3] for row in ROWS]
    assert "clip 100032" in (out / "ATTRIBUTION.csv").read_text()


def test_esc50_under_audioset_labels_uses_the_map_of_mids(esc50):
    clips = esc50_set.clips(esc50, labels.get("audioset527"))
    assert [set(c.labels) for c in clips] == [
        {"/m/05tny_"}, {"/m/07qn5dc"}, {"/m/02_41", "/m/07pzfmf"}
    ]  # fmt: skip


def test_what_is_no_esc50_is_told_so(esc50, tmp_path):
    with pytest.raises(AsjaxError, match="meta/esc50.csv is missing"):
        esc50_set.clips(tmp_path / "audio", labels.get("esc50"))
    (esc50 / "meta" / "esc50.csv").write_text("filename,fold\na.wav,1\n")
    with pytest.raises(AsjaxError, match="must have the columns category, filename, fold"):
        esc50_set.clips(esc50, labels.get("esc50"))


def test_esc10_is_built_without_the_sampling_licence(tmp_path, builder, capsys):
    wave = 0.3 * np.sin(np.arange(44100) * 0.05)
    table = tmp_path / "labels.csv"
    columns = "filename,set,license,attribution,mids,original_label,split\n"
    table.write_text(
        columns
        + "esc10/dog/1-1-A-0.ogg,esc10,CC0,me,/m/05tny_,dog,fold1\n"
        + "esc10/rooster/1-2-A-1.ogg,esc10,CC Sampling+ 1.0,you,/m/07qn5dc,rooster,fold1\n"
        + "esc10/clock/2-3-A-38.ogg,esc10,CC-BY-3.0,her,/m/01x3z;/m/07qjznt,clock_tick,fold2\n"
        + "fsdd/x.flac,fsdd,CC0,x,/m/09x0r,x,train\n"
    )
    for name in ("dog/1-1-A-0", "rooster/1-2-A-1", "clock/2-3-A-38"):
        (tmp_path / "esc10" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "esc10" / f"{name}.ogg", wave, 44100)
    words = ["esc10", "--audio", str(tmp_path), "--labels", str(table)]
    assert builder.main([*words, "--out", str(tmp_path / "out")]) == 0
    assert "left out 1:" in capsys.readouterr().out
    opened = records.Dataset(tmp_path / "out", verify=True)
    assert opened.manifest["left_out"][0]["id"] == "1-2-A-1"
    assert opened.manifest["licences"] == {"CC0": 1, "CC-BY-3.0": 1}
    assert [r[:4] + r[5:6] for r in opened.rows()] == [
        ["1-1-A-0", "fold1", "/m/05tny_", "dog", "32000"],
        ["2-3-A-38", "fold2", "/m/01x3z;/m/07qjznt", "clock_tick", "32000"],
    ]
    assert builder.main([*words, "--out", str(tmp_path / "out")]) == 2


def test_every_embedded_clip_has_a_licence_and_the_whole_fits_twelve_megabytes():
    folder = records.find(sources.ESC10)
    with (folder / "ATTRIBUTION.csv").open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    ids = [row[0] for row in records.Dataset(folder).rows()]
    assert sorted(row["id"] for row in rows) == sorted(ids)
    assert {row["licence"] for row in rows} == {"CC0", "CC-BY-3.0"}
    assert all(row["attribution"] for row in rows)
    assert sum(p.stat().st_size for p in sources.ESC10.rglob("*")) < 12e6

"""Files of `asjax embed` in any format, and the same rows from naive windows."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from small_tagger import HASH, RATE, expected


def wanted(clips, per, overlap=0.0):
    """(names, times, embeddings) in the order of the output, naively."""
    names, times, rows = [], [], []
    for path, wave in clips.items():
        t, _, e = expected(wave, overlap)
        if per == "file":
            t, e = [(0.0, len(wave) / RATE)], [e.mean(axis=0)]
        names += [str(path)] * len(t)
        times += list(t)
        rows += list(e)
    return names, np.array(times), np.array(rows)


def read(path: Path):
    """(names, times, embeddings, model, layer) of an output of any format."""
    if path.suffix == ".npz":
        data = np.load(path, allow_pickle=False)
        times = np.stack([data["start_s"], data["end_s"]], 1)
        assert json.loads(str(data["about"]))["model"] == HASH
        about = str(data["model"]), str(data["layer"])
        assert data["embedding"].dtype == np.float32
        return data["file"].tolist(), times, data["embedding"], *about
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        rows = parquet.read_table(path).to_pylist()
    else:
        rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
        for row in rows:
            row["embedding"] = [float(v) for k, v in row.items() if k[0] == "e" and k[1:].isdigit()]
    times = np.array([(float(r["start_s"]), float(r["end_s"])) for r in rows])
    about = {(r["model"], r["layer"]) for r in rows}
    assert len(about) == 1
    return [r["file"] for r in rows], times, np.array([r["embedding"] for r in rows]), *about.pop()


def check(path, clips, per="file", overlap=0.0):
    names, times, rows = wanted(clips, per, overlap)
    got = read(path)
    assert got[0] == names
    np.testing.assert_allclose(got[1], times, atol=1e-6)
    np.testing.assert_allclose(got[2], rows, atol=1e-6)
    assert got[3:] == (HASH, "embedding")
    left = {
        p.name for p in path.parent.iterdir() if p.name.startswith((path.name, f".{path.name}"))
    }
    assert left == {path.name, f"{path.name}.manifest.json"}

"""Hand-made model folders, and damaged ones with correct hashes."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np

from asjax import config
from asjax.labels import LabelSet
from asjax.store import files, model_dir

LABELS = LabelSet("three", ("a", "b", "c"), ("Dog", "Cat", "Rain, heavy"))
CONFIG = {
    "model": {"name": "cnn", "variant": "mini", "num_classes": 3},
    "frontend": {"name": "panns_logmel64_16k"},
    "data": {"sample_rate": 16_000, "clip_s": 1.0},
}
VARIABLES = {
    "params": {"conv": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}},
    "batch_stats": {"bn": {"mean": np.float32(2.5), "half": np.ones(3, ml_dtypes.bfloat16)}},
}


def small_model(directory, variables=VARIABLES, seed=7, cfg=CONFIG, label_set=LABELS):
    record = {"hlp": True, "beta": 0.5, "seed": seed, "scores": {"mean_ap": 0.9}}
    return model_dir.save_model(
        directory, config=cfg, label_set=label_set, variables=variables, record=record
    )


def reseal(folder: Path, **card) -> None:
    """Correct the hashes of a folder after a change of its files."""
    old = json.loads((folder / "card.json").read_text())
    names = [name for name in old["sha256"] if name != "card.json"]
    card = {**old, "sha256": {name: files.digest(folder / name) for name in names}, **card}
    if isinstance(card["sha256"], dict):
        sums = {k: v for k, v in card["sha256"].items() if k != "card.json"}
        card["sha256"] = {**sums, "card.json": config.fingerprint({**card, "sha256": sums})}
    (folder / "card.json").write_text(json.dumps(card))

"""A published checkpoint by its name, as a model folder: `asjax.load("cnn14")`.

The checkpoint is downloaded and proved (download.py), converted (convert.py) and kept in the folder
`models` of asjax's cache (`devices.cache_folder`). The folder appears complete or not at all
(store.swap), so a killed conversion leaves nothing that could be read. A later load opens no
socket and converts nothing.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from asjax.config import AsjaxError
from asjax.store import files, model_dir, schema
from asjax.weights import download, published


def rows_of(name: str) -> list[published.Row]:
    """The published checkpoints for a name: of a checkpoint, else of a variant or a family."""
    row = published.find(name)
    if row is not None:
        return [row]
    by_variant = [row for row in published.ROWS if row.variant == name]
    return by_variant or [row for row in published.ROWS if row.family == name]


def model(name: str) -> Path:
    """The model folder of a published checkpoint.

    Raises:
      AsjaxError: several checkpoints have this name, it is no tagger, or it cannot be fetched. With
        no network the line has the address and the place for the file.
    """
    from asjax.weights import convert

    found = rows_of(name)
    if len(found) > 1:
        listed = ", ".join(f"{row.name} ({row.score})" for row in found)
        raise AsjaxError(f"{name} has {len(found)} published checkpoints; give one of {listed}")
    row = found[0]
    convert.refuse_start(row)
    folder = _folder(row)
    if _ready(folder, row):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{row.name}.lock").open("a") as lock:
        waits = False
        while not files.lock(lock):
            if not waits:
                print(f"{row.name}: another process fetches it; waiting for it", file=sys.stderr)
            waits = True
            time.sleep(0.5)
        if not _ready(folder, row):
            done = convert.convert(row.name, folder, overwrite=True, progress=True)
            print(
                f"{row.name}: {row.claim}; licence of the weights: {row.licence}; converted "
                f"{done['checkpoint']} to {folder}",
                file=sys.stderr,
            )
    return folder


def _folder(row) -> Path:
    from asjax import devices

    return devices.cache_folder() / "models" / row.name


def _ready(folder: Path, row) -> bool:
    """Whether a conversion of this version is there, or one whose checkpoint is gone."""
    from asjax import __version__

    if not model_dir.is_model(folder):
        return False
    card = schema.read_json(folder / "card.json", model_dir.CARD_BYTES)
    current = isinstance(card, dict) and card.get("asjax") == __version__
    return current or not (row.file and (download.folder() / row.file).is_file())

"""The model directory: config, class names, weights and a card with the hashes of all of them.

    config.json  labels.csv  model.safetensors ("params/conv/kernel", ...)  card.json
    torch_extra.safetensors (of ported checkpoints: entries of the torch file without use here)

It explains itself: loading needs no table of architectures and never runs code from the files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError, fingerprint, to_json, to_plain
from asjax.labels import LabelSet
from asjax.store import files

FILES = ("config.json", "labels.csv", "model.safetensors")  # card.json holds their hashes
EXTRA = "torch_extra.safetensors"


def save_model(directory, *, config, label_set, variables, record: dict, extra=None) -> Path:
    """Write config.json, labels.csv, model.safetensors and card.json; replaces an older model.

    Args:
      variables: nested dict of arrays, `{"params": ..., "batch_stats": ...}`.
      extra: name -> array of what else the torch checkpoint held that this model was made from.
      record: what the model says of itself (HLP, beta, seed, scores, data hash); the label hash,
        asjax's version and the SHA-256 of each file are added.
    """
    from asjax import __version__

    final = Path(directory).absolute()
    temporary, old = (final.with_name(f"{final.name}.{end}") for end in ("tmp", "old"))
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        (temporary / "config.json").write_text(to_json(config))
        label_set.to_csv(temporary / "labels.csv")
        arrays = {"model.safetensors": dict(_flat(variables)), **({EXTRA: extra} if extra else {})}
        for name, content in arrays.items():
            files.write_safetensors(temporary / name, content, {"format": "asjax"})
        card = {
            **files.finite(to_plain(record)),  # before the hash: what a reader of the file sees
            "asjax": __version__,
            "label_set": label_set.name,
            "label_hash": label_set.hash,
            "sha256": {n: files.digest(temporary / n) for n in dict.fromkeys((*FILES, *arrays))},
        }
        card["sha256"]["card.json"] = fingerprint(card)
        (temporary / "card.json").write_text(files.to_strict_json(card))
        for file in temporary.iterdir():
            files.sync(file)
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
        temporary.rename(final)
        files.sync(final.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise AsjaxError(f"model {final} could not be written: {files.reason(error)}") from None
    return final


def load_model(directory):
    """`(config dict, LabelSet, variables, record)` of a model directory, or of its workdir.

    Every file is checked against the hashes in card.json before it is used.

    Raises:
      AsjaxError: no model there, or a missing or changed file, which is named.
    """
    folder = _model_folder(Path(directory))
    try:
        card = json.loads((folder / "card.json").read_text())
        sums = dict(card["sha256"])
        own = sums.pop("card.json")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AsjaxError(f"{folder / 'card.json'} cannot be read: {files.reason(error)}") from None
    if fingerprint({**card, "sha256": sums}) != own:
        raise AsjaxError(f"{folder / 'card.json'} was changed or is damaged: its hash differs")
    for name in FILES:
        _check(folder / name, sums.get(name))
    label_set = LabelSet.from_csv(folder / "labels.csv", name=card.get("label_set"))
    if label_set.hash != card["label_hash"]:
        raise AsjaxError(
            f"{folder / 'labels.csv'} has label hash {label_set.hash}, the model was trained with "
            f"{card['label_hash']}"
        )
    config = json.loads((folder / "config.json").read_text())
    variables = _nested(files.read_safetensors(folder / "model.safetensors"))
    return config, label_set, variables, card


def load_extra(directory) -> dict[str, np.ndarray]:
    """What else the torch checkpoint of a ported model held: torch name -> array; {} for others.

    Raises:
      AsjaxError: as `load_model`.
    """
    folder = _model_folder(Path(directory))
    wanted = json.loads((folder / "card.json").read_text())["sha256"].get(EXTRA)
    if wanted is None:
        return {}
    _check(folder / EXTRA, wanted)
    return files.read_safetensors(folder / EXTRA)


def _check(path: Path, wanted: str | None) -> None:
    """AsjaxError unless the file has the SHA-256 that the card says."""
    try:
        found = files.digest(path)
    except OSError as error:
        raise AsjaxError(f"{path} cannot be read: {files.reason(error)}") from None
    if found != wanted:
        raise AsjaxError(
            f"{path} was changed or is damaged: its SHA-256 is {found}, card.json says {wanted}"
        )


def _model_folder(path: Path) -> Path:
    for folder in (path, path / "model"):
        if (folder / "card.json").is_file():
            return folder
        old = folder.with_name(folder.name + ".old")  # a replacement was interrupted
        if not folder.exists() and (old / "card.json").is_file():
            return old
    what = "does not exist" if not path.exists() else "holds no card.json"
    raise AsjaxError(
        f"model {path} {what}; give a workdir that finished training, or its model folder"
    )


def _flat(tree, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for key, value in tree.items():
        if hasattr(value, "items"):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _nested(flat: dict[str, np.ndarray]) -> dict:
    tree: dict = {}
    for name, value in flat.items():
        *parents, leaf = name.split("/")
        at = tree
        for part in parents:
            at = at.setdefault(part, {})
        at[leaf] = value
    return tree

"""The model directory: config, class names, weights and a card with the hashes of all of them.

    config.json  labels.csv  model.safetensors ("params/conv/kernel", ...)  card.json
    parents.csv (only for classes with the user's own taxonomy)
    torch_extra.safetensors (only for ported checkpoints: entries of the torch file not used here)

config.json also has what the pages of the Hugging Face Hub read (`formats.HUB_FIELDS`); loading
leaves it out. A folder from there has README.md and preprocessor_config.json too (weights.hub_*).

Loading needs no table of architectures and never runs code from the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from asjax import taxonomy
from asjax.config import AsjaxError, fingerprint, quoted, split_spec, to_json, to_plain
from asjax.labels import LabelSet
from asjax.store import files, formats, schema, swap

FILES = ("config.json", "labels.csv", "model.safetensors")  # card.json holds their hashes
EXTRA = "torch_extra.safetensors"
PARENTS = "parents.csv"
CONFIG_BYTES, CARD_BYTES = 64 << 20, 64 << 20


def training_record(cfg, label_set, sources, state, n_params) -> dict:
    """The record of a model: how it was trained and on what data.

    Args:
      sources: "train_data", "eval_data" and perhaps "test_data" -> source. The scores in the card
        are those of the test data if there are any.
      state: the asjax.step.State that was chosen.
    """
    data = {
        key: {"name": source.name, "clips": len(source), "hash": source.hash}
        for key, source in sources.items()
    }
    return {
        "hlp": bool(cfg.labels.hlp),
        "objective": split_spec(cfg.objective)[0],
        "draw": cfg.data.draw,
        "seed": int(cfg.seed),
        "step": int(state.step),
        "skipped_steps": int(state.nonfinite[0]),
        "parameters": int(n_params),
        **data,
        "evaluated_on": "test" if "test_data" in data else "eval",
        "labels": {"name": label_set.name, "hash": label_set.hash},
        "config_hash": fingerprint(cfg),
    }


def save_model(directory, *, config, label_set, variables, record: dict, extra=None) -> Path:
    """Write config.json, labels.csv, model.safetensors and card.json; replaces an older model.

    Args:
      variables: nested dict of arrays, `{"params": ..., "batch_stats": ...}`.
      extra: name -> array: unused entries of the torch checkpoint of a ported model.
      record: how the model was trained (HLP, beta, seed, scores, data hash). The card adds the
        label hash, asjax's version and the SHA-256 of each file.

    Raises:
      AsjaxError: the folder has other contents than a model, or it could not be written.
    """
    from asjax import __version__

    final = Path(directory).absolute()
    refuse_snapshot(final)
    try:
        with swap.folder(final, what="model", ours=ours) as new:
            (new / "config.json").write_text(config_text(config, label_set), encoding="utf-8")
            label_set.to_csv(new / "labels.csv")
            if label_set.taxonomy is not None:
                taxonomy.write(new / PARENTS, label_set.taxonomy)
            files.write_safetensors(
                new / "model.safetensors", dict(_flat(variables)), {"format": "asjax"}
            )
            if extra:
                files.write_safetensors(new / EXTRA, extra, {"format": "asjax"})
            card = {
                **files.finite(to_plain(record)),  # so that the hash is of the values in the file
                "asjax": __version__,
                "label_set": label_set.name,
                "label_hash": label_set.hash,
            }
            seal(new, card, [p.name for p in new.iterdir() if p.name != swap.MARKER])
    except OSError as error:
        raise AsjaxError(
            f"model {final} could not be written: {files.reason(error)}; free space or repair the "
            "folder, then give the same command again"
        ) from None
    return final


def seal(folder: Path, card: dict, names) -> None:
    """Write card.json: the record with the hashes of the files `names`, and its own."""
    sums = {name: files.digest(folder / name) for name in sorted(names)}
    card = {**card, "sha256": sums}
    card["sha256"] = {**sums, "card.json": fingerprint(card)}
    (folder / "card.json").write_text(files.to_strict_json(card), encoding="utf-8")


def config_text(config, label_set) -> str:
    """config.json: the config, and the fields that the Hub's pages read."""
    plain = to_plain(config)
    family, fields = split_spec(plain["model"])
    names = label_set.names  # each occurs once
    hub = {
        "model_type": "asjax",
        "architectures": [str(fields.get("variant") or family)],
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
    return to_json({**plain, **hub})


def refuse_snapshot(folder: Path) -> None:
    """AsjaxError: the folder is in the cache of the Hub, whose files are links to shared ones."""
    if _in_hub_cache(folder):
        raise AsjaxError(f"{folder} is in the cache of the Hub; choose another folder")


def _in_hub_cache(folder: Path) -> Path | None:
    """The folder models--ORG--NAME of the Hub's cache above a folder, or None."""
    for at in (folder.resolve(), *folder.resolve().parents):
        if at.parent.name == "snapshots" and at.parent.parent.name.startswith("models--"):
            return at.parent.parent
    return None


def ours(folder: Path) -> set[str] | None:
    """The file names that `save_model` may write; None if `folder` is not a model folder."""
    if not (folder / "card.json").is_file():
        return None
    return {*FILES, EXTRA, PARENTS, "card.json"}


def load_model(directory):
    """`(config dict, LabelSet, variables, record)` of a model directory, or of its workdir.

    Before use, every file is checked against the hashes in card.json. The values in config.json and
    card.json are also checked (`formats`).

    Raises:
      AsjaxError: no model there, or a file is missing, changed or invalid. The message names it.
    """
    folder = folder_of(directory)
    card = _card(folder)
    names = [*FILES, *([PARENTS] if PARENTS in card["sha256"] else [])]
    for name in names:
        _check(folder / name, card["sha256"].get(name))
    config = schema.read_json(folder / "config.json", CONFIG_BYTES)
    schema.require(config, formats.CONFIG, folder / "config.json")
    label_set = LabelSet.from_csv(folder / "labels.csv", name=card["label_set"])
    if label_set.hash != card["label_hash"]:
        raise AsjaxError(
            f"{folder / 'labels.csv'} has label hash {label_set.hash}, the model was trained with "
            f"{card['label_hash']}"
        )
    classes = config["model"].get("num_classes", len(label_set))
    if classes != len(label_set):
        raise AsjaxError(
            f"{folder / 'config.json'}: model.num_classes is {classes:,}, labels.csv has "
            f"{len(label_set):,} classes"
        )
    config = {key: value for key, value in config.items() if key not in formats.HUB_FIELDS}
    if PARENTS in names:
        label_set = label_set.with_taxonomy(folder / PARENTS)
    variables = _nested(files.read_safetensors(folder / "model.safetensors"), folder)
    return config, label_set, variables, card


def _card(folder: Path) -> dict:
    """The content of card.json. AsjaxError: it is damaged or was changed."""
    path = folder / "card.json"
    card = schema.read_json(path, CARD_BYTES)
    schema.require(card, formats.CARD, path)
    sums = {name: sha for name, sha in card["sha256"].items() if name != "card.json"}
    if fingerprint({**card, "sha256": sums}) != card["sha256"]["card.json"]:
        raise AsjaxError(f"{path} was changed or is damaged: its hash differs")
    return card


def card_of(directory) -> dict:
    """The content of card.json, proved by its own hash. AsjaxError: as `load_model`."""
    return _card(folder_of(directory))


def hash_of(directory) -> str:
    """The hash of a model, over its weights, config and classes. AsjaxError: as `load_model`."""
    return card_of(directory)["sha256"]["card.json"]


def load_extra(directory) -> dict[str, np.ndarray]:
    """Unused entries of a ported model's torch checkpoint: torch name -> array, or {} if none.

    Raises:
      AsjaxError: as `load_model`.
    """
    folder = folder_of(directory)
    wanted = _card(folder)["sha256"].get(EXTRA)
    if wanted is None:
        return {}
    _check(folder / EXTRA, wanted)
    return files.read_safetensors(folder / EXTRA)


def _check(path: Path, wanted: str | None) -> None:
    """Raise AsjaxError if the SHA-256 of a file is not the one in card.json."""
    try:
        digest = files.digest(path)
    except OSError as error:
        raise AsjaxError(f"{path} cannot be read: {files.reason(error)}") from None
    if digest != wanted:
        cache = _in_hub_cache(path.parent)
        again = f"; delete {cache} to fetch it again" if cache else ""
        raise AsjaxError(
            f"{path} was changed or is damaged: its SHA-256 is {digest}, card.json has {wanted}"
            + again
        )


def is_model(path) -> bool:
    """Whether this is a model folder, or a workdir with one."""
    return any(Path(path, sub, "card.json").is_file() for sub in ("", "model"))


def folder_of(directory) -> Path:
    """The model folder of a model folder or a workdir. AsjaxError: there is none."""
    path = Path(directory)
    for folder in (path, path / "model"):
        place = swap.find(folder)  # has another name if a replacement was interrupted
        if place is not None and (place / "card.json").is_file():
            return place
    raise AsjaxError(
        f"model {path} {_lacks(path)}; give a workdir that finished training, or its model folder"
    )


def refuse_file(path: Path) -> None:
    """AsjaxError: a file in the place of a model folder."""
    if path.is_file():
        raise AsjaxError(
            f"model {path} {_lacks(path)}; give the model folder that it was made from"
        )


def _lacks(path: Path) -> str:
    """Why a path is no model folder."""
    if not path.exists():
        return "does not exist"
    if not path.is_file():
        return "has no card.json"
    onnx = path.suffix.lower() == ".onnx"
    return "is an ONNX file and no model folder" if onnx else "is a file and no model folder"


def _flat(tree, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for key, value in tree.items():
        if hasattr(value, "items"):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _nested(flat: dict[str, np.ndarray], folder: Path) -> dict:
    tree: dict = {}
    for name, value in flat.items():
        *parents, leaf = name.split("/")
        at = tree
        for part in parents:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                break
        if not isinstance(at, dict) or isinstance(at.get(leaf), dict):
            raise AsjaxError(
                f"{folder / 'model.safetensors'}: {quoted(name)} is both an array and a group"
            )
        at[leaf] = value
    return tree

"""Where a checkpoint lies, and what its files hold: paths, published names, Hugging Face's Hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asjax.config import AsjaxError, quoted, unknown
from asjax.store import files, schema
from asjax.weights import download, parts, published, torch_file

# Names of weights in a folder of Hugging Face's; an index says which file holds which array.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
INDICES = tuple(f"{name}.index.json" for name in HUB_FILES)
CONFIGS = ("config.json", "preprocessor_config.json")
_INDEX = schema.mapping(
    {"weight_map": schema.mapping({}, {}, schema.text(r"[\w.-]+", 200, "the name of a file"))}
)


class Place(NamedTuple):
    """Files of a checkpoint: the weights or the index of their files, and what is known of them.

    row: what is published of it, or None. name: of the folder or repository, for its classes.
    configs: name -> path of the small files that a folder of Hugging Face's has beside the weights.
    notes: what could not be had.
    """

    path: Path
    row: published.Row | None
    name: str = ""
    configs: dict[str, Path] = {}
    notes: tuple[str, ...] = ()


class Checkpoint(NamedTuple):
    """What the weights of others hold: nested maps of arrays (see `parts`), and their place.

    sha256: of each file that was read.
    """

    place: Place
    value: object
    sha256: dict[str, str]


def read_weights(path_or_name, family: str | None = None) -> dict[str, np.ndarray]:
    """Name -> array of a checkpoint: a torch or safetensors file, a published name, a Hub id.

    Names are those of the file, without what wraps them. Published checkpoints are downloaded where
    there is a network.

    Args:
      family: takes the part of the file most of whose names this family knows; by default it is the
        map with the most arrays.

    Raises:
      AsjaxError: no such thing, or one that is damaged, refused or cannot be fetched.
    """
    checkpoint = read(path_or_name)
    try:
        if family is None:
            return parts.plain(checkpoint.value)
        from asjax.weights import choose

        return choose.by_names(checkpoint.value, family)
    except AsjaxError as error:
        raise AsjaxError(f"{checkpoint.place.path}: {error}") from None


def read(path_or_name, *, progress: bool = False) -> Checkpoint:
    """As `read_weights`, with everything that the file holds."""
    place = locate(path_or_name, progress=progress)
    path = place.path
    if path.name not in INDICES:
        return Checkpoint(place, _value(path), {path.name: files.digest(path)})
    index = schema.read_json(path)
    schema.require(index, _INDEX, path)
    arrays, sums = {}, {}
    for name in sorted(set(index["weight_map"].values())):
        shard = path.parent / name
        if not shard.is_file():
            raise AsjaxError(f"{path}: its file {name} is not there; fetch it too")
        held = parts.flat(_value(shard))
        twice = sorted(held.keys() & arrays.keys())
        if twice:
            raise AsjaxError(f"{path}: {quoted(twice[0])} is in {name} and in another file")
        arrays.update(held)
        sums[name] = files.digest(shard)
    lacking = sorted(index["weight_map"].keys() - arrays.keys())
    if lacking:
        first = quoted(lacking[0])
        raise AsjaxError(f"{path}: {len(lacking)} of its arrays are in no file, first {first}")
    return Checkpoint(place, arrays, sums)


def _value(path: Path):
    with path.open("rb") as file:
        head = file.read(9)
    # a safetensors file begins with eight bytes of length, then its JSON
    return files.read_safetensors(path) if head[8:] == b"{" else torch_file.read(path)


def locate(path_or_name, *, progress: bool = False) -> Place:
    """The files that a path, a published name or a Hub id stands for, fetched if need be."""
    text = str(path_or_name)
    path = Path(text)
    if path.is_dir():
        return _in_folder(path)
    if path.is_file():
        beside = path.parent if path.name in (*HUB_FILES, *INDICES) else None
        row = published.by_file(path.name)
        return Place(path, row, path.resolve().parent.name, _configs(beside))
    row = published.find(text)
    if row is not None and row.urls:
        return Place(download.fetch(row, progress=progress), row)
    if row is not None and not row.hub:
        note = f" ({row.note})" if row.note else ""
        raise AsjaxError(
            f"{row.name} must be fetched by hand, from {row.page}{note}; then give the file"
        )
    repo = row.hub if row is not None else text
    if repo.count("/") == 1 and not path.suffix.startswith((".pt", ".ckpt", ".safe", ".bin")):
        return _from_hub(repo, row or published.by_hub(repo))
    if "/" in text or path.suffix in (".pt", ".pth", ".ckpt", ".safetensors", ".bin"):
        raise AsjaxError(f"checkpoint {text} does not exist")
    names = [row.name for row in published.ROWS]
    raise AsjaxError(
        f"{unknown('checkpoint', text, names)}; or give a file or a Hub id, owner/name"
    )


def _in_folder(path: Path) -> Place:
    if (path / "card.json").is_file():
        raise AsjaxError(f"{path} is an asjax model already; use it, or export it: asjax export")
    for name in (*HUB_FILES, *INDICES):
        if (path / name).is_file():
            return Place(path / name, None, path.resolve().name, _configs(path))
    raise AsjaxError(f"folder {path} holds no {' or '.join(HUB_FILES)}; give the checkpoint file")


def _configs(folder: Path | None) -> dict[str, Path]:
    names = CONFIGS if folder is not None else ()
    return {name: folder / name for name in names if (folder / name).is_file()}


def _from_hub(repo: str, row) -> Place:
    """The files of a Hub repository, from its cache or the network as `huggingface_hub` says."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise AsjaxError(
            f"{repo} is no file here; to fetch it from the Hugging Face Hub install "
            "huggingface_hub (pip install 'asjax[hub]')"
        ) from None
    repo, _, revision = repo.partition("@")
    reasons: dict[str, list] = {}

    def fetched(name: str) -> Path | None:
        try:
            return Path(hf_hub_download(repo, name, revision=revision or None))
        except Exception as error:  # its own classes, requests', OSError: all mean "not there"
            why = f"{type(error).__name__}: {files.reason(error)}"
            reasons.setdefault(why, []).append(name)
            return None

    path = next(filter(None, map(fetched, (*HUB_FILES, *INDICES))), None)
    if path is None:
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        state = " (HF_HUB_OFFLINE is set: only its cache was searched)" if offline else ""
        listed = "; ".join(f"{' and '.join(names)}: {why}" for why, names in reasons.items())
        raise AsjaxError(f"{repo} could not be fetched from the Hub{state}: {listed}")
    reasons.clear()
    if path.name in INDICES:
        index = schema.read_json(path)
        schema.require(index, _INDEX, path)
        for name in sorted(set(index["weight_map"].values())):
            fetched(name)
    configs = {name: fetched(name) for name in CONFIGS}
    notes = tuple(f"{' and '.join(names)}: {why}" for why, names in reasons.items())
    configs = {name: path for name, path in configs.items() if path}
    return Place(path, row, repo.rpartition("/")[2], configs, notes)

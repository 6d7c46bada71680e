"""Find and read a checkpoint by its path, published name or Hugging Face Hub id."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from asjax.config import AsjaxError, quoted, unknown
from asjax.store import files, schema
from asjax.weights import download, hub_errors, parts, published, torch_file

# Weight files in a Hugging Face folder; an index maps each array to its file.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
INDICES = tuple(f"{name}.index.json" for name in HUB_FILES)
CONFIGS = ("config.json", "preprocessor_config.json")
_INDEX = schema.mapping(
    {"weight_map": schema.mapping({}, {}, schema.text(r"[\w.-]+", 200, "the name of a file"))}
)


class Place(NamedTuple):
    """The files of a checkpoint.

    path: the weights, or the index of their files. row: its row in `published`, or None.
    name: of the folder or repository; its label set takes this name.
    configs: name -> path of the config files in a Hugging Face folder.
    notes: which files could not be fetched, and why.
    """

    path: Path
    row: published.Row | None
    name: str = ""
    configs: dict[str, Path] = {}
    notes: tuple[str, ...] = ()


class Checkpoint(NamedTuple):
    """The content of a checkpoint: nested maps of arrays (see `parts`).

    sha256: file name -> SHA-256 of each file that was read.
    """

    place: Place
    value: object
    sha256: dict[str, str]


def read_weights(path_or_name, family: str | None = None) -> dict[str, np.ndarray]:
    """Name -> array of a checkpoint: a torch or safetensors file, a published name, a Hub id.

    Names are those of the file, without prefixes and torch's wrappers. Published checkpoints are
    downloaded if they are not on this machine.

    Args:
      family: take the part of the file with the most names that this family knows; by default, take
        the map with the most arrays.

    Raises:
      AsjaxError: the checkpoint does not exist, is damaged, is refused or cannot be fetched.
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
    """Like `read_weights`, but return everything that the file holds."""
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
            raise AsjaxError(f"{path}: its file {name} does not exist; fetch it too")
        held = parts.flat(_value(shard))
        twice = sorted(held.keys() & arrays.keys())
        if twice:
            raise AsjaxError(f"{path}: {quoted(twice[0])} is in {name} and in another file")
        arrays.update(held)
        sums[name] = files.digest(shard)
    lacking = sorted(index["weight_map"].keys() - arrays.keys())
    if lacking:
        first = quoted(lacking[0])
        raise AsjaxError(f"{path}: no file holds {len(lacking)} of its arrays, first {first}")
    return Checkpoint(place, arrays, sums)


def _value(path: Path):
    with path.open("rb") as file:
        head = file.read(9)
    # a safetensors file begins with an eight-byte length and then JSON
    return files.read_safetensors(path) if head[8:] == b"{" else torch_file.read(path)


def locate(path_or_name, *, progress: bool = False) -> Place:
    """The files of a path, a published name or a Hub id; they are fetched if necessary."""
    text = str(path_or_name)
    path = Path(text)
    if path.is_dir():
        return _in_folder(path)
    if path.is_file():
        beside = path.parent if path.name in (*HUB_FILES, *INDICES) else None
        row = published.by_file(path.name)
        return Place(path, row, path.resolve().parent.name, _configs(beside))
    row = published.find(text)
    if row is not None and (row.urls or row.file and (download.folder() / row.file).is_file()):
        return Place(download.fetch(row, progress=progress), row)
    if row is not None and not row.hub:
        note = f" ({row.note})" if row.note else ""
        raise AsjaxError(
            f"{row.name} must be fetched by hand from {row.page}{note}; then give the file, or put "
            f"it at {download.folder() / row.file}"
        )
    repo = row.hub if row is not None else text
    if repo.count("/") == 1 and not path.suffix.startswith((".pt", ".ckpt", ".safe", ".bin")):
        return _from_hub(repo, row or published.by_hub(repo))
    if "/" in text or path.suffix in (".pt", ".pth", ".ckpt", ".safetensors", ".bin"):
        raise AsjaxError(f"checkpoint {text} does not exist")
    names = [row.name for row in published.ROWS]
    raise AsjaxError(
        f"{unknown('checkpoint', text, names)}; or give a file or a Hub id (owner/name)"
    )


def _in_folder(path: Path) -> Place:
    if (path / "card.json").is_file():
        raise AsjaxError(f"{path} is already an asjax model; use it, or export it by asjax export")
    for name in (*HUB_FILES, *INDICES):
        if (path / name).is_file():
            return Place(path / name, None, path.resolve().name, _configs(path))
    raise AsjaxError(f"folder {path} holds no {' or '.join(HUB_FILES)}; give the checkpoint file")


def _configs(folder: Path | None) -> dict[str, Path]:
    names = CONFIGS if folder is not None else ()
    return {name: folder / name for name in names if (folder / name).is_file()}


def _from_hub(repo: str, row) -> Place:
    """The files of a Hub repository; `huggingface_hub` takes them from its cache or the network."""
    why = f"{repo} is not a file; to fetch it from the Hugging Face Hub"
    hf_hub_download = hub_errors.library(why).hf_hub_download
    repo, _, revision = repo.partition("@")
    reasons: dict[str, list] = {}

    def fetched(name: str) -> Path | None:
        try:
            return Path(hf_hub_download(repo, name, revision=revision or None))
        except Exception as error:  # its own errors, requests' errors, OSError: all mean "missing"
            why = f"{type(error).__name__}: {files.reason(error)}"
            reasons.setdefault(why, []).append(name)
            return None

    path = next(filter(None, map(fetched, (*HUB_FILES, *INDICES))), None)
    if path is None:
        offline = " (HF_HUB_OFFLINE is set: only its cache was searched)"
        state = offline if hub_errors.offline() else ""
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
    said = schema.read_json(configs["config.json"]) if "config.json" in configs else None
    if isinstance(said, dict) and said.get("model_type") == "asjax":
        raise AsjaxError(f"{repo} is already an asjax model; use it: --model={repo}")
    return Place(path, row, repo.rpartition("/")[2], configs, notes)

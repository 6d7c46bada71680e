"""A model folder with what the Hugging Face Hub shows: model card and preprocessor_config.json.

config.json, labels.csv, model.safetensors and card.json are copied as they are. A folder of an
older asjax has no `formats.HUB_FIELDS` in its config.json: they are added, and card.json gets the
new hash.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from asjax import build
from asjax.config import AsjaxError, shown, split_spec
from asjax.store import files, model_dir, schema, swap
from asjax.weights import hub, hub_card, hub_config, hub_errors
from asjax.weights.hub_licence import licence as licence_of


def save(source, directory, *, licence: str | None = None, name: str = "") -> Path:
    """Write the folder for the Hub from a model folder; replaces an older model and its card.

    Args:
      licence: of your own weights; a ported checkpoint keeps its authors' one.
      name: of the model in the card (default: the folder's name).

    Raises:
      AsjaxError: no sound model in `source`, other contents in `directory`, or no huggingface_hub.
    """
    final = Path(directory).absolute()
    model_dir.refuse_snapshot(final)

    def ours(folder: Path) -> set[str] | None:
        names = model_dir.ours(folder)
        return None if names is None else {*names, *hub.DERIVED}

    try:
        with swap.folder(final, what="model", ours=ours) as new:
            write(source, new, licence=licence, name=name or final.name)
    except OSError as error:
        raise AsjaxError(f"model {final} could not be written: {files.reason(error)}") from None
    return final


def write(source, new: Path, *, licence, name: str, copy=shutil.copyfile) -> dict:
    """Fill the empty folder `new`; returns the card. `copy`: of the files that stay as they are."""
    folder = model_dir.folder_of(source)
    config, label_set, _, card = model_dir.load_model(folder)  # checks every hash
    model_dir.load_extra(folder)
    theirs = licence_of(card, licence)
    names = sorted(card["sha256"].keys() & {*model_dir.FILES, model_dir.PARENTS, model_dir.EXTRA})
    full = model_dir.config_text(config, label_set)
    as_it_is = schema.read_json(folder / "config.json") == schema.parse_json(full)
    for file in names if as_it_is else set(names) - {"config.json"}:
        copy((folder / file).resolve(), new / file)
    if as_it_is:
        shutil.copyfile(folder / "card.json", new / "card.json")
    else:
        (new / "config.json").write_text(full, encoding="utf-8")
        model_dir.seal(new, card, names)
        card = schema.read_json(new / "card.json")
    (new / "preprocessor_config.json").write_text(
        files.to_strict_json(preprocessor(config)), encoding="utf-8"
    )
    readme = hub_card.text(config, label_set, card, theirs, name)
    (new / "README.md").write_text(readme, encoding="utf-8")
    return card


def preprocessor(config: dict) -> dict:
    """preprocessor_config.json: the input of the model under the names that others use."""
    name, fields = split_spec(config["frontend"])
    try:
        frontend = build.make("frontend", config["frontend"])
        fields = {field: getattr(frontend, field, None) for field in hub_config.FEATURES}
    except AsjaxError:  # a user's own frontend that this program must not start
        pass
    named = {names[0]: fields.get(field) for field, names in hub_config.FEATURES.items()}
    named["sampling_rate"] = config["data"]["sample_rate"]
    plain = {key: value for key, value in named.items() if isinstance(value, (int, float))}
    return {
        "feature_extractor_type": "AsjaxFeatureExtractor",
        "frontend": name,
        **plain,
        "clip_s": config["data"]["clip_s"],
    }


# ------------------------------------------------------------------------------------- the push


def staged(source, new: Path, repo: str, licence: str | None) -> tuple[dict[str, int], str]:
    """The folder to push: (file -> bytes, note on the README).

    A README.md in the model folder that someone edited is pushed as it is. One that asjax wrote
    for another model is replaced.

    Raises:
      AsjaxError: no licence is stated, or the README states another one.
    """
    folder = model_dir.folder_of(source)
    card = write(folder, new, licence=licence, name=repo, copy=os.symlink)
    theirs, note = licence_of(card, licence), "written from card.json"
    own = folder / "README.md"
    if own.is_file():
        content = _read(own)
        about = hub_card.hash_in(content)
        if about in (None, card["sha256"]["card.json"]):
            head = _metadata(content, own)
            if head.get("license") is None and theirs is not None:
                raise AsjaxError(f"{own} states no license; add {theirs.fields} to its head")
            if theirs is not None and any(head.get(k) != v for k, v in theirs.fields.items()):
                raise AsjaxError(
                    f"{own} states the license {shown(head['license'])}, and the model has "
                    f"{theirs.text}; correct the README, or delete it"
                )
            theirs = theirs or head.get("license")
            (new / "README.md").write_text(content, encoding="utf-8")
            note = f"as it is in {folder}"
        else:
            note = f"written from card.json; the one in {folder} is about another model"
    if theirs is None:
        ported = isinstance(card.get("ported_from"), dict)
        who = "its authors state none" if ported else "yours is not stated"
        raise AsjaxError(
            f"{folder} has no licence ({who}), and a model is not pushed without one; add "
            "--license, such as --license cc-by-4.0, if you may state it"
        )
    return {path.name: path.stat().st_size for path in sorted(new.iterdir())}, note


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise AsjaxError(f"{path} cannot be read: {files.reason(error)}") from None


def _metadata(content: str, path: Path) -> dict:
    """The head of a README. AsjaxError: the Hub could not read it."""
    library = hub_errors.library("to read a model card")
    try:
        return library.ModelCard(content, ignore_metadata_errors=True).data.to_dict()
    except Exception as error:  # YAML's errors, ValueError
        raise AsjaxError(f"the head of {path} is no YAML: {files.reason(error)}") from None

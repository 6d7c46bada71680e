"""`--data` of `asjax eval`: which data, with which classes, and how these fit those of a model.

Data with another label set than the model's are scored *zero-shot*. The score of a data class is
the highest score of the model's classes that share a mid with it. Data classes without a shared mid
are left out. AudioSet's 527 classes cover 192 of FSD50K's 200, as in the HLP paper's Table III.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asjax import labels
from asjax.config import AsjaxError, parse_call, quoted


def data_spec(text: str) -> tuple[dict, str]:
    """`--data` -> (spec, short name for folders).

    The text is a source, the folder of a record dataset, or the user's own clips as in `asjax
    train`: a CSV of file names and labels, or a folder with one such list or with class folders.
    """
    from asjax.data import records

    path = Path(text)
    if path.is_file() or (path.is_dir() and not records.is_dataset(path)):
        from asjax.own import data

        return data.spec_of(text), path.stem if path.is_file() else path.resolve().name
    if path.is_dir():
        folder = path.resolve()
        name = folder.parent.name if records.is_version(folder.name) else folder.name
        return dict(name="records", path=text), name
    try:
        name, fields = parse_call(text)
    except AsjaxError as error:
        raise AsjaxError(
            f"--data {text!r}: there is no such file or folder, and it is no source: {error}; for "
            "a CSV beside other audio give \"folder(csv='x.csv', root='audio')\""
        ) from None
    return dict(name=name, **fields), name


def fit(spec: dict, given, ours):
    """The label set of the data, and what it shares with the model's: (theirs, *shared(...)).

    For a list of events without a label set, the classes are the model's. Labels that the model
    does not have are left out.
    """
    if spec["name"] != "annotated" or given:
        theirs = labels_of(spec, given, ours)
        return theirs, *shared(theirs, ours)
    from asjax.data import strong

    paths = [spec["events"]] if isinstance(spec["events"], (str, Path)) else spec["events"]
    rows = [row for path in paths for row in strong.read(path, spec.get("label_column", ""))]
    unknown = sorted(filter(None, strong.tidy(rows, ours).unknown))  # the source refuses ""
    if not unknown:
        return ours, [], None
    words = {row.label for row in rows if row.label}
    name = ", ".join(Path(path).name for path in paths)
    if len(words) == len(unknown):
        raise AsjaxError(
            f"list of events {name}: no class of the list is a class of {ours.name}, so nothing "
            f"can be scored; its labels are {quoted(unknown[:5])}. --labels names another label set"
        )
    mids = tuple(ours.meanings(i) for i in range(len(ours)))
    theirs = labels.LabelSet(
        name,
        (*ours.ids, *unknown),
        (*ours.names, *(f"{word} (label {i})" for i, word in enumerate(unknown))),  # unique
        (*mids, *((word,) for word in unknown)),
    )
    about = {
        "label_set": name,
        "label_hash": theirs.hash,
        "shared": len(words) - len(unknown),
        "of": len(words),
        "left_out": unknown,
    }
    pairs = [(i, np.array([i])) for i in range(len(ours))]
    return theirs, pairs, {"classes": ours, "about": about}


def labels_of(spec: dict, given, label_set):
    """The label set of the data: `given`, else that of records or of a task, else the model's."""
    if given:
        return labels.get(given)
    if spec["name"] == "hear":
        from asjax.data import hear

        return hear.own_labels(spec.get("path", ""))
    if spec["name"] != "records" or spec.get("convert") or "path" not in spec:
        return label_set
    from asjax.data import records

    manifest = records.Dataset(spec["path"]).manifest["label_set"]
    if manifest["hash"] == label_set.hash:
        return label_set
    path = records.find(spec["path"]) / "labels.csv"
    recorded = labels.LabelSet.from_csv(path, manifest["name"])
    labels.check_hash(manifest["hash"], recorded.hash, f"{path}")
    return recorded


def shared(theirs, ours):
    """The mapping from the data's classes to the model's classes.

    Returns: `([], None)` for the same label set. Otherwise `[(their index, our indices), ...]` of
    the shared classes, and `{"classes": LabelSet, "about": dict for the scores file}`.
    """
    if theirs.hash == ours.hash:
        return [], None
    table = labels.mapping(theirs, ours)
    rows = np.flatnonzero(table.any(axis=1))
    if not len(rows):
        raise AsjaxError(
            f"the data's classes ({theirs.name}, label hash {theirs.hash}) and the model's "
            f"({ours.name}, label hash {ours.hash}) share no AudioSet mid, so nothing can be scored"
        )
    classes = labels.LabelSet(
        f"{theirs.name}_shared{len(rows)}",
        tuple(theirs.ids[i] for i in rows),
        tuple(theirs.names[i] for i in rows),
        tuple(theirs.mids[i] for i in rows) if theirs.mids else (),
    )
    about = {
        "label_set": theirs.name,
        "label_hash": theirs.hash,
        "shared": len(rows),
        "of": len(theirs),
        "left_out": [theirs.names[i] for i in np.flatnonzero(~table.any(axis=1))],
    }
    pairs = [(int(i), np.flatnonzero(table[i])) for i in rows]
    return pairs, {"classes": classes, "about": about}

"""The clips of `asjax logits --data`: teachers need no labels, so clips may have none."""

from __future__ import annotations

from pathlib import Path

from asjax import build
from asjax.config import AsjaxError, counted, quoted, shown, warn
from asjax.data import lists, strong, unlabelled
from asjax.evaluation import data_specs


def spec_of(text: str, label_set) -> tuple[dict, str]:
    """`--data` -> (source spec, a line about clips that are taken without labels, or "").

    As `data_specs.data_spec`, also for a list without labels, and for a folder without classes.
    """
    path = Path(text)
    if path.is_file() and not strong.is_list(path) and (why := lists.without_labels(path)):
        unlabelled.listed(path)  # AsjaxError: it is no list of files either
        return {"name": "unlabelled", "path": text}, f"{shown(text)} {why}"
    try:
        spec, _ = data_specs.data_spec(text)
        why = _no_classes(text, label_set) if spec == {"name": "folder", "root": text} else ""
    except AsjaxError as error:
        if not path.is_dir():
            raise
        spec, why = {}, str(error)
    return (spec, "") if not why else ({"name": "unlabelled", "path": text}, why)


def _no_classes(root: str, label_set) -> str:
    """Why the folders below `root` are no classes of the models; "": they are."""
    rows, _, _ = lists.tree(root)
    index = lists.index_of(label_set)
    names = list(dict.fromkeys(label for row in rows for label in row.labels))
    if any(not isinstance(index(name), str) for name in names):
        return ""  # a folder that is no class is then an error
    if not names:
        return f"folder {shown(root)} has no folders of classes"
    first = shown(names[0])
    return f"the folders in {shown(root)}, such as {first!r}, are no classes of {label_set.name}"


def source_of(spec: dict, given, label_set):
    """The data, and whether their first classes are those of the models.

    Args: given: the name of the data's label set, or None.
    """
    theirs = None
    if spec["name"] == "annotated":
        paths = spec["events"]
        paths = [paths] if isinstance(paths, (str, Path)) else paths
        column = spec.get("label_column", "")
        if not any(row.label for path in paths for row in strong.read(path, column)):
            spec = {"empty": True, **spec}
        if not given:
            try:
                theirs = data_specs.fit(spec, given, label_set)[0]
            except AsjaxError:  # no class in common: teachers need no labels
                theirs = strong.own_labels(paths, column)
    theirs = theirs or data_specs.labels_of(spec, given, label_set)
    labelled = theirs.ids[: len(label_set)] == label_set.ids
    if not labelled:
        warn(f"the classes of the data are not those of {label_set.name}, so no labels are stored")
    elif others := theirs.ids[len(label_set) :]:
        words = counted(len(others), "label is no class", "labels are no classes")
        warn(f"{words} of {label_set.name}, and not stored: {', '.join(map(quoted, others[:5]))}")
    return build.source(spec, theirs), labelled

"""The columns of published label lists."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from asjax.config import AsjaxError, printable, unknown

ROLES = ("file", "labels", "split", "group")


@dataclass(frozen=True)
class Layout:
    """The column of each role; "" if there is none.

    Attributes:
      separator: between the labels of a cell; "" means that a cell is one label.
      names: cells of a row (by column) -> possible file names; the first one is the id.
      hint: added to the error message if a label is not a class.
    """

    name: str
    file: str
    labels: str
    split: str = ""
    group: str = ""
    separator: str = ";"
    names: Callable[[Mapping[str, str]], list[str]] | None = None
    hint: str = ""


def _urbansound(cells):
    return [f"fold{cells['fold']}/{cells['slice_file_name']}", cells["slice_file_name"]]


def _audioset(cells):
    """File names of downloaders: the id, perhaps with start and end in s or ms."""
    clip = cells["ytid"] if "ytid" in cells else cells["video_id"]
    names = [clip, f"Y{clip}"]
    times = [cells.get(key, "") for key in ("start_seconds", "end_seconds")]
    try:
        start, end = map(float, times)
    except ValueError:
        return names
    for begin, stop in (
        times,
        (f"{start:g}", f"{end:g}"),
        (f"{start:.3f}", f"{end:.3f}"),
        (f"{1000 * start:.0f}", f"{1000 * end:.0f}"),
    ):
        names += [f"{clip}_{begin}", f"{clip}_{begin}_{stop}", f"Y{clip}_{begin}_{stop}"]
    return list(dict.fromkeys(names))


_HUB = "Hugging Face audiofolder"
# (needed columns, layout); the first one that fits is used
_KNOWN = (
    ({"filename", "labels"}, Layout("asjax", "filename", "labels")),
    (
        {"fname", "labels", "mids"},
        Layout(
            "FSD50K",
            "fname",
            "labels",
            separator=",",
            hint="its labels are those of --labels fsd50k200; those of AudioSet are read with "
            "--columns file=fname,labels=mids",
        ),
    ),
    ({"fname", "labels"}, Layout("FSDKaggle2019", "fname", "labels", separator=",")),
    ({"fname", "label"}, Layout("FSDKaggle2018", "fname", "label", separator="")),
    (
        {"slice_file_name", "fsid", "fold", "class"},
        Layout("UrbanSound8K", "slice_file_name", "class", "fold", "fsid", "", _urbansound),
    ),
    (
        {"filename", "fold", "target", "category"},
        Layout("ESC-50", "filename", "category", "fold", "src_file", ""),
    ),
    ({"file_name", "labels"}, Layout(_HUB, "file_name", "labels")),
    ({"file_name", "label"}, Layout(_HUB, "file_name", "label", separator="")),
    (
        {"ytid", "positive_labels"},
        Layout("AudioSet", "ytid", "positive_labels", separator=",", names=_audioset),
    ),
    (
        {"video_id", "labels"},
        Layout("AudioSet of Hugging Face", "video_id", "labels", separator=",", names=_audioset),
    ),
)
FILES = (
    "filename", "file_name", "file", "fname", "path", "filepath", "file_path", "audio",
    "audio_path", "audio_file", "audio_filename", "wav", "wav_path", "clip", "name", "id",
)  # fmt: skip
_LABELS = (
    "labels", "label", "category", "class", "classes", "class_name", "tags", "tag", "target",
    "species", "event_label", "primary_label",
)  # fmt: skip


def parse_columns(text: str) -> dict[str, str]:
    """`"file=fname,labels=tags"` -> `{"file": "fname", "labels": "tags"}`."""
    columns = {}
    for item in filter(None, map(str.strip, text.split(","))):
        role, equals, column = item.partition("=")
        if not equals or not column.strip():
            raise AsjaxError(f"columns must look like file=NAME,labels=NAME, got {text!r}")
        columns[role.strip()] = column.strip()
    return columns


def choose(header: list[str], columns: Mapping[str, str] | None, split_column: str = ""):
    """The layout of a header, changed by the user's `columns`; None if no layout fits.

    Raises:
      AsjaxError: a role does not exist, or the header does not have a column.
    """
    asked = {**(columns or {}), **({"split": split_column} if split_column else {})}
    for role in asked:
        if role not in ROLES:
            raise unknown("columns: role", role, ROLES)
    known = {name.casefold() for name in header}
    lacking = [column for column in asked.values() if column.casefold() not in known]
    if lacking:
        raise AsjaxError(
            f"its header {_shown(header)} does not have the columns {', '.join(lacking)}"
        )
    asked = {role: column.casefold() for role, column in asked.items()}
    layout = next((layout for needs, layout in _KNOWN if needs <= known), None)
    if layout is None and {"file", "labels"} <= asked.keys():
        layout = Layout("yours", "", "")
    if layout is None:
        return None
    roles = {
        "split": next((c for c in (layout.split, "fold", "split") if c and c in known), ""),
        "group": next((c for c in (layout.group, "group") if c and c in known), ""),
        **asked,
    }
    if layout.file != roles.get("file", layout.file):
        roles["names"] = None
    return replace(layout, **roles)


def explain(header: list[str]) -> str:
    """The message if no layout fits, with a guess of the columns if possible."""
    known = [name.casefold() for name in header]
    missing = [name for name in ("filename", "labels") if name not in known]
    text = (
        f"must start with the header filename,labels[,fold], got {_shown(header)}; "
        f"missing: {', '.join(missing)}; a list of events in time has the columns "
        "filename,onset,offset,event_label"
    )
    guess = {
        role: next((header[known.index(c)] for c in names if c in known), "")
        for role, names in (("file", FILES), ("labels", _LABELS))
    }
    near = {name.casefold(): name for name in header}
    for role, names in (("file", FILES), ("labels", _LABELS)):
        if not guess[role]:
            close = [c for n in names for c in difflib.get_close_matches(n, near, 1, 0.75)]
            guess[role] = near[close[0]] if close else "..."
    if set(guess.values()) == {"..."}:
        return text
    return f"{text}; perhaps give --columns file={guess['file']},labels={guess['labels']}"


def _shown(header) -> str:
    return printable(",".join(header)[:200]) or "nothing"

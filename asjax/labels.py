"""Label sets: the order of the classes, a hash that proves it, and mappings between sets.

A class has a display name and an id: an AudioSet mid such as `/m/09x0r`, `/t/dd00088` or
`/g/122z_qxw`, or an id of another kind. A set with other ids may list the mids of each class.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from unicodedata import normalize

import numpy as np

from asjax.config import AsjaxError, quoted, unknown

ASSETS = Path(__file__).parent / "assets" / "labels"
ONTOLOGY = ASSETS / "ontology_parents.csv"
STRONG_ONLY = ASSETS / "ontology_strong.csv"  # nodes of AudioSet Strong outside the ontology
KNOWN = (
    "audioset527",
    "audioset_strong447",  # classes of the training clips: the columns of PretrainedSED's models
    "audioset_strong416",  # classes of the evaluation clips
    "audioset_strong407",  # classes in both: the evaluated classes
    "audioset_strong456",  # classes in one or both
    "desed10",
    "fsd50k200",
    "esc50",
    "esc10",
)


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # unsafe to print: a terminal may obey them


def _folded(name: str) -> str:
    """A display name for comparisons: casefolded, accents composed (NFC)."""
    return normalize("NFC", normalize("NFC", name).casefold())


@dataclass(frozen=True)
class LabelSet:
    """An ordered set of classes.

    Attributes:
      name: its name in configs and reports.
      ids: one id per class, in index order.
      names: one display name per class.
      mids: the AudioSet mids of each class, if the ids are not mids themselves.
      taxonomy: the user's ontology, `{node: [parents]}`. A node is the id of a class, or a group
        that is no class. None: AudioSet's ontology, if it has the classes.
    """

    name: str
    ids: tuple[str, ...]
    names: tuple[str, ...]
    mids: tuple[tuple[str, ...], ...] = field(default=(), repr=False)
    taxonomy: dict[str, list[str]] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        for what, values in (("id", self.ids), ("display name", self.names)):
            keys = [_folded(v) if what == "display name" else normalize("NFC", v) for v in values]
            twice = sorted(key for key, n in Counter(keys).items() if n > 1 or not key)
            if twice:
                same = [v for v, key in zip(values, keys, strict=True) if key in twice][:6]
                raise AsjaxError(
                    f"label set {self.name}: every {what} must occur once, got twice or empty: "
                    + ", ".join(map(quoted, same))
                    + "; names that differ only in case or spaces are one name: spell them alike"
                )
        if odd := next((v for v in (*self.ids, *self.names) if _CONTROL.search(v)), None):
            raise AsjaxError(
                f"label set {self.name}: {quoted(odd)} holds control characters; remove them"
            )
        if not self.ids or len(self.ids) != len(self.names):
            raise AsjaxError(f"label set {self.name} must have as many ids as names, at least one")
        if self.mids and len(self.mids) != len(self.ids):
            raise AsjaxError(f"label set {self.name} must have mids for each class or for none")

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the lines `index,id`: equal hashes mean equal columns."""
        lines = "\n".join(f"{i},{label}" for i, label in enumerate(self.ids))
        return hashlib.sha256(lines.encode()).hexdigest()

    @cached_property
    def _lookup(self) -> dict[str, tuple[int, ...]]:
        """Every accepted spelling -> its possible indices. Ids come before names and mids."""
        by_id = {normalize("NFC", label): (i,) for i, label in enumerate(self.ids)}
        by_mid: dict[str, tuple[int, ...]] = {}
        for i, classes in enumerate(self.mids):
            for mid in classes:
                by_mid[mid] = (*by_mid.get(mid, ()), i)
        return {**by_mid, **{_folded(n): (i,) for i, n in enumerate(self.names)}, **by_id}

    def meanings(self, i: int) -> tuple[str, ...]:
        """The mids of class `i`. They are its id if the set has no separate mids."""
        return self.mids[i] if self.mids else (self.ids[i],)

    def index(self, label: str | int) -> int:
        """Index of a class given by id, mid, display name (any case) or index.

        Composed and decomposed accents (NFC, NFD) mean the same label.

        Raises:
          AsjaxError: no such class (the nearest names are listed), or a mid of several classes.
        """
        if not isinstance(label, str):
            return self._checked(label)
        text = normalize("NFC", label.strip())
        indices = self._lookup.get(text) or self._lookup.get(_folded(text))
        if indices is None and text.isascii() and text.isdigit() and len(text) < 10:
            return self._checked(int(text))
        if indices is None:
            what = f"{self.name} ({len(self)} classes){self._near(text[:200])}"
            raise AsjaxError(f"label {quoted(label)} is not a class of {what}")
        if len(indices) > 1:
            several = ", ".join(self.names[i] for i in indices)
            raise AsjaxError(f"label {label!r} means several classes of {self.name}: {several}")
        return indices[0]

    def _checked(self, label) -> int:
        try:
            index = label.__index__() if not isinstance(label, (bool, np.bool_)) else -1
        except (AttributeError, TypeError):
            index = -1
        if not 0 <= index < len(self):
            raise AsjaxError(
                f"label index must be an integer from 0 to {len(self) - 1} ({self.name}), "
                f"got {label!r}"
            )
        return index

    def _near(self, text: str) -> str:
        if len(self) <= 12:
            return f"; they are {', '.join(self.names)}"
        folded = {name.casefold(): name for name in self.names}
        near = difflib.get_close_matches(text.casefold(), folded, n=3)
        near += [n for n in folded if text and text.casefold() in n][: 3 - len(near)]
        names = dict.fromkeys(repr(folded[n]) for n in near)
        return f"; did you mean {' or '.join(names)}?" if names else ""

    def encode(self, labels) -> np.ndarray:
        """Labels in any accepted spelling -> sorted unique indices, int64 [n]."""
        if isinstance(labels, str):
            raise AsjaxError(f"labels must be a list, got the string {labels!r}")
        return np.array(sorted({self.index(label) for label in labels}), np.int64)

    def to_csv(self, path) -> None:
        """Write `index,mid,display_name[,audioset_mids]`."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(["index", "mid", "display_name", *["audioset_mids"] * bool(self.mids)])
            for i, row in enumerate(zip(self.ids, self.names, strict=True)):
                out.writerow([i, *row, *[";".join(m) for m in self.mids[i : i + 1]]])

    @classmethod
    def from_csv(cls, path, name: str | None = None) -> LabelSet:
        """Read a CSV from `to_csv`, or AudioSet's `class_labels_indices.csv`.

        Raises:
          AsjaxError: another kind of file, or the indices are not 0, 1, 2, ... in order.
        """
        path = Path(path)
        rows = read_rows(path, ("index", "mid", "display_name"), "a label set")
        for i, row in enumerate(rows):
            if row["index"].strip() != str(i):
                raise AsjaxError(
                    f"label set {path}: indices must run 0, 1, 2, ... in order, "
                    f"got {quoted(row['index'])} instead of {i}"
                )
        mids = [tuple(filter(None, (r.get("audioset_mids") or "").split(";"))) for r in rows]
        return cls(
            name or path.stem,
            tuple(row["mid"].strip() for row in rows),
            tuple(row["display_name"].strip() for row in rows),
            tuple(mids) if any(mids) else (),
        )

    def with_taxonomy(self, path) -> LabelSet:
        """The same classes with the taxonomy in a CSV; see `taxonomy.read`."""
        from asjax import taxonomy

        return replace(self, taxonomy=taxonomy.read(path, self))


def read_rows(path: Path, columns: tuple[str, ...], what: str) -> list[dict[str, str]]:
    """Rows of a small CSV. AsjaxError: no such file, not CSV, or one of `columns` is missing."""
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except FileNotFoundError:
        raise AsjaxError(f"{what}: no file {path}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AsjaxError(f"{what}: {path} cannot be read as CSV: {error}") from None
    if not rows or any(row.get(column) is None for row in rows for column in columns):
        raise AsjaxError(f"{what}: {path} must have the columns {','.join(columns)} in every row")
    return rows


def get(name_or_path) -> LabelSet:
    """The label set with a name in KNOWN, or from a CSV file."""
    if isinstance(name_or_path, LabelSet):
        return name_or_path
    text = str(name_or_path)
    if text in KNOWN:
        return _packaged(text)
    if text.endswith(".csv") or Path(text).is_file():
        return LabelSet.from_csv(text)
    raise AsjaxError(f"{unknown('label set', text, KNOWN)}, or the path of a .csv file")


@lru_cache
def _packaged(name: str) -> LabelSet:
    return LabelSet.from_csv(ASSETS / f"{name}.csv", name)


def parents(name="audioset527") -> dict[str, list[str]]:
    """Parents of every node of a set's ontology: `{mid: [mid, ...]}`.

    The ontology is the set's taxonomy if it has one, else AudioSet's ontology (632 nodes). It also
    has nodes that are no class of the set. The 32 classes of AudioSet Strong that are not in
    AudioSet's ontology have no parents here.

    Raises:
      AsjaxError: the set has no taxonomy and its ids are not AudioSet mids.
    """
    labels = get(name)
    if labels.taxonomy is not None:
        return {node: list(above) for node, above in labels.taxonomy.items()}
    table = {node: list(above) for node, above in _ontology().items()}
    alone = _strong_only()
    table |= {label: [] for label in labels.ids if label in alone}
    strangers = [label for label in labels.ids if label not in table]
    if strangers:
        raise AsjaxError(
            f"label set {labels.name} has no ontology: {len(strangers)} of its {len(labels)} ids "
            f"({', '.join(strangers[:3])}, ...) are not AudioSet mids; give your "
            "own with labels.parents='parents.csv'"
        )
    return table


def restrictions() -> dict[str, tuple[str, ...]]:
    """Nodes that AudioSet's ontology excludes as labels, and why: `{mid: ("abstract", ...)}`.

    An "abstract" node only groups other nodes. A "blacklist" node is too obscure to label. Other
    nodes have an empty tuple.
    """
    return {row["node"]: tuple(row["restrictions"].split()) for row in _ontology_rows()}


@lru_cache
def _strong_only() -> frozenset[str]:
    return frozenset(row["node"] for row in read_rows(STRONG_ONLY, ("node", "name"), "ontology"))


@lru_cache
def _ontology() -> dict[str, tuple[str, ...]]:
    return {row["node"]: tuple(row["parents"].split()) for row in _ontology_rows()}


@lru_cache
def _ontology_rows() -> list[dict[str, str]]:
    return read_rows(ONTOLOGY, ("node", "name", "parents", "restrictions"), "ontology")


def mapping(source="esc10", target="audioset527") -> np.ndarray:
    """bool [n_source, n_target]: the target classes that share a mid with each source class.

    A row of False means that the target does not have the class.
    """
    source, target = get(source), get(target)
    columns: dict[str, list[int]] = {}
    for j in range(len(target)):
        for mid in target.meanings(j):
            columns.setdefault(mid, []).append(j)
    table = np.zeros((len(source), len(target)), bool)
    for i in range(len(source)):
        for mid in source.meanings(i):
            table[i, columns.get(mid, [])] = True
    return table


def overlap(a, b) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which classes of `a` exist in `b`, by mid.

    Returns:
      `(shared, left_out)`: index pairs (in a, in b) as int64 [n, 2], and the display names of the
      classes of `a` that `b` does not have. `overlap("fsd50k200", "audioset527")` gives the classes
      of the HLP paper's zero-shot evaluation: 192 shared, 8 left out.
    """
    a, table = get(a), mapping(a, b)
    left_out = tuple(a.names[i] for i in np.flatnonzero(~table.any(axis=1)))
    return np.argwhere(table), left_out


def check_hash(expected: str, found: str, what: str) -> None:
    """Raise AsjaxError with both hashes if they differ. `what` names the owner of the labels."""
    if expected != found:
        raise AsjaxError(
            f"label hash of {what} must be {expected}, got {found}: the classes or their order "
            "differ; use the label set it was made with"
        )


def check_same(first: LabelSet, second: LabelSet, what: str, other: str) -> None:
    """Raise AsjaxError with the first differences if `second`, of `what`, is not `first`, of
    `other`."""
    if first.hash == second.hash:
        return
    lacking = {what: {*first.ids}, other: {*second.ids}}  # the classes of the other one
    why = ""
    for name, one in ((what, second), (other, first)):
        own = [n for i, n in zip(one.ids, one.names, strict=True) if i not in lacking[name]]
        why += f"; only {name} has {quoted(own[0])}" if own else ""
    if not why:
        at = next(i for i in range(len(first)) if first.ids[i] != second.ids[i])
        names = quoted(second.names[at]), quoted(first.names[at])
        why = f"; their order differs, first at index {at}: {names[0]}, not {names[1]}"
    raise AsjaxError(
        f"{what} has other classes than {other}: {len(second)}, not {len(first)}{why}; "
        "take those of one label set"
    )

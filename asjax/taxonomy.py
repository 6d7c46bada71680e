"""A user's ontology: a CSV of children and parents for the classes of a label set."""

from __future__ import annotations

import csv
import unicodedata
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from asjax.config import AsjaxError, nearest, quoted

COLUMNS = ("child", "parent")


def read(path, label_set) -> dict[str, list[str]]:
    """Parents of every node, `{node: [node, ...]}`. A class is given by its id.

    Args:
      path: a CSV with a row `child,parent` per link. Each is the id or display name of a class (in
        any case). Any other text is a node that is no class, such as a group. A row with an empty
        parent is a node without parents.

    Raises:
      AsjaxError: no such file, wrong rows (with line numbers), or a cycle (with the names in it).
    """
    path = Path(path)
    known = {_same(name): i for name, i in zip(label_set.names, label_set.ids, strict=True)}
    known |= {i: i for i in label_set.ids}
    other: dict[str, str] = {}  # nodes that are no class, in their first spelling
    table: dict[str, list[str]] = {}
    first: dict[str, int] = {}  # node -> the first line with it
    links: dict[tuple[str, str], int] = {}  # (child, parent) -> line
    wrong = []
    for line, *cells in _rows(path):
        child, parent = (
            known.get(text) or known.get(_same(text)) or other.setdefault(_same(text), text)
            for text in cells
        )
        if not child:
            wrong.append(f"line {line} has no child")
            continue
        for node in filter(None, (child, parent)):
            first.setdefault(node, line)
            table.setdefault(node, [])
        if parent and parent not in table[child]:
            table[child].append(parent)
            links[child, parent] = line
    _refuse_cycle(path, table, links, label_set)
    above = _above(table, label_set.ids)
    wrong += [
        f"line {first[node]} {quoted(node)} is no class of {label_set.name} and no ancestor of one"
        f"{nearest(node, label_set.names)}"
        for node in table
        if node not in above
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise AsjaxError(f"taxonomy {path}: {'; '.join(wrong[:5])}{more}")
    return {node: table.get(node, []) for node in dict.fromkeys((*label_set.ids, *table))}


def write(path, table: dict[str, list[str]]) -> None:
    """Write a taxonomy in the form that `read` reads."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        out.writerows([node, parent] for node, above in table.items() for parent in above or [""])


def _rows(path: Path):
    """(line, child, parent) of every row."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            wanted = f"must have the columns {','.join(COLUMNS)}"
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise AsjaxError(f"taxonomy {path} {wanted}")
            for row in reader:
                if any(not isinstance(row.get(column), str) for column in COLUMNS) or None in row:
                    raise AsjaxError(f"taxonomy {path} line {reader.line_num} {wanted}")
                yield reader.line_num, *(row[column].strip() for column in COLUMNS)
    except FileNotFoundError:
        raise AsjaxError(f"taxonomy: no file {path}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AsjaxError(f"taxonomy {path} cannot be read as CSV: {error}") from None


def _same(text: str) -> str:
    """The common form of two spellings of a name: NFC and casefolded."""
    return unicodedata.normalize("NFC", text).casefold()


def _above(table: dict, classes) -> set[str]:
    """The classes and all nodes above them."""
    above, waiting = set(), [node for node in classes if node in table]
    while waiting:
        node = waiting.pop()
        if node not in above:
            above.add(node)
            waiting += table[node]
    return above


def _refuse_cycle(path: Path, table: dict, links: dict, label_set) -> None:
    try:
        TopologicalSorter(table).prepare()
    except CycleError as error:
        ring = list(reversed(error.args[1]))
        names = dict(zip(label_set.ids, label_set.names, strict=True))
        listed = " -> ".join(quoted(names.get(node, node)) for node in ring)
        lines = ", ".join(str(links[pair]) for pair in zip(ring, ring[1:], strict=False))
        raise AsjaxError(
            f"taxonomy {path} has a cycle (child -> parent): {listed}; see lines {lines}"
        ) from None

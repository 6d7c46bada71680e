"""A table of tags or events as a file: the TSV of `asjax tag`, or the same columns as parquet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from asjax.config import AsjaxError
from asjax.tag import event_forms, forms
from asjax.tag.embeddings import text


@contextlib.contextmanager
def table(path: Path, kind: str, choice, label_set, events: bool) -> Iterator:
    """The form (see `forms`) that writes the file. `kind`: "tsv" or "parquet"."""
    if kind == "tsv":
        with path.open("w", encoding="utf-8", errors="replace", newline="") as out:
            yield (event_forms if events else forms).Tsv(out, choice, label_set)
        return
    form = (_Events if events else _Tags)(choice)
    yield form
    form.write(path)


def check(kind: str) -> None:
    """AsjaxError: parquet without pyarrow."""
    if kind == "parquet" and find_spec("pyarrow") is None:
        raise AsjaxError("--format parquet needs pyarrow, which is not installed; choose tsv")


class _Rows:
    """Rows in memory, those of a unit; `columns` gives their names and types."""

    def __init__(self, choice):
        self.choice, self.rows = choice, []

    def write(self, path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in self.columns.items()])
        values = zip(*self.rows, strict=True) if self.rows else [()] * len(schema)
        arrays = [pa.array(v, t) for v, t in zip(values, schema.types, strict=True)]
        parquet.write_table(pa.table(arrays, schema=schema), path)


class _Tags(_Rows):
    columns = {
        "file": "string", "window": "int32", "start_s": "float64", "end_s": "float64",
        "rank": "int32", "id": "string", "label": "string", "probability": "float32",
    }  # fmt: skip

    def __call__(self, tags) -> int:
        before, file = len(self.rows), text(tags.file)
        for window, begin, end, best in self.choice.blocks(tags):
            for rank, (i, p) in enumerate(best, 1):
                self.rows.append((file, window, begin, end, rank, tags.ids[i], tags.labels[i], p))
        return len(self.rows) - before


class _Events(_Rows):
    columns = {
        "filename": "string", "onset": "float64", "offset": "float64", "event_label": "string",
        "probability": "float64",
    }  # fmt: skip

    def __call__(self, found) -> int:
        file = text(found.file)
        self.rows += [(file, e.onset_s, e.offset_s, e.label, e.probability) for e in found.events]
        return len(found.events)

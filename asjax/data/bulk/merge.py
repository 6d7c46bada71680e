"""Parts -> one record dataset. Shards are linked, rows are joined; no audio is decoded."""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from asjax.config import AsjaxError, shown
from asjax.data import pcm16, records, writer
from asjax.data.bulk import report as reports
from asjax.data.bulk.part import Part
from asjax.store import files, swap

_HASHING = 4  # threads


def merge(
    parts: list[Part],
    out,
    label_set,
    listed: Path,
    *,
    fields: dict,
    name: str | None = None,
    overwrite: bool = False,
    trusted=frozenset(),
    extras: dict | None = None,
    drawn: bool = True,
    progress: bool = True,
):
    """Write the record dataset `out` of parts.

    Args:
      listed: listed.csv, for the report.
      fields: of manifest.json: licence, description, encoding, prepare, perhaps notes.
      trusted: folders of parts that need no check, because this process made them.
      extras: more files. drawn: with the counts and the picture per class.

    Returns: (writer.Summary, report.Report).

    Raises:
      AsjaxError: no clip is kept, a part is damaged, or the disk cannot be written.
    """
    out = Path(out)
    if out.exists() and not overwrite:
        writer.check_free(out, overwrite)
    parts = sorted(parts, key=lambda part: part.order)
    _check(parts, trusted, progress)
    kept, dropped = _kept(parts)
    if not kept:
        raise AsjaxError(f"{out}: no clip could be stored")
    name, version = writer.title(out, name)
    try:
        with swap.folder(out, what="record dataset", ours=writer.ours) as place:
            about = _join(parts, place, name, dropped)
            found = reports.Report(listed, parts, kept)
            made = reports.extras(found, label_set, _rows(place), drawn)
            strong = any(part.about.get("strong") for part in parts)
            manifest = {
                **about,
                "label_set": {"name": label_set.name, "hash": label_set.hash},
                **({"strong": True} if strong else {}),
                "left_out_count": sum(
                    count for c in found.counts.values() for s, count in c.items() if s != "kept"
                ),
                "left_out": [{"id": clip, "reason": why} for clip, why in found.left],
                "states": {key: dict(count) for key, count in found.counts.items()},
                "name": name,
                "version": version,
                **fields,
            }
            writer.complete(place, manifest, label_set, {**made, **(extras or {})})
    except (OSError, RuntimeError) as error:
        text = " ".join(str(error).split())
        raise AsjaxError(f"{out} could not be written: {text}") from error
    summary = writer.Summary(
        out, manifest["splits"], found.left, manifest["seconds"],
        sum(s["bytes"] for s in manifest["shards"]),
        manifest.get("events", 0), manifest.get("events_cut", 0),
    )  # fmt: skip
    return summary, found


def _check(parts, trusted, progress) -> None:
    """Hash the shards of parts that are not trusted. A cut ArrayRecord opens as an empty one."""
    from tqdm import tqdm

    doubted = [part for part in parts if part.folder not in trusted]
    todo = [(part.folder / shard["file"], shard) for part in doubted for shard in part.shards]
    total = sum(s["bytes"] for _, s in todo)
    bar = tqdm(
        total=total, unit="B", unit_scale=True, desc="check", disable=None if progress else True
    )

    def fault(item):
        path, shard = item
        try:
            sound = path.stat().st_size == shard["bytes"] and files.digest(path) == shard["sha256"]
        except OSError:
            sound = False
        bar.update(shard["bytes"])
        return None if sound else path

    with bar, ThreadPoolExecutor(_HASHING) as pool:
        for path in filter(None, pool.map(fault, todo)):
            raise AsjaxError(
                f"{shown(path)} is damaged or missing; remove its folder {shown(path.parent)} and "
                "run the same asjax prepare again"
            )


def _kept(parts):
    """id -> the part that keeps it; and part number -> rows that an earlier part has already."""
    kept: dict[str, Part] = {}
    dropped: dict[int, set[int]] = {}
    for number, part in enumerate(parts):
        for row, cells in enumerate(part.rows()):
            if cells[0] in kept:
                dropped.setdefault(number, set()).add(row)
            else:
                kept[cells[0]] = part
    return kept, dropped


def _join(parts, place: Path, name: str, dropped) -> dict:
    """Link the shards, join the tables; returns their fields of the manifest."""
    splits = sorted({shard["split"] for part in parts for shard in part.shards})
    pieces: dict[str, list] = {split: [] for split in splits}
    for number, part in enumerate(parts):
        begin = 0
        for shard in part.shards:  # in the order of the rows
            gone = {
                row - begin for row in dropped.get(number, ())
                if begin <= row < begin + shard["records"]
            }  # fmt: skip
            begin += shard["records"]
            if len(gone) < shard["records"]:
                pieces[shard["split"]].append((part, shard, gone))
    shards = []
    for split in splits:
        for i, (part, shard, gone) in enumerate(pieces[split]):
            file = records.shard_name(name, split, i, len(pieces[split]))
            shards.append(_place(part.folder / shard["file"], place / file, shard, gone))
    strong = any(part.about.get("strong") for part in parts)
    seconds = _write_rows(parts, place, splits, dropped, strong)
    more = _tables(parts, place)
    about = {
        "format": records.FORMAT,
        "clips": sum(s["records"] for s in shards),
        "seconds": round(seconds, 3),
        "splits": {
            split: count for split in splits
            if (count := sum(s["records"] for s in shards if s["split"] == split))
        },
        "pcm16_hz": pcm16.rate_of_all({p.about["pcm16_hz"] for p in parts if p.shards}),
        "shards": shards,
        "manifest_sha256": files.digest(place / "manifest.csv"),
        **more,
    }  # fmt: skip
    if strong:
        both = ("events", "events_cut")
        about |= {key: sum(part.about.get(key, 0) for part in parts) for key in both}
    return about


def _place(source: Path, target: Path, shard: dict, gone: set[int]) -> dict:
    """Link a shard, or copy it without the records in `gone`."""
    about = {**shard, "file": target.name}
    if not gone:
        with suppress(OSError):  # other disks, or disks without links
            os.link(source, target)
            return about
        shutil.copyfile(source, target)
        return about
    from array_record.python import array_record_module

    reader = records.Reader([(str(source), shard["records"])])
    out = array_record_module.ArrayRecordWriter(str(target), "group_size:1,uncompressed")
    for row in range(shard["records"]):
        if row not in gone:
            out.write(reader.raw(row))
    out.close()
    size, digest = target.stat().st_size, files.digest(target)
    return {**about, "records": shard["records"] - len(gone), "bytes": size, "sha256": digest}


def _write_rows(parts, place, splits, dropped, strong) -> float:
    """Write manifest.csv in the order of the shards; returns the seconds of all clips."""
    seconds = 0.0
    with (place / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow([*records.COLUMNS, *["events"] * strong])
        for split in splits:
            for number, part in enumerate(parts):
                gone = dropped.get(number, ())
                for row, cells in enumerate(part.rows()):
                    if cells[1] == split and row not in gone:
                        out.writerow(cells)
                        seconds += int(cells[4]) / int(cells[5])
    return seconds


def _rows(place: Path):
    with (place / "manifest.csv").open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        next(reader)
        yield from reader


def _tables(parts, place: Path) -> dict:
    """Write groups.csv and ATTRIBUTION.csv; returns their fields of the manifest."""
    fields: dict = {"licences": {}}
    groups = [row for part in parts for row in part.groups]
    credits_ = [row for part in parts for row in part.credits]
    if credits_:
        with (place / "ATTRIBUTION.csv").open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(["id", "split", "labels", "licence", "attribution"])
            out.writerows(sorted(credits_, key=lambda row: (row[1], row[0])))
        fields["licences"] = dict(Counter(row[3] for row in credits_).most_common())
    if groups:
        with (place / "groups.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([["id", "group"], *groups])
        fields["groups_sha256"] = files.digest(place / "groups.csv")
    return fields

"""Write the record format (see `records`): the result is one complete folder, or nothing."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asjax import events
from asjax.config import AsjaxError
from asjax.data import example, pcm16, records
from asjax.data.clips import Clip, Encoding, load_all
from asjax.store import files, swap

_EXTRAS = (".tsv", ".html", ".csv", ".png", ".svg")


@dataclass(frozen=True)
class Summary:
    """The result of `write`: clips per split, `(id, reason)` of clips left out, seconds, bytes."""

    path: Path
    splits: dict[str, int]
    left_out: list[tuple[str, str]]
    seconds: float
    bytes: int
    events: int = 0
    cut: int = 0  # events cut at the last decoded sample

    @property
    def clips(self) -> int:
        return sum(self.splits.values())


def write(
    out,
    clips: Iterable[Clip],
    label_set,
    *,
    name: str | None = None,
    description: str = "",
    licence: str = "",
    left_out: Iterable[tuple[str, str]] = (),
    encoding: Encoding | None = None,
    strong: bool = False,
    notes: dict | None = None,
    extras: dict[str, str] | None = None,
    shard_mb: int = 1024,
    max_mb: int = 256,
    threads: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Summary:
    """Write `clips` as the record dataset `out`. Clips that cannot be decoded are left out.

    Every clip is decoded once from its first to its last sample. The folder appears at `out` after
    everything is written, read back and counted. The order on disk is the order of the clips.

    Args:
      out: folder to make. With a version such as `.../mine/1.0.0`, `tfds.data_source("mine")`
        finds it. Without one the version is 1.0.0.
      left_out: `(id, reason)` of other clips, e.g. with missing files, for the manifest.
      encoding: None stores the bytes of every file unchanged.
      strong: the set has events in time. They are cut at the end of the decoded clip.
      notes: JSON for the manifest, e.g. a list of repairs.
      extras: more text files for the folder, name -> text.
      max_mb: largest audio file in MiB; larger ones are left out.

    Raises:
      AsjaxError: `out` exists, an id occurs twice, a label is not an id of `label_set`, no clip is
        left, or the disk cannot be written.
    """
    out = Path(out)
    check_free(out, overwrite)
    name, version = title(out, name)
    try:
        with swap.folder(out, what="record dataset", ours=ours) as part:
            with ExitStack() as stack:
                job = Job(part, name, label_set, shard_mb << 20, stack, strong, is_raw(encoding))
                job.left_out.extend(left_out)
                for clip, loaded in load_all(clips, encoding, max_mb << 20, threads, progress):
                    job.add(clip, loaded)
                job.check_some(out)
                manifest = job.finish()
            manifest |= {"name": name, "version": version, "description": description}
            manifest |= {"licence": licence, "encoding": as_json(encoding)}
            manifest |= {"notes": notes} if notes else {}
            complete(part, manifest, label_set, extras)
    except (OSError, RuntimeError) as error:  # ArrayRecord reports a full disk as RuntimeError
        reason = " ".join(str(error).split())
        raise AsjaxError(f"{out} could not be written: {reason}") from error
    seconds, size = manifest["seconds"], sum(s["bytes"] for s in manifest["shards"])
    return Summary(out, manifest["splits"], job.left_out, seconds, size, job.events, job.cut)


def check_free(out, overwrite: bool) -> None:
    """AsjaxError unless a record dataset may be written to `out`."""
    out = Path(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / "manifest.json").is_file():
        raise AsjaxError(f"{out} exists and is not a record dataset; choose another folder")
    if not overwrite:
        raise AsjaxError(f"{out} exists; choose another folder or replace it with --overwrite")


def title(out: Path, name: str | None = None) -> tuple[str, str]:
    """Name and version of the dataset in the folder `out`; `name` is asked for."""
    version = out.name if records.is_version(out.name) else "1.0.0"
    base = name or (out.parent.name if records.is_version(out.name) else out.name)
    return re.sub(r"\W", "_", re.sub(r"^(?=\d)", "d", base.lower())) or "dataset", version


def is_raw(encoding: Encoding | None) -> bool:
    """Whether records hold samples instead of audio files."""
    return encoding is not None and encoding.container == pcm16.NAME


def as_json(encoding: Encoding | None):
    """The field `encoding` of a manifest."""
    return pcm16.NAME if is_raw(encoding) else vars(encoding) if encoding else None


def complete(part: Path, manifest: dict, label_set, extras=None) -> None:
    """Write the metadata of a dataset whose shards and tables are in `part`, then open it.

    Args: extras: more files, name -> text or bytes.
    """
    manifest |= {"extras": sorted(extras)} if extras else {}
    for extra, content in (extras or {}).items():
        data = content if isinstance(content, bytes) else content.encode("utf-8")
        (part / extra).write_bytes(data)
    _write_metadata(part, manifest, label_set)
    records.Dataset(part, verify=False)


def ours(folder: Path) -> set[str] | None:
    """The file names that `write` may make in a record dataset; None for another folder."""
    if not (folder / "manifest.json").is_file():
        return None
    shards = {p.name for p in folder.iterdir() if ".array_record-" in p.name}
    texts = {f"{stem}.json" for stem in ("manifest", "features", "dataset_info")}
    tables = {f"{stem}.csv" for stem in ("manifest", "labels", "groups", "ATTRIBUTION")}
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        extras = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["extras"]
        texts |= {name for name in extras if name.endswith(_EXTRAS)}
    return shards | texts | tables


# --------------------------------------------------------------------------- shards, manifest


class _Split:
    """The open shard and the manifest rows of one split."""

    def __init__(self, folder: Path, name: str, limit: int, stack: ExitStack):
        self.folder, self.name, self.limit = folder, name, limit
        self.counts: list[int] = []
        self.writer, self.bytes = None, 0
        self.rows_path = folder / f"{name}.rows"
        self.rows = stack.enter_context(self.rows_path.open("w", newline="", encoding="utf-8"))
        self.csv = csv.writer(self.rows, lineterminator="\n")
        stack.callback(self.close)

    def add(self, record: bytes, row: list):
        from array_record.python import array_record_module

        if self.writer is None or (self.bytes and self.bytes + len(record) > self.limit):
            self.close()
            # Encoded audio does not compress further. Uncompressed it reads three times as fast.
            self.writer = array_record_module.ArrayRecordWriter(
                str(self.folder / f"{self.name}.{len(self.counts)}"), "group_size:1,uncompressed"
            )
            self.counts.append(0)
            self.bytes = 0
        self.writer.write(record)
        self.bytes += len(record)
        self.counts[-1] += 1
        self.csv.writerow(row)

    def close(self):
        writer, self.writer = self.writer, None
        if writer is not None:
            writer.close()


class Job:
    """The state of one dataset, or of a part of one, while it is written.

    Args: limit: bytes of a shard. raw: the audio is pcm16 samples.
    """

    def __init__(self, folder, name, label_set, limit, stack, strong=False, raw=False):
        self.raw = raw
        self.folder, self.name, self.limit, self.stack = folder, name, limit, stack
        self.label_set, self.known = label_set, frozenset(label_set.ids)
        self.splits: dict[str, _Split] = {}
        self.seen: set[str] = set()
        self.left_out: list[tuple[str, str]] = []
        self.seconds, self.licences = 0.0, Counter()
        self.pcm16_rates: set[int] = set()
        self.strong, self.events, self.cut = strong, 0, 0
        self.attributions: list[list[str]] = []
        self.groups: list[list[str]] = []

    def add(self, clip: Clip, loaded):
        if clip.id in self.seen:
            raise AsjaxError(f"clip {clip.id!r} occurs twice; ids must be unique")
        self.seen.add(clip.id)
        for label in clip.labels:
            if label not in self.known or ";" in label:
                raise AsjaxError(
                    f"clip {clip.id!r}: label {label!r} must be an id of {self.label_set.name}, "
                    "and ids must not contain ';'"
                )
        if isinstance(loaded, str):
            self.left_out.append((clip.id, loaded))
            return
        data, rate, samples = loaded
        split = self.splits.get(clip.split)
        if split is None:
            if not records.is_split(clip.split):
                raise AsjaxError(
                    f"clip {clip.id!r}: split must be letters, digits and _, must not start with "
                    f"a digit and must not be 'all', got {clip.split!r}"
                )
            split = _Split(self.folder, clip.split, self.limit, self.stack)
            self.splits[clip.split] = split
        fields = {"id": clip.id, "audio": data, "sample_rate": rate, "samples": samples}
        fields |= {"labels": list(clip.labels), "category": clip.category}
        labels, digest = ";".join(clip.labels), hashlib.sha256(data).hexdigest()
        row = [clip.id, clip.split, labels, clip.category, samples, rate, digest]
        if self.strong:
            marks = self._marks(clip, samples / rate)
            text = events.to_text(marks)
            fields |= {"strong": int(marks is not None), "events": text.split(";") if marks else []}
            row.append(text)
        elif clip.events is not None:
            raise AsjaxError(f"clip {clip.id!r} has events; write the set with strong=True")
        split.add(example.encode(fields), row)
        self.seconds += samples / rate
        self.pcm16_rates.add(rate if self.raw else pcm16.rate_of(data))
        if clip.group:
            self.groups.append([clip.id, clip.group])
        if clip.licence or clip.attribution:
            self.licences[clip.licence] += 1
            self.attributions.append([clip.id, clip.split, labels, clip.licence, clip.attribution])

    def _marks(self, clip: Clip, seconds: float) -> list[tuple[float, float, str]] | None:
        """The events, cut at the clip's end; None if the clip is not annotated."""
        if clip.events is None:
            return None
        inside = []
        for onset, offset, label in clip.events:
            good = label in self.known and ";" not in label
            if not (good and 0 <= onset < offset < float("inf")):  # NaN fails too
                raise AsjaxError(
                    f"clip {clip.id!r}: an event must be (onset_s, offset_s, id of "
                    f"{self.label_set.name}) with 0 <= onset < offset, got {onset, offset, label}"
                )
            self.cut += offset > seconds
            if onset < seconds:
                inside.append((onset, min(offset, seconds), label))
        self.events += len(inside)
        return inside

    def check_some(self, out):
        if not self.splits:
            first = "; ".join(f"{i}: {reason}" for i, reason in self.left_out[:3])
            raise AsjaxError(f"{out}: no clip could be stored ({first or 'none was given'})")

    def finish(self) -> dict:
        """Close, rename and hash the shards, and join the rows. Returns the manifest's fields."""
        shards = []
        with (self.folder / "manifest.csv").open("wb") as rows:
            columns = (*records.COLUMNS, *["events"] * self.strong)
            rows.write((",".join(columns) + "\n").encode())
            for name in sorted(self.splits):
                split = self.splits[name]
                split.close()
                split.rows.close()
                with split.rows_path.open("rb") as f:
                    shutil.copyfileobj(f, rows)
                split.rows_path.unlink()
                shards += [self._seal(name, i, split.counts) for i in range(len(split.counts))]
        if self.attributions:
            with (self.folder / "ATTRIBUTION.csv").open("w", newline="", encoding="utf-8") as f:
                out = csv.writer(f, lineterminator="\n")
                out.writerow(["id", "split", "labels", "licence", "attribution"])
                out.writerows(sorted(self.attributions, key=lambda row: (row[1], row[0])))
        grouped = {}
        if self.groups:
            with (self.folder / "groups.csv").open("w", newline="", encoding="utf-8") as f:
                csv.writer(f, lineterminator="\n").writerows([["id", "group"], *self.groups])
            grouped["groups_sha256"] = files.digest(self.folder / "groups.csv")
        strong = {"strong": True, "events": self.events, "events_cut": self.cut}
        return {
            **grouped,
            **(strong if self.strong else {}),
            "format": records.FORMAT,
            "label_set": {"name": self.label_set.name, "hash": self.label_set.hash},
            "clips": sum(s["records"] for s in shards),
            "seconds": round(self.seconds, 3),
            "splits": {name: sum(self.splits[name].counts) for name in sorted(self.splits)},
            "pcm16_hz": pcm16.rate_of_all(self.pcm16_rates),
            "licences": dict(self.licences.most_common()),
            "left_out_count": len(self.left_out),
            "left_out": [{"id": i, "reason": reason} for i, reason in self.left_out],
            "shards": shards,
            "manifest_sha256": files.digest(self.folder / "manifest.csv"),
        }

    def _seal(self, split: str, index: int, counts: list[int]) -> dict:
        file = records.shard_name(self.name, split, index, len(counts))
        path = (self.folder / f"{split}.{index}").rename(self.folder / file)
        return {
            "file": file,
            "split": split,
            "records": counts[index],
            "bytes": path.stat().st_size,
            "sha256": files.digest(path),
        }


def _write_metadata(folder: Path, manifest: dict, label_set):
    """Write manifest.json, labels.csv, dataset_info.json and features.json (by TFDS's classes)."""
    import tensorflow_datasets as tfds

    label_set.to_csv(folder / "labels.csv")
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    text, core = tfds.features.Text(), tfds.core
    # Audio bytes are a Text, because `features.Audio` cannot be read without TensorFlow.
    columns = {"id": text, "audio": text, "sample_rate": np.int32, "samples": np.int64}
    columns |= {"labels": tfds.features.Sequence(text), "category": text}
    if manifest.get("strong"):
        columns |= {"strong": np.int64, "events": tfds.features.Sequence(text)}
    name, version = manifest["name"], core.Version(manifest["version"])
    template = core.ShardedFileTemplate(
        dataset_name=name, data_dir=folder, filetype_suffix="array_record"
    )
    splits = []
    for split in manifest["splits"]:
        shards = [s for s in manifest["shards"] if s["split"] == split]
        lengths, size = [s["records"] for s in shards], sum(s["bytes"] for s in shards)
        splits.append(core.SplitInfo(split, lengths, size, template))
    info = core.DatasetInfo(
        builder=core.DatasetIdentity(name, version, data_dir=str(folder), module_name=""),
        features=tfds.features.FeaturesDict(columns),
        description=manifest["description"],
        split_dict=core.SplitDict(splits),
    )
    info.set_file_format(core.FileFormat.ARRAY_RECORD)
    info.write_to_directory(folder)

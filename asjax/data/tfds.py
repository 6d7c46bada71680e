"""Read audio data sets of TensorFlow Datasets (TFDS) without TensorFlow.

TFDS finds the shards of a split (`train[:80%]`, `train+test`) and the names of classes. This module
reads the records, because the Audio feature of TFDS needs TensorFlow. Worker processes do not
import TFDS.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError, unknown
from asjax.data import records
from asjax.labels import LabelSet
from asjax.store import files

# Usual names of features. The first one that exists is used if a config names none.
_USUAL = {
    "audio": ("audio", "wav", "wave", "waveform", "speech", "sound"),
    "labels": ("labels", "label", "classes", "class", "tags", "targets", "target", "category"),
    "ids": ("id", "ids", "clip_id", "video_id", "filename", "file_name", "audio/filename"),
    "rate": ("sample_rate", "sampling_rate", "audio/sample_rate"),
}
_BITS = {"int8": 8, "int16": 16, "int32": 32, "int64": 16}  # TFDS stores 16-bit audio as int64


@dataclass(frozen=True)
class Column:
    """A feature of a data set: its path in a record and its type.

    kind: "numbers", "bytes", "text", "class", or "" for a feature that is not used here.
    many: the feature is a sequence.
    """

    path: str
    kind: str = ""
    many: bool = False
    dtype: str = ""
    encoding: str = "none"
    channels: int = 1
    rate: int = 0
    names: tuple[str, ...] = ()


class Waves:
    """`waves[row]` -> bytes of an audio file. Can be pickled; opens its shards once per process.

    Integers become 16- or 32-bit WAV without loss, floats become float WAV. Stored audio files are
    not changed.
    """

    def __init__(self, reader: records.Reader, column: Column, rate: int, rates: Column | None):
        self.reader, self.column, self.rate, self.rates = reader, column, rate, rates

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def pcm16_hz(self) -> int:
        """The rate if all audio is 16-bit mono PCM of one rate, else 0; see `Source.pcm16_hz`."""
        plain = _BITS.get(self.column.dtype, 32) <= 16 and self.column.channels == 1
        return self.rate if plain and self.rates is None else 0

    def __getitem__(self, row: int) -> bytes:
        import soundfile

        paths = {self.column.path, *([self.rates.path] if self.rates else ())}
        fields = self.reader.record(row, paths)
        try:
            value = fields[self.column.path]
            if self.column.kind == "bytes":
                return value[0]
            rate = int(fields[self.rates.path][0]) if self.rates else self.rate
            wave = _samples(value, self.column)
        except (KeyError, IndexError, ValueError, zlib.error) as error:
            where = self.reader.where(row)
            raise AsjaxError(f"{where}: no audio in {self.column.path}: {error}") from None
        subtype = {"int16": "PCM_16", "int32": "PCM_32", "float32": "FLOAT"}[wave.dtype.name]
        out = io.BytesIO()
        soundfile.write(out, wave, rate, format="WAV", subtype=subtype)
        return out.getvalue()


def _samples(value, column: Column) -> np.ndarray:
    """The samples of a record as int16, int32 or float32, [S] or [S, channels]."""
    if column.encoding == "none":
        x = np.asarray(value)
    else:
        raw = zlib.decompress(value[0]) if column.encoding == "zlib" else value[0]
        x = np.frombuffer(raw, column.dtype)
    if column.channels > 1:
        x = x.reshape(-1, column.channels)
    if column.dtype not in _BITS:
        return x.astype(np.float32)
    bits = _BITS[column.dtype]
    low, high = (int(x.min()), int(x.max())) if x.size else (0, 0)
    if low < -(2 ** (bits - 1)) or high >= 2 ** (bits - 1):
        raise ValueError(f"samples from {low} to {high} do not fit into {bits} bits")
    return x.astype(np.int32) if bits == 32 else (x * 2 ** (16 - bits)).astype(np.int16)


@dataclass(frozen=True, repr=False, eq=False)
class Opened:
    """A split of a data set with its labels.

    Attributes:
      path: its folder. ids, split: a text per clip. labels: names of classes per clip.
      classes: all class names, if the label feature has a list of them, else ().
      waves, row: `waves[row[i]]` is the audio of clip i.
      about: texts that change if the data change.
    """

    path: Path
    ids: list[str]
    split: list[str]
    labels: list[tuple[str, ...]]
    classes: tuple[str, ...]
    waves: Waves
    row: np.ndarray
    about: tuple[str, ...]


def find(builder: str) -> Path:
    """The folder of a prepared data set, given by path or by TFDS's `name[/config][:version]`.

    Raises:
      AsjaxError: no such data set. The message lists the configs that exist.
    """
    name, colon, version = str(builder).partition(":")
    name, version = (name, version) if records.is_version(version) else (str(builder), "")
    home = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    configs = []
    for root in (Path(), Path(home).expanduser()):
        place = root / Path(name).expanduser() / version
        if (place / "dataset_info.json").is_file():
            return place
        versions = [p.parent for p in place.glob("*/dataset_info.json")]
        versions = [p for p in versions if records.is_version(p.name)]
        if versions:
            return max(versions, key=lambda p: tuple(map(int, p.name.split("."))))
        configs += sorted({p.parent.parent.name for p in place.glob("*/*/dataset_info.json")})
    hint = f"; it has the configs {', '.join(configs)}: add /CONFIG" if configs else ""
    raise AsjaxError(
        f"tfds: no data set at {builder}, nor in {home}{hint or '; prepare it with TFDS first'}"
    )


def own_labels(*, builder: str, split: str = "train", labels: str = "", **fields) -> LabelSet:
    """The label set "own" of a data set: the names of its ClassLabel, else its sorted labels.

    Raises:
      AsjaxError: as `open_split`.
    """
    folder = find(builder)
    classes = _labels_of(folder, _metadata(folder)[1], labels).names
    if not classes:  # the labels are free texts
        fields = {k: fields[k] for k in ("audio", "ids", "rate", "label_separator") if k in fields}
        opened = open_split(builder, split, labels=labels, **fields)
        classes = tuple(sorted({name for names in opened.labels for name in names}))
    return LabelSet("own", classes, classes)


def open_split(
    builder: str,
    split: str = "train",
    *,
    audio: str = "",
    labels: str = "",
    ids: str = "",
    rate: int = 0,
    label_separator: str = "",
) -> Opened:
    """A split of a prepared data set; see `asjax.data.sources.tfds` for the arguments.

    Raises:
      AsjaxError: no such data set, split or feature, another file format, a damaged shard, or a
        feature of the wrong type.
    """
    folder = find(builder)
    info, columns = _metadata(folder)
    pick = lambda what, name, kinds: _pick(folder, columns, what, name, kinds)  # noqa: E731
    wave = pick("audio", audio, ("numbers", "bytes", "text"))
    label = _labels_of(folder, columns, labels)
    ident = pick("ids", ids, ("text", "numbers"))
    if wave is None:
        raise AsjaxError(f"{folder}: audio='...' must name a feature. Known: {', '.join(columns)}")
    if wave.kind == "text":
        wave = Column(wave.path, "bytes")
    rates = None
    if wave.kind == "numbers":
        if wave.dtype not in (*_BITS, "float16", "float32", "float64", "bfloat16"):
            raise AsjaxError(f"{folder}: {wave.path} of {wave.dtype} is no audio")
        rate = rate or wave.rate
        rates = None if rate else pick("rate", "", ("numbers",))
        if not rate and rates is None:
            raise AsjaxError(f"{folder}: the sample rate of {wave.path} is not known; give rate=HZ")
    reader, row, names = _shards(folder, info, split)
    wanted = {label.path, *([ident.path] if ident else ())}
    seen, clips, texts = set(), [], []
    for place in row:
        fields = reader.record(int(place), wanted)
        clip = _text(fields[ident.path][0]) if ident else reader.where(int(place), short=True)
        if clip in seen:
            raise AsjaxError(
                f"{folder}: {ident.path} must be unique, got {clip!r} twice; give another ids=..."
            )
        seen.add(clip)
        clips.append(clip)
        texts.append(_labels(folder, clip, label, fields.get(label.path, ()), label_separator))
    sizes = [str(os.path.getsize(file)) for file in reader.files]
    about = (info.name, info.version, json.dumps(_config(folder), sort_keys=True), *sizes)
    waves = Waves(reader, wave, rate, rates)
    return Opened(folder, clips, names, texts, label.names, waves, row, about)


def _text(value) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _labels(folder, clip: str, column: Column, values, separator: str) -> tuple[str, ...]:
    if column.kind == "class":
        if any(not 0 <= v < len(column.names) for v in values):
            raise AsjaxError(f"{folder}: clip {clip!r} has no label (-1); leave its split out")
        return tuple(column.names[v] for v in values)
    texts = [_text(value) for value in values]
    if separator:
        texts = [part for text in texts for part in text.split(separator)]
    return tuple(filter(None, map(str.strip, texts)))


# ------------------------------------------------------------------------------------ metadata


def _config(folder: Path) -> dict:
    try:
        return json.loads((folder / "features.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AsjaxError(
            f"{folder / 'features.json'} cannot be read: {files.reason(error)}"
        ) from None


def _metadata(folder: Path):
    """`(dataset_info.json as a protobuf message of TFDS, {path: Column})`."""
    from google.protobuf import json_format
    from tensorflow_datasets.core import dataset_info
    from tensorflow_datasets.core.proto import feature_pb2

    try:
        info = dataset_info.read_proto_from_builder_dir(folder)
        features = json_format.ParseDict(_config(folder), feature_pb2.Feature())
    except AsjaxError:
        raise
    except Exception as error:  # TFDS raises several kinds
        raise AsjaxError(f"{folder} is no data set of TFDS: {files.reason(error)}") from None
    if info.file_format != "array_record":
        raise AsjaxError(
            f"{folder} is stored as {info.file_format or 'tfrecord'}, not as ArrayRecord: prepare "
            "it with TFDS's file_format='array_record'"
        )
    return info, dict(_columns(folder, features, ""))


def _columns(folder: Path, feature, path: str, many: bool = False):
    """(path, Column) of every feature; `a/b` is feature b of feature a, as in the records."""
    content = feature.WhichOneof("content")
    if content == "features_dict":
        for name in sorted(feature.features_dict.features):
            inner = feature.features_dict.features[name]
            yield from _columns(folder, inner, f"{path}/{name}" if path else name, many)
        return
    if content == "sequence":
        yield from _columns(folder, feature.sequence.feature, path, True)
        return
    about = getattr(feature, content)
    column = Column(path, many=many)
    if content == "class_label":
        column = Column(path, "class", many, names=_names(folder, path, about.num_classes))
    elif content == "text" or (content in ("tensor", "audio") and about.dtype == "string"):
        column = Column(path, "text", many)
    elif content == "audio" and about.lazy_decode:
        column = Column(path, "bytes", many)
    elif content in ("audio", "tensor") and len(about.shape.dimensions) <= 2:
        size = [int(n) for n in about.shape.dimensions]
        rate = int(about.sample_rate) if content == "audio" else 0
        encoding = (about.encoding or "none").lower()
        channels = size[1] if len(size) == 2 else 1
        column = Column(path, "numbers", many, about.dtype, encoding, channels, rate)
    yield path, column


def _names(folder: Path, path: str, count: int) -> tuple[str, ...]:
    import tensorflow_datasets as tfds

    label = tfds.features.ClassLabel(num_classes=count)
    label.load_metadata(folder, path.replace("/", "-"))
    return tuple(label.names)


def _pick(folder: Path, columns: dict, what: str, name: str, kinds) -> Column | None:
    """The feature `name`, else the first one with a usual name, else None."""
    if name:
        if name not in columns:
            raise unknown(f"{folder}: feature", name, columns)
        if columns[name].kind not in kinds:
            raise AsjaxError(f"{folder}: feature {name} has a type that cannot be {what}")
        return columns[name]
    usual = (columns[name] for name in _USUAL[what] if name in columns)
    return next((column for column in usual if column.kind in kinds), None)


def _labels_of(folder: Path, columns: dict, name: str) -> Column:
    column = _pick(folder, columns, "labels", name, ("class", "text"))
    if column is None:
        raise AsjaxError(f"{folder}: labels='...' must name a feature. Known: {', '.join(columns)}")
    return column


def _shards(folder: Path, info, split: str):
    """`(reader of the shards, rows of the split in it, name of the split of each row)`."""
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        dataset_name=info.name, data_dir=folder, filetype_suffix=info.file_format
    )
    known = tfds.core.SplitDict.from_proto(
        repeated_split_infos=info.splits, filename_template=template
    )
    try:
        parts = known[split].file_instructions
    except Exception as error:  # TFDS raises several kinds
        raise AsjaxError(
            f"{folder}: split {split!r} cannot be read ({files.reason(error)}). Known: "
            f"{', '.join(known)}, and TFDS's slices, such as '{next(iter(known), 'train')}[:80%]'"
        ) from None
    if not parts:
        raise AsjaxError(f"{folder}: split {split!r} has no clips")
    of = {str(file): name for name, one in known.items() for file in one.filepaths}
    counts = {str(part.filename): part.examples_in_shard for part in parts}
    for file, count in counts.items():
        if not Path(file).is_file():
            raise AsjaxError(f"shard {file} is missing")
        if (stored := records.count_records(file)) != count:
            raise AsjaxError(f"shard {file} is damaged: must hold {count} records, got {stored}")
    reader = records.Reader(list(counts.items()))
    starts = dict(zip(counts, [0, *reader.ends[:-1]], strict=True))
    rows, names = [], []
    for part in parts:
        take = part.examples_in_shard - part.skip if part.take == -1 else part.take
        start = int(starts[str(part.filename)]) + part.skip
        rows.append(np.arange(start, start + take, dtype=np.int64))
        names += [of[str(part.filename)]] * take
    return reader, np.concatenate(rows), names

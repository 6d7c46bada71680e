"""The metadata of an ONNX file, without onnx: the entries that `asjax export` wrote.

Only the top level of the file is read. Graph and weights are passed over, so a foreign or damaged
file is found before anything runs it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from asjax.config import AsjaxError, quoted, shown
from asjax.labels import LabelSet
from asjax.metrics.probability import ACTIVATIONS
from asjax.store import files

MOST_BYTES = 2**31  # of a protobuf message
_MOST_ENTRY = 1 << 26  # bytes of the metadata
_PROPERTIES = 14  # field of ModelProto: metadata_props, entries with key = 1 and value = 2
_NOT_OURS = "is not an ONNX file of asjax: {}; write one with: asjax export MODEL --onnx FILE"


@dataclass(frozen=True)
class About:
    """What a file says about its model; see `asjax.export.onnx_file.metadata`.

    `least` and `most` are the samples that a wave may have; most 0: there is no limit.
    """

    model: str
    sample_rate: int
    clip_s: float
    label_set: LabelSet
    activation: str
    frames: int
    decoding: dict | None
    card: str
    weights: str
    least: int
    most: int


def read(path: Path) -> About:
    """The description of an ONNX file.

    Raises:
      AsjaxError: no such file, it is damaged or too large, or asjax did not write it.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ValueError(f"it has {size:,} bytes, and an ONNX file has at most 2 GB")
        with path.open("rb") as file:
            found = _properties(file, size)
    except OSError as error:
        raise AsjaxError(f"{shown(path)} cannot be read: {files.reason(error)}") from None
    except ValueError as error:
        raise AsjaxError(f"{shown(path)} {_NOT_OURS.format(error)}") from None
    if "asjax" not in found:
        raise AsjaxError(f"{shown(path)} {_NOT_OURS.format('it has no class names')}")
    try:
        return _about(found)
    except KeyError as error:
        why = f"its metadata has no {error.args[0]}"
    except (AsjaxError, ValueError, TypeError, RecursionError) as error:
        why = f"its metadata is damaged: {files.reason(error)}"
    raise AsjaxError(f"{shown(path)} {_NOT_OURS.format(why)}")


def _about(found: dict[str, str]) -> About:
    label_set = LabelSet(
        found["label_set"],
        _texts(found, "label_ids"),
        _texts(found, "labels"),
        tuple(map(tuple, _list(found, "label_mids"))),
    )
    if label_set.hash != found["label_hash"]:
        raise ValueError("its classes are not those of its label hash")
    if found["activation"] not in ACTIVATIONS:
        raise ValueError(f"activation {quoted(found['activation'])}")
    decoding = json.loads(found.get("decoding", "null"))
    if not isinstance(decoding, (dict, type(None))):
        raise ValueError("decoding is no object")
    return About(
        model=found.get("model", ""),
        sample_rate=_number(found, "sample_rate", int, 1, 10**6),
        clip_s=_number(found, "clip_s", float, 1e-3, 3600),
        label_set=label_set,
        activation=found["activation"],
        frames=_number(found, "frames", int, 0, 10**6),
        decoding=decoding,
        card=found.get("card", ""),
        weights=found.get("weights", ""),
        least=_number(found, "least_samples", int, 1, 2**40),
        most=_number(found, "most_samples", int, 0, 2**40),
    )


def _list(found, key: str) -> list:
    values = json.loads(found[key])
    if not isinstance(values, list) or len(values) > 10**6:
        raise ValueError(f"{key} is no list")
    return values


def _texts(found, key: str) -> tuple[str, ...]:
    values = _list(found, key)
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{key} is no list of texts")
    return tuple(values)


def _number(found, key: str, kind, low, high):
    value = kind(found[key])
    if not low <= value <= high:
        raise ValueError(f"{key} is {quoted(found[key])}")
    return value


# ---------------------------------------------------------------------------------------- protobuf


def _properties(file, size: int) -> dict[str, str]:
    """metadata_props of a ModelProto. ValueError: the bytes are no protobuf message."""
    found: dict[str, str] = {}
    for field, start, end in _fields(file, 0, size):
        if field != _PROPERTIES:
            continue
        if end - start > _MOST_ENTRY or len(found) > 1000:
            raise ValueError("its metadata is too long")
        texts = {}
        for inner, first, last in _fields(file, start, end):
            file.seek(first)
            texts[inner] = file.read(last - first).decode("utf-8")
        found[texts.get(1, "")] = texts.get(2, "")
        file.seek(end)
    return found


def _fields(file, at: int, end: int):
    """(number, start, end) of every field of a message between two places of the file."""
    while at < end:
        file.seek(at)
        tag, at = _varint(file, at)
        kind, number = tag & 7, tag >> 3
        if kind == 2:
            length, at = _varint(file, at)
        elif kind == 0:
            start = at
            _, at = _varint(file, at)
            length, at = at - start, start
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError("it is no protobuf message")
        if not number or at + length > end:
            raise ValueError("it is cut off, or no protobuf message")
        yield number, at, at + length
        at += length


def _varint(file, at: int) -> tuple[int, int]:
    value = 0
    for k in range(10):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 127) << (7 * k)
        if byte[0] < 128:
            return value, at + k + 1
    raise ValueError("it is cut off, or no protobuf message")

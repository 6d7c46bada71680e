"""Write and read `tf.train.Example`, the record of TFDS, without TensorFlow.

The message is declared here by its public field numbers (tensorflow/core/example/*.proto). So
protobuf's C parser does the work. It has its own descriptor pool, so that it does not collide with
TensorFlow's declaration.
"""

from __future__ import annotations

from functools import cache

_BYTES, _FLOAT, _INT64, _MESSAGE = 12, 2, 3, 11  # google.protobuf.FieldDescriptorProto.Type
_OPTIONAL, _REPEATED = 1, 3


@cache
def _message():
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="asjax/example.proto", package="asjax", syntax="proto3"
    )

    def field(message, name, number, kind, label=_OPTIONAL, of=None, oneof=None):
        added = message.field.add(name=name, number=number, type=kind, label=label)
        if of:
            added.type_name = f".asjax.{of}"
        if oneof is not None:
            added.oneof_index = oneof

    for name, kind in (("BytesList", _BYTES), ("FloatList", _FLOAT), ("Int64List", _INT64)):
        field(file.message_type.add(name=name), "value", 1, kind, _REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("BytesList", "FloatList", "Int64List"), start=1):
        field(feature, name.removesuffix("List").lower(), number, _MESSAGE, of=name, oneof=0)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    field(entry, "key", 1, 9)
    field(entry, "value", 2, _MESSAGE, of="Feature")
    field(features, "feature", 1, _MESSAGE, _REPEATED, of="Features.FeatureEntry")
    field(file.message_type.add(name="Example"), "features", 1, _MESSAGE, of="Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("asjax.Example"))


def encode(fields: dict) -> bytes:
    """`{name: bytes | str | int | list of str}` -> serialized Example; same fields, same bytes."""
    message = _message()()
    for name, value in fields.items():
        feature = message.features.feature[name]
        if isinstance(value, int):
            feature.int64.value.append(value)
            continue
        feature.bytes.SetInParent()  # TFDS needs the list, even if it is empty
        values = [value] if isinstance(value, (bytes, str)) else value
        feature.bytes.value.extend(v.encode() if isinstance(v, str) else v for v in values)
    return message.SerializeToString(deterministic=True)


def decode(record: bytes, only=None) -> dict:
    """Serialized Example -> `{name: sequence of bytes, int or float}`.

    Args:
      only: names of the wanted fields. Other fields are skipped without parsing, which saves the
        time for a field of many numbers.

    Raises:
      ValueError: the record is not an Example.
    """
    from google.protobuf.message import DecodeError

    try:
        if only is not None:
            record = _reduced(record, only)
        message = _message().FromString(record)
    except (DecodeError, IndexError) as error:
        raise ValueError(f"not a tf.train.Example: {error}") from None
    fields = {}
    for name, feature in message.features.feature.items():
        kind = feature.WhichOneof("kind")
        fields[name] = getattr(feature, kind).value if kind else []
    return fields


def _reduced(record: bytes, only) -> bytes:
    """The same Example with only the entries whose names are in `only`.

    In the bytes of an Example, field 1 contains one field 1 per entry. An entry begins with its
    name, which is again a field 1. Each field has a tag byte (0x0A), a length and its content. If a
    writer used another order, the record is returned unchanged.
    """
    wanted = {name.encode() for name in only}
    start, end = _field(record, 0, len(record))
    if end != len(record):
        return record
    entries, at = [], start
    while at < end:
        inner, stop = _field(record, at, end)
        name, name_end = _field(record, inner, stop)
        if min(inner, name) < 0:
            return record
        if record[name:name_end] in wanted:
            entries.append(record[at:stop])
        at = stop
    body = b"".join(entries)
    return b"\x0a" + _varint(len(body)) + body


def _field(record: bytes, at: int, end: int) -> tuple[int, int]:
    """Begin and end of the content of the field 1 at `at`; (-1, -1) if there is no such field."""
    if at >= end or record[at] != 0x0A:
        return -1, -1
    length = shift = 0
    while True:
        at += 1
        length |= (record[at] & 0x7F) << shift
        shift += 7
        if record[at] < 0x80:
            break
    start = at + 1
    return (start, start + length) if start + length <= end else (-1, -1)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])

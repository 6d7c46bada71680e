"""Collectives of a compiled program, read from its text: kinds, numbers, bytes, turns of loops."""

from __future__ import annotations

import re

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4}
_BYTES |= {"s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8, "c64": 8}
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(
    r"(?:to_apply|calls|body|condition|branch_computations)=\{?((?:%?[\w.\-]+,? ?)+)"
)


def collectives(text: str) -> dict:
    """kind -> {"count": operations in a run of the program, "bytes": that one device receives}.

    An operation in a loop counts as often as the loop turns. A loop whose turns the text does not
    say counts once, and then the kind has "unknown_loops": True.
    """
    bodies, entry = _computations(text)
    found: dict = {}

    def visit(name: str, times: int, known: bool):
        for line in bodies.get(name, ()):
            kind = next((k for k in KINDS if re.search(rf"[\s)]{k}(-start)?\(", line)), None)
            if kind:
                row = found.setdefault(kind, {"count": 0, "bytes": 0})
                row["count"] += times
                row["bytes"] += times * _result_bytes(line, kind)
                if not known:
                    row["unknown_loops"] = True
            turns, sure = _turns(line) if " while(" in line else (1, True)
            for called in _called(line):
                visit(called, times * turns, known and sure)

    if entry:
        visit(entry, 1, True)
    return found


def _computations(text: str):
    """({name: lines}, name of the entry)."""
    bodies, entry, name = {}, None, None
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            name = head[2]
            bodies[name] = []
            entry = name if head[1] else entry
        elif name:
            bodies[name].append(line)
    return bodies, entry


def _called(line: str):
    if " fusion(" in line or "reduce" in line.split("(")[0]:
        return []  # neither holds a collective but an all-reduce, which applies a sum
    names = [m[1] for m in _CALLED.finditer(line)]
    return [
        name.strip().lstrip("%") for group in names for name in group.split(",") if name.strip()
    ]


def _turns(line: str) -> tuple[int, bool]:
    found = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
    return (int(found[1]), True) if found else (1, False)


def _result_bytes(line: str, kind: str) -> int:
    """Bytes of the result; of an asynchronous start, of what it will give."""
    result = line.split("=", 1)[1].split(f"{kind}", 1)[0]
    sizes = [_size(t, dims) for t, dims in re.findall(r"(\w+)\[([\d,]*)\]", result)]
    if f"{kind}-start(" in line and result.strip().startswith("("):
        # (operands, results, ...): results are as many as operands
        return max(sizes) if kind != "all-reduce" else sum(sizes)
    return sum(sizes)


def _size(kind: str, dims: str) -> int:
    size = _BYTES.get(kind, 0)
    for n in dims.split(","):
        size *= int(n) if n else 1
    return size

"""Collectives of a compiled program, read from its text: kinds, numbers, bytes, turns of loops."""

from __future__ import annotations

import re

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4}
_BYTES |= {"s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8, "c64": 8}
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_NAME = r"%?([\w.\-]+)"
_CALLED = re.compile(rf"\b(?:calls|body|to_apply|branch_computations)=(?:\{{([^}}]*)\}}|{_NAME})")
_KIND = re.compile(rf"[\s)]({'|'.join(KINDS)})(-start)?\(")


def collectives(text: str) -> dict:
    """kind -> {"count": operations in a run of the program, "bytes": of their results on a device}.

    An operation in a loop counts as often as the loop turns. A loop whose turns the text does not
    say counts once, and then the kind has "unknown_loops": True. XLA for TPUs cuts a collective
    into pieces that it fuses with computation. The pieces have one channel and count once.
    """
    bodies, entry = _computations(text)
    found: dict = {}
    channels: set = set()

    def visit(name: str, times: int, known: bool, fused: bool):
        for line in bodies.get(name, ()):
            op = _KIND.search(line)
            channel = re.search(r"channel_id=(\d+)", line) if op else None
            if op and not (fused and channel and channel[1] in channels):
                if channel:
                    channels.add(channel[1])
                row = found.setdefault(op[1], {"count": 0, "bytes": 0})
                row["count"] += times
                row["bytes"] += times * _result_bytes(line[: op.start() + 1], op[1], bool(op[2]))
                if not known:
                    row["unknown_loops"] = True
            turns = _turns(line, bodies, name) if " while(" in line else 1
            if " async-done(" in line or " async-update(" in line:
                continue  # the start has called the same computation
            for called in _called(line):
                inside = fused or " fusion(" in line
                visit(called, times * (turns or 1), known and turns is not None, inside)

    if entry:
        visit(entry, 1, True, False)
    return found


def in_loops(text: str) -> list[str]:
    """The lines of collectives in the bodies of loops and in what these call."""
    bodies, _ = _computations(text)
    todo = [n for lines in bodies.values() for x in lines if " while(" in x for n in _called(x)]
    inside = set()
    while todo:
        name = todo.pop()
        if name not in inside:
            inside.add(name)
            todo += [n for line in bodies.get(name, ()) for n in _called(line)]
    return [x.strip() for n in sorted(inside) for x in bodies.get(n, ()) if _KIND.search(x)]


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


def _called(line: str) -> list[str]:
    several = [group or name for group, name in _CALLED.findall(line)]
    return [name.strip().lstrip("%") for names in several for name in names.split(",") if name]


def _turns(line: str, bodies: dict, where: str) -> int | None:
    """How often a loop turns: what XLA notes, else the bound of a counter; None is unknown.

    `jax.lax.scan` and `fori_loop` count up by one to a constant.
    """
    noted = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
    if noted:
        return int(noted[1])
    condition = bodies.get(re.search(rf"\bcondition={_NAME}", line)[1], ())
    defined = _defined(condition)
    test = next((x for x in condition if x.lstrip().startswith("ROOT")), "")
    compared = re.search(rf" compare\({_NAME}, {_NAME}\), direction=LT", test)
    if not compared:
        return None
    index = re.search(r" get-tuple-element\(.*\), index=(\d+)", defined.get(compared[1], ""))
    bound = _constant(compared[2], defined)
    outside = _defined(bodies[where])
    start = re.search(rf" while\({_NAME}\)", line)
    carried = re.search(r" tuple\(([^)]*)\)", outside.get(start[1], "")) if start else None
    if not index or bound is None or not carried:
        return None
    first = re.sub(r"/\*.*?\*/", "", carried[1]).split(",")[int(index[1])].strip().lstrip("%")
    first = _constant(first, outside)
    return None if first is None else max(0, bound - first)


def _defined(lines) -> dict[str, str]:
    """Name of a value -> its line."""
    found = (re.match(rf"\s*(?:ROOT )?{_NAME} = ", line) for line in lines)
    return {m[1]: line for m, line in zip(found, lines, strict=True) if m}


def _constant(name: str, defined: dict) -> int | None:
    """The whole number that a name stands for, through copies."""
    for _ in range(8):
        line = defined.get(name, "")
        number = re.search(r" constant\((-?\d+)\)", line)
        if number:
            return int(number[1])
        copy = re.search(rf" (?:copy|copy-start|copy-done|bitcast)\({_NAME}\)", line)
        if not copy:
            return None
        name = copy[1]
    return None


def _result_bytes(text: str, kind: str, start: bool) -> int:
    """Bytes of the result that `text` describes; of an asynchronous start, of what it will give."""
    shapes = re.findall(r"(\w+)\[([\d,]*)\]", text.split("=", 1)[1])
    sizes = [_size(*shape) for shape in shapes if not (start and shape == ("u32", ""))]
    if start and kind != "all-reduce":  # (operands, results, contexts)
        sizes = sizes[len(sizes) // 2 :]
    return sum(sizes)


def _size(kind: str, dims: str) -> int:
    size = _BYTES.get(kind, 0)
    for n in dims.split(","):
        size *= int(n) if n else 1
    return size

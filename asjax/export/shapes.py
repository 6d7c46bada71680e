"""ONNX nodes of operations that move elements: reshape, slice, pad, join, gather."""

from __future__ import annotations

import numpy as np

from asjax.export.elementwise import ONNX_TYPES, apply
from asjax.export.graph import Graph, Value, constant, kept, same


def _order(value: Value) -> tuple[int, ...]:
    return value.perm or tuple(range(value.rank))


def _as_stored(graph: Graph, value: Value) -> tuple[str, tuple[int, ...]]:
    """(tensor, its order of axes)."""
    order = _order(value)
    return graph.ordered(value, order), order


# -------------------------------------------------------------------------------------- no new data


def _transpose(step) -> Value:
    (x,), p = step.inputs, step.params["permutation"]
    shape = tuple(x.shape[a] for a in p)
    if x.constant:
        return constant(x.array.transpose(p))
    perm = tuple(p.index(a) for a in _order(x))
    return Value(shape, x.dtype, x.name, None if perm == tuple(range(x.rank)) else perm)


def _broadcast(step) -> Value:
    (x,), at = step.inputs, tuple(step.params["broadcast_dimensions"])
    rank = len(step.outs[0].shape)
    shape = [1] * rank
    for axis, dim in zip(at, x.shape, strict=True):
        shape[axis] = dim
    if x.constant:
        return constant(x.array.reshape(shape))  # the sizes of a constant are numbers
    if rank == x.rank:
        return Value(tuple(shape), x.dtype, x.name, x.perm)
    return _widened(step.graph, x, at, tuple(shape))


def _widened(graph: Graph, x: Value, at: tuple[int, ...], shape: tuple) -> Value:
    """x with its axes at the places `at` of a larger rank."""
    new = [a for a in range(len(shape)) if a not in at]
    order = [at[a] for a in _order(x)]  # of the tensor, in the new numbers
    if sorted(order) == order:  # the new axes go where they belong
        name = graph.node("Unsqueeze", x.name, graph.tensor(np.array(new, np.int64)))
        return Value(shape, x.dtype, name)
    axes = np.arange(len(order), len(shape))
    name = graph.node("Unsqueeze", x.name, graph.tensor(axes.astype(np.int64)))
    return Value(shape, x.dtype, name, (*order, *new))


def drop(graph: Graph, x: Value, axes) -> Value:
    """x without axes of size 1."""
    shape = tuple(d for a, d in enumerate(x.shape) if a not in axes)
    if x.constant:
        return constant(x.array.reshape(shape))
    if not axes:
        return x
    name, order = _as_stored(graph, x)
    places = np.array(sorted(order.index(a) for a in axes), np.int64)
    name = graph.node("Squeeze", name, graph.tensor(places))
    return Value(shape, x.dtype, name, kept(order, axes))


def _squeeze(step) -> Value:
    (x,) = step.inputs
    return drop(step.graph, x, tuple(a % x.rank for a in step.params["dimensions"]))


def _reshape(step) -> Value:
    """Axes of size 1 that come or go are Unsqueeze and Squeeze, in any layout."""
    (x,), graph = step.inputs, step.graph
    before, after = step.avals[0].shape, step.outs[0].shape
    if x.constant:
        return _reshaped_constant(step, x, before, after)
    old = [a for a, d in enumerate(before) if not same(d, 1)]
    new = [a for a, d in enumerate(after) if not same(d, 1)]
    if len(old) == len(new) and all(same(before[a], after[b]) for a, b in zip(old, new)):  # noqa: B905
        lost = tuple(a for a, d in enumerate(before) if same(d, 1))
        x = drop(graph, x, lost)
        shape = [1] * len(after)
        for a, dim in zip(new, x.shape, strict=True):
            shape[a] = dim
        return x if len(new) == len(after) else _widened(graph, x, tuple(new), tuple(shape))
    name = graph.reshape(graph.plain(x, before), before, after)
    return Value(tuple(after), x.dtype, name)


def _reshaped_constant(step, x: Value, before, after) -> Value:
    if x.array.size == 1:
        return constant(x.array.reshape([1] * len(after)))
    name = step.graph.reshape(step.graph.plain(x, before), before, after)
    return Value(tuple(after), x.dtype, name)


# ------------------------------------------------------------------------------------------- parts


def cut(graph: Graph, x: Value, axes, starts, ends, strides=None) -> Value:
    """x[start:end:stride] along some axes. Starts and ends: sizes, or tensors int64 [1]."""
    name, order = _as_stored(graph, x)
    places = graph.tensor(np.array([order.index(a) for a in axes], np.int64))
    begin, end = _vector(graph, starts), _vector(graph, ends)
    steps = graph.tensor(np.array(strides or [1] * len(axes), np.int64))
    return Value(x.shape, x.dtype, graph.node("Slice", name, begin, end, places, steps), x.perm)


def _vector(graph: Graph, parts) -> str:
    """int64 [n] of numbers, symbolic dimensions and tensors [1] ("name",)."""
    if not any(isinstance(p, tuple) for p in parts):
        return graph.sizes(parts)
    names = [p[0] if isinstance(p, tuple) else graph.sizes([p]) for p in parts]
    return names[0] if len(names) == 1 else graph.node("Concat", *names, axis=0)


def _slice(step) -> Value:
    (x,), p = step.inputs, step.params
    starts, ends = p["start_indices"], p["limit_indices"]
    strides = p["strides"] or (1,) * x.rank
    before, after = step.avals[0].shape, step.outs[0].shape
    axes = [
        a for a in range(x.rank)
        if not (same(starts[a], 0) and same(ends[a], before[a]) and strides[a] == 1)
    ]  # fmt: skip
    x = step.graph.full(x, before, axes)
    if not axes:
        return x
    pick = lambda values: [values[a] for a in axes]  # noqa: E731
    made = cut(step.graph, x, axes, pick(starts), pick(ends), pick(strides))
    shape = tuple(after[a] if a in axes else x.shape[a] for a in range(x.rank))
    return Value(shape, x.dtype, made.name, made.perm)


def _started(graph: Graph, x: Value, axes, starts: list[Value], sizes) -> Value:
    """x[start : start + size] along axes, with starts that are values."""
    begin, end = [], []
    for value, size in zip(starts, sizes, strict=True):
        if value.constant:
            start = int(value.array.reshape(-1)[0])
            begin.append(start)
            end.append(start + size)
            continue
        one = graph.tensor(np.array([1], np.int64))
        name = graph.node("Reshape", graph.node("Cast", value.name, to=7), one)
        begin.append((name,))
        end.append((graph.node("Add", name, graph.sizes([size])),))
    made = cut(graph, x, axes, begin, end)
    shape = list(x.shape)
    for axis, size in zip(axes, sizes, strict=True):
        shape[axis] = size
    return Value(tuple(shape), x.dtype, made.name, made.perm)


def _dynamic_slice(step) -> Value:
    x, *starts = step.inputs
    before, sizes = step.avals[0].shape, step.params["slice_sizes"]
    axes = [a for a in range(x.rank) if not same(sizes[a], before[a])]
    x = step.graph.full(x, before, axes)
    if not axes:
        return x
    return _started(step.graph, x, axes, [starts[a] for a in axes], [sizes[a] for a in axes])


def _gather(step) -> Value:
    """Two forms: one block of the array, and whole rows along one axis."""
    graph, (x, index), p = step.graph, step.inputs, step.params
    numbers, sizes = p["dimension_numbers"], p["slice_sizes"]
    before, where = step.avals[0].shape, step.avals[1].shape
    depth = where[-1]
    gone = tuple(numbers.collapsed_slice_dims)
    starts = tuple(numbers.start_index_map)
    if numbers.operand_batching_dims or not isinstance(depth, int):
        step.refuse("this kind of indexing")
    if all(same(d, 1) for d in where[:-1]) and len(where) == 1:
        parts = [_entry(graph, index, k, depth) for k in range(depth)]
        x = graph.full(x, before, starts)
        x = _started(graph, x, starts, parts, [sizes[a] for a in starts])
        return drop(graph, x, gone)
    whole = all(same(sizes[a], before[a]) for a in range(x.rank) if a not in gone)
    if sorted(gone) != sorted(starts) or not whole:
        step.refuse("this kind of indexing")
    if depth != 1:
        return _gather_nd(step, x, index, starts)
    (axis,) = gone
    x = graph.full(x, before)
    rows = graph.plain(index, where)
    rows = graph.reshape(rows, where, where[:-1])
    name = graph.node("Gather", graph.ordered(x), rows, axis=axis)
    rank = len(step.outs[0].shape)
    offsets = tuple(numbers.offset_dims)
    batch = tuple(a for a in range(rank) if a not in offsets)
    perm = (*offsets[:axis], *batch, *offsets[axis:])
    perm = None if perm == tuple(range(rank)) else perm
    return Value(tuple(step.outs[0].shape), x.dtype, name, perm)


def _gather_nd(step, x: Value, index: Value, starts) -> Value:
    """Single entries along the axes `starts`, with the other axes whole."""
    graph, before, where = step.graph, step.avals[0].shape, step.avals[1].shape
    x = graph.full(x, before)
    others = tuple(a for a in range(x.rank) if a not in starts)
    rows = graph.node("Cast", graph.plain(index, where), to=ONNX_TYPES["int64"])
    name = graph.node("GatherND", graph.ordered(x, (*starts, *others)), rows)
    shape = tuple(step.outs[0].shape)
    offsets = tuple(step.params["dimension_numbers"].offset_dims)
    order = (*(a for a in range(len(shape)) if a not in offsets), *offsets)
    return Value(shape, x.dtype, name, None if order == tuple(range(len(shape))) else order)


def _entry(graph: Graph, index: Value, k: int, depth: int) -> Value:
    if index.constant:
        return constant(np.broadcast_to(index.array, (depth,))[k])
    if depth == 1:
        return index
    name = graph.node("Gather", graph.plain(index, (depth,)), graph.tensor(np.array([k])), axis=0)
    return Value((1,), index.dtype, name)


def _split(step) -> list[Value]:
    (x,), axis = step.inputs, step.params["axis"]
    sizes = step.params["sizes"]
    graph = step.graph
    x = graph.full(x, step.avals[0].shape, (axis,))
    name, order = _as_stored(graph, x)
    names = graph.node(
        "Split", name, graph.sizes(sizes), outputs=len(sizes), axis=order.index(axis)
    )
    names = [names] if len(sizes) == 1 else names
    shapes = [x.shape[:axis] + (size,) + x.shape[axis + 1 :] for size in sizes]
    return [Value(s, x.dtype, n, x.perm) for s, n in zip(shapes, names, strict=True)]


def _reverse(step) -> Value:
    (x,), axes = step.inputs, tuple(step.params["dimensions"])
    x = step.graph.full(x, step.avals[0].shape, axes)
    last = np.iinfo(np.int64).min
    return cut(step.graph, x, axes, [-1] * len(axes), [last] * len(axes), [-1] * len(axes))


# ------------------------------------------------------------------------------------------ joining


def joined(graph: Graph, parts: list[Value], shapes, axis: int, out) -> Value:
    """Concatenation in the layout of the first part that is no constant."""
    first = next((p for p in parts if not p.constant), parts[0])
    order = _order(first)
    whole = [graph.full(p, s) for p, s in zip(parts, shapes, strict=True)]
    names = [graph.ordered(p, order) for p in whole]
    name = names[0] if len(names) == 1 else graph.node("Concat", *names, axis=order.index(axis))
    perm = None if order == tuple(range(len(order))) else order
    return Value(tuple(out.shape), np.dtype(out.dtype), name, perm)


def _concatenate(step) -> Value:
    shapes = [a.shape for a in step.avals]
    return joined(step.graph, step.inputs, shapes, step.params["dimension"], step.outs[0])


def stacked(graph: Graph, parts: list[Value], out, axis: int) -> Value:
    """Parts of one shape along a new axis."""
    shape = list(out.shape)
    shape[axis] = 1
    at = tuple(a for a in range(len(shape)) if a != axis)
    wide = []
    for part in parts:
        part = graph.full(part, [out.shape[a] for a in at])
        if part.constant:
            wide.append(constant(part.array.reshape(shape)))
        else:
            wide.append(_widened(graph, part, at, tuple(shape)))
    return joined(graph, wide, [shape] * len(wide), axis, out)


def _stack(step) -> Value:
    return stacked(step.graph, step.inputs, step.outs[0], step.params.get("axis", 0))


def _pad(step) -> Value:
    graph, (x, fill) = step.graph, step.inputs
    config = step.params["padding_config"]
    if not fill.constant or any(not same(inner, 0) for *_, inner in config):
        step.refuse("padding inside, or with values of the program")
    before = step.avals[0].shape
    axes = [a for a, (low, high, _) in enumerate(config) if not (same(low, 0) and same(high, 0))]
    x = graph.full(x, before, axes)
    after = step.outs[0].shape
    shape = tuple(after[a] if a in axes else x.shape[a] for a in range(x.rank))
    name, order = _as_stored(graph, x)
    if any(isinstance(n, int) and n < 0 for a in axes for n in config[a][:2]):
        lows = [max(0, -config[a][0]) for a in axes]
        ends = [min(-1, config[a][1]) if config[a][1] < 0 else 2**62 for a in axes]
        x = cut(graph, x, axes, lows, ends)
        name = x.name
        config = [(max(0, low), max(0, high), 0) for low, high, _ in config]
    if any(not same(n, 0) for a in axes for n in config[a][:2]):
        pads = [config[a][0] for a in order] + [config[a][1] for a in order]
        value = graph.tensor(np.asarray(fill.array.reshape(()), x.dtype))
        name = graph.node("Pad", name, graph.sizes(pads), value)
    return Value(shape, x.dtype, name, None if order == tuple(range(x.rank)) else order)


def _iota(step) -> Value:
    aval, axis = step.outs[0], step.params["dimension"]
    graph, size = step.graph, aval.shape[step.params["dimension"]]
    dtype = np.dtype(aval.dtype)
    shape = [1] * len(aval.shape)
    shape[axis] = size
    if isinstance(size, int):
        return constant(np.arange(size, dtype=dtype).reshape(shape))
    end = graph.root.node("Squeeze", graph.size(size))
    number = lambda n: graph.tensor(np.int64(n))  # noqa: E731
    name = graph.node("Range", number(0), end, number(1))
    row = apply(graph, "Cast", [Value((size,), np.int64, name)], dtype, to=ONNX_TYPES[dtype.name])
    return row if len(shape) == 1 else _widened(graph, row, (axis,), tuple(shape))


def _dimension(step) -> Value:
    graph, dtype = step.graph, np.dtype(step.outs[0].dtype)
    name = graph.root.node("Squeeze", graph.size(step.params["dim"]))
    return Value((), dtype, graph.root.node("Cast", name, to=ONNX_TYPES[dtype.name]))


CONVERTERS = {
    "transpose": _transpose, "broadcast_in_dim": _broadcast, "squeeze": _squeeze,
    "reshape": _reshape, "slice": _slice, "dynamic_slice": _dynamic_slice, "gather": _gather,
    "split": _split, "rev": _reverse, "concatenate": _concatenate, "stack": _stack, "pad": _pad,
    "iota": _iota, "dim_as_value": _dimension,
}  # fmt: skip

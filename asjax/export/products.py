"""ONNX nodes of products, convolutions, reductions and pools."""

from __future__ import annotations

from functools import partial
from math import prod

import numpy as np

from asjax.export.elementwise import apply, multiply
from asjax.export.graph import Graph, Value, constant, kept, same
from asjax.export.shapes import _order


def _dot(step) -> Value:
    """A matrix product with any axes: MatMul, or a 1 x 1 convolution where that saves a layout."""
    graph, (a, b) = step.graph, step.inputs
    (ca, cb), (ba, bb) = step.params["dimension_numbers"]
    shape_a, shape_b = (aval.shape for aval in step.avals)
    fa = [i for i in range(a.rank) if i not in (*ca, *ba)]
    fb = [i for i in range(b.rank) if i not in (*cb, *bb)]
    out = step.outs[0]
    dtype = np.dtype(out.dtype)
    if not ba and a.constant and not b.constant:  # so that the constant is on the right
        made = _product(graph, (b, shape_b, [], fb, cb), (a, shape_a, [], fa, ca), dtype)
        n = len(fa)  # the result has the axes of b first
        order = tuple([*range(n, n + len(fb)), *range(n)])
        perm = tuple(order[i] for i in made.perm or range(made.rank))
        perm = None if perm == tuple(range(made.rank)) else perm
        return Value(tuple(out.shape), dtype, made.name, perm)
    return _product(graph, (a, shape_a, ba, fa, ca), (b, shape_b, bb, fb, cb), dtype)


def _product(graph: Graph, left, right, dtype) -> Value:
    """The product of (value, shape, batch, free, contracted axes), all axes in this order."""
    (a, sa, ba, fa, ca), (b, sb, bb, fb, cb) = left, right
    a, b = graph.full(a, sa, (*ba, *ca)), graph.full(b, sb, (*bb, *cb, *fb))
    a = graph.full(a, sa, fa) if len(fa) > 1 or a.constant else a
    pick = lambda shape, axes: tuple(shape[i] for i in axes)  # noqa: E731
    rows = pick(sa, fa) if len(fa) != 1 else pick(a.shape, fa)
    result = (*pick(sa, ba), *rows, *pick(sb, fb))
    inner = pick(sa, ca)
    if not ba and len(fb) == 1 and b.constant:
        kernel = b.array.transpose(*cb, *fb).reshape(-1, b.shape[fb[0]])
        at = _order(a)
        if len(ca) == 1 and a.rank in (3, 4) and at[1] == ca[0] and at[0] == fa[0]:
            # [B, C, ...] in memory: a convolution keeps it so
            tensor = graph.tensor(kernel.T.reshape(*kernel.T.shape, *[1] * (a.rank - 2)).copy())
            name = graph.node("Conv", a.name, tensor, kernel_shape=[1] * (a.rank - 2))
            last = a.rank - 1
            places = {axis: i for i, axis in enumerate(fa)}
            perm = tuple(last if axis == ca[0] else places[axis] for axis in at)
            return Value(result, dtype, name, perm)
        name = graph.ordered(a, (*fa, *ca))
        if len(ca) > 1 or not fa:
            flat = (*pick(a.shape, fa), prod(inner)) if fa else (1, prod(inner))
            name = graph.reshape(name, (*pick(a.shape, fa), *inner), flat)
        name = graph.node("MatMul", name, graph.tensor(kernel))
        if not fa:
            name = graph.reshape(name, (1, *result), result)
        return Value(result, dtype, name)
    rows, columns = _merged(pick(sa, fa)), _merged(pick(sb, fb))
    whole_a, whole_b = (
        (*pick(sa, ba), *pick(sa, fa), *inner),
        (*pick(sb, bb), *inner, *pick(sb, fb)),
    )
    a, b = graph.full(a, sa), graph.full(b, sb)
    size = _merged(inner)
    x = graph.reshape(graph.ordered(a, (*ba, *fa, *ca)), whole_a, (*pick(sa, ba), rows, size))
    y = graph.reshape(graph.ordered(b, (*bb, *cb, *fb)), whole_b, (*pick(sb, bb), size, columns))
    name = graph.node("MatMul", x, y)
    result = (*pick(sa, ba), *pick(sa, fa), *pick(sb, fb))
    return Value(result, dtype, graph.reshape(name, (*pick(sa, ba), rows, columns), result))


def _merged(sizes):
    total = 1
    for size in sizes:
        total = total * size
    return total


def _convolution(step) -> Value:
    graph, (x, kernel), p = step.graph, step.inputs, step.params
    spec = p["dimension_numbers"]
    if p["batch_group_count"] != 1 or any(d != 1 for d in p["lhs_dilation"]):
        step.refuse("a convolution with a dilated input or groups of clips")
    x, kernel = graph.full(x, step.avals[0].shape), graph.full(kernel, step.avals[1].shape)
    name = graph.ordered(x, spec.lhs_spec)
    weights = graph.ordered(kernel, spec.rhs_spec)
    pads = p["padding"]
    if not all(isinstance(n, int) for pair in pads for n in pair) or min(map(min, pads)) < 0:
        ends = [0, 0, *(low for low, _ in pads), 0, 0, *(high for _, high in pads)]
        name = graph.node("Pad", name, graph.sizes(ends))
        pads = [(0, 0)] * len(pads)
    size = [step.avals[1].shape[a] for a in spec.rhs_spec[2:]]
    name = graph.node(
        "Conv", name, weights, kernel_shape=size, strides=list(p["window_strides"]),
        pads=[low for low, _ in pads] + [high for _, high in pads],
        dilations=list(p["rhs_dilation"]), group=p["feature_group_count"],
    )  # fmt: skip
    out = step.outs[0]
    perm = tuple(spec.out_spec)
    perm = None if perm == tuple(range(len(perm))) else perm
    return Value(tuple(out.shape), np.dtype(out.dtype), name, perm)


# -------------------------------------------------------------------------------------- reductions


def _reduce(op: str, step) -> Value:
    graph, (x,) = step.graph, step.inputs
    axes = tuple(step.params["axes"])
    x = graph.full(x, step.avals[0].shape, axes)
    as_bool = x.dtype == np.bool_
    if as_bool:
        x = apply(graph, "Cast", [x], np.int32, to=6)
    order = _order(x)
    places = graph.tensor(np.array(sorted(order.index(a) for a in axes), np.int64))
    more = {}
    sizes = [x.shape[a] for a in axes]
    if op == "ReduceSum" and all(isinstance(n, int) for n in sizes):
        more["asjax_count"] = prod(sizes)  # a division by it makes the mean; never written
    name = graph.node(op, graph.ordered(x, order), places, keepdims=0, **more)
    shape = tuple(d for a, d in enumerate(x.shape) if a not in axes)
    made = Value(shape, x.dtype, name, kept(order, axes))
    return apply(graph, "Cast", [made], np.bool_, to=9) if as_bool else made


def _argmax(op: str, step) -> Value:
    graph, (x,) = step.graph, step.inputs
    (axis,) = step.params["axes"]
    x = graph.full(x, step.avals[0].shape)
    name = graph.node(op, graph.ordered(x), axis=axis, keepdims=0)
    dtype = np.dtype(step.outs[0].dtype)
    shape = tuple(d for a, d in enumerate(x.shape) if a != axis)
    return apply(graph, "Cast", [Value(shape, np.int64, name)], dtype, to=6)


def _cumulative(step) -> Value:
    graph, (x,) = step.graph, step.inputs
    axis = step.params["axis"]
    x = graph.full(x, step.avals[0].shape, (axis,))
    order = _order(x)
    place = graph.tensor(np.int64(order.index(axis)))
    back = int(step.params["reverse"])
    name = graph.node("CumSum", graph.ordered(x, order), place, reverse=back)
    return Value(x.shape, x.dtype, name, x.perm)


def _pool(op: str, step) -> Value:
    graph, p = step.graph, step.params
    x = step.inputs[0]
    window, strides, pads = p["window_dimensions"], p["window_strides"], p["padding"]
    if any(d != 1 for d in (*p["base_dilation"], *p["window_dilation"])):
        step.refuse("a pool with holes")
    fixed = [
        a for a in range(x.rank)
        if window[a] == 1 and strides[a] == 1 and tuple(pads[a]) == (0, 0)
    ]  # fmt: skip
    if len(fixed) < 2:
        step.refuse("a pool over all axes")
    batch, channel = fixed[0], fixed[-1]
    spatial = [a for a in range(x.rank) if a not in (batch, channel)]
    x = graph.full(x, step.avals[0].shape)
    order = (batch, channel, *spatial)
    attributes = dict(
        kernel_shape=[window[a] for a in spatial],
        strides=[strides[a] for a in spatial],
        pads=[pads[a][0] for a in spatial] + [pads[a][1] for a in spatial],
    )
    if op == "AveragePool":
        attributes["count_include_pad"] = 1
    name = graph.node(op, graph.ordered(x, order), **attributes)
    perm = None if order == tuple(range(x.rank)) else order
    out = step.outs[0]
    made = Value(tuple(out.shape), np.dtype(out.dtype), name, perm)
    if op == "AveragePool":
        return multiply(graph, made, constant(np.asarray(prod(window), made.dtype)), made.dtype)
    return made


# ----------------------------------------------------------------------------------------- one node


def _softmax(step) -> Value:
    (x,) = step.inputs
    shape = step.avals[0].shape
    name = step.graph.node("Softmax", step.graph.plain(x, shape), axis=-1)
    return Value(tuple(shape), x.dtype, name)


def _layer_norm(step) -> Value | None:
    x, scale, bias = step.inputs
    if not (scale.constant and bias.constant):
        return None
    shape = step.avals[0].shape
    vectors = [
        step.graph.tensor(np.broadcast_to(v.array.reshape(-1), shape[-1:]).astype(np.float32))
        for v in (scale, bias)
    ]
    epsilon = _epsilon(step.params["jaxpr"].jaxpr)
    name = step.graph.plain(x, shape)
    name = step.graph.node("LayerNormalization", name, *vectors, axis=-1, epsilon=epsilon)
    return Value(tuple(shape), x.dtype, name)


def _epsilon(jaxpr) -> float:
    """The number that is added before the square root."""
    at = next(i for i, e in enumerate(jaxpr.eqns) if e.primitive.name == "rsqrt")
    added = next(e for e in jaxpr.eqns[:at] if jaxpr.eqns[at].invars[0] in e.outvars)
    return float(next(v.val for v in added.invars if hasattr(v, "val")))


NAMED = {"graph_softmax": _softmax, "graph_layer_norm": _layer_norm}
CONVERTERS = {
    "dot_general": _dot, "conv_general_dilated": _convolution,
    "reduce_sum": partial(_reduce, "ReduceSum"), "reduce_max": partial(_reduce, "ReduceMax"),
    "reduce_min": partial(_reduce, "ReduceMin"), "reduce_prod": partial(_reduce, "ReduceProd"),
    "reduce_and": partial(_reduce, "ReduceMin"), "reduce_or": partial(_reduce, "ReduceMax"),
    "argmax": partial(_argmax, "ArgMax"), "argmin": partial(_argmax, "ArgMin"),
    "cumsum": _cumulative, "reduce_window_max": partial(_pool, "MaxPool"),
    "reduce_window_sum": partial(_pool, "AveragePool"),
}  # fmt: skip
__all__ = ["CONVERTERS", "NAMED", "same"]

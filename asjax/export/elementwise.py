"""ONNX nodes of operations element by element."""

from __future__ import annotations

from functools import partial

import numpy as np

from asjax.export.graph import Graph, Value, constant, same

ONNX_TYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "uint32": 12,
}  # fmt: skip


def apply(graph: Graph, op: str, values: list[Value], dtype, **attributes) -> Value:
    """A node over values that broadcast; the result keeps the layout of the first one that is no
    constant."""
    rank = max(v.rank for v in values)
    first = next((v for v in values if not v.constant and v.rank == rank), None)
    order = (first.perm if first is not None else None) or tuple(range(rank))
    names = [graph.ordered(v, order if v.rank == rank else None) for v in values]
    shape = [1] * rank
    for v in values:
        for axis, dim in enumerate(v.shape if v.rank == rank else ()):
            if not (isinstance(dim, int) and dim == 1):
                shape[axis] = dim
    name = graph.node(op, *names, **attributes)
    perm = None if order == tuple(range(rank)) else order
    return Value(tuple(shape), np.dtype(dtype), name, perm)


def _same(op: str, step, **attributes) -> Value:
    return apply(step.graph, op, step.inputs, step.outs[0].dtype, **attributes)


def _single(value: Value) -> float | None:
    """The number of a constant of one element."""
    return value.array.reshape(-1)[0] if value.constant and value.array.size == 1 else None


# ----------------------------------------------------------------------- sums and products, folded


def add(graph: Graph, a: Value, b: Value, dtype) -> Value:
    """a + b. A constant is joined with an earlier one, or with the bias of a convolution."""
    a, b = (b, a) if a.constant else (a, b)
    if b.constant and np.issubdtype(dtype, np.floating):
        node = graph.maker(a.name)
        if node and node.op == "Add" and a.rank == b.rank:
            before = _constant_input(graph, node, a)
            if before is not None and fits(before[1], a.shape):
                other, number = before
                joined = constant(np.asarray(number + b.array, dtype))
                if fits(joined.array, other.shape):
                    return add(graph, other, joined, dtype)
        if node and node.op == "Conv" and _along(a, b, a.perm[1] if a.perm else 1):
            return _convolved(graph, a, node, shift=b.array.reshape(-1))
    return apply(graph, "Add", [a, b], dtype)


def multiply(graph: Graph, a: Value, b: Value, dtype) -> Value:
    """a * b. A constant factor goes into the weights of the product before it."""
    a, b = (b, a) if a.constant else (a, b)
    if b.constant and np.issubdtype(dtype, np.floating):
        node = graph.maker(a.name)
        one = _single(b)
        if one == 1 and fits(np.ones([1] * a.rank), a.shape) and b.rank in (0, a.rank):
            return a
        if node and node.op == "Mul" and one is not None:
            before = _constant_input(graph, node, a)
            if before is not None:
                return multiply(graph, before[0], constant(before[1] * b.array), dtype)
        if node and node.op == "Conv" and _along(a, b, a.perm[1] if a.perm else 1):
            return _convolved(graph, a, node, factor=b.array.reshape(-1))
        if node and node.op == "MatMul" and a.perm is None and _along(a, b, a.rank - 1):
            kernel = graph.array_of(node.inputs[1])
            if kernel is not None and kernel.ndim == 2:
                name = graph.node(
                    "MatMul", node.inputs[0], graph.tensor(kernel * b.array.reshape(-1))
                )
                return Value(a.shape, a.dtype, name)
        if node and node.op == "Add" and a.rank == b.rank:
            before = _constant_input(graph, node, a)
            inner = graph.maker(before[0].name) if before else None
            if inner and inner.op in ("Conv", "MatMul") and fits(b.array, before[0].shape):
                scaled = multiply(graph, before[0], b, dtype)
                if graph.maker(scaled.name).op == inner.op:
                    return add(graph, scaled, constant(before[1] * b.array), dtype)
    return apply(graph, "Mul", [a, b], dtype)


def fits(array: np.ndarray, shape) -> bool:
    """Whether an array does not widen a value of this shape."""
    return array.ndim == len(shape) and all(
        n == 1 or same(n, d) for n, d in zip(array.shape, shape, strict=True)
    )


def _constant_input(graph: Graph, node, out: Value):
    """(the other input, the constant in the program's order) of a node with one constant."""
    arrays = [graph.array_of(name) for name in node.inputs]
    if (arrays[0] is None) == (arrays[1] is None):
        return None
    k = 0 if arrays[0] is not None else 1
    array = arrays[k]
    if array.ndim not in (0, out.rank):
        return None
    if array.ndim and out.perm:
        array = array.transpose(np.argsort(out.perm))
    if array.ndim and not fits(array, out.shape):
        return None
    shape = out.shape
    return Value(shape, out.dtype, node.inputs[1 - k], out.perm), array


def _along(value: Value, other: Value, axis: int) -> bool:
    """Whether a constant has one number, or differs only along `axis` of the value."""
    shape = other.array.shape
    if other.array.size == 1:
        return True
    good = other.rank == value.rank and all(n == 1 for i, n in enumerate(shape) if i != axis)
    return good and same(shape[axis], value.shape[axis])


def _convolved(graph, value: Value, node, factor=None, shift=None) -> Value:
    """The same convolution with its kernel and bias times `factor`, or its bias plus `shift`."""
    kernel = graph.array_of(node.inputs[1])
    if kernel is None:
        op, other = ("Mul", factor) if shift is None else ("Add", shift)
        shape = [1] * value.rank
        shape[value.perm[1] if value.perm else 1] = other.size
        return apply(graph, op, [value, constant(other.reshape(shape))], value.dtype)
    width = len(kernel)
    bias = graph.array_of(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(width, kernel.dtype)
    if factor is not None:
        column = np.broadcast_to(factor, width).astype(kernel.dtype)
        kernel = kernel * column.reshape(-1, *[1] * (kernel.ndim - 1))
        bias = bias * column
    if shift is not None:
        bias = (bias + shift).astype(kernel.dtype)
        name = node.inputs[1]
    else:
        name = graph.tensor(kernel)
    more = [graph.tensor(bias)] if len(node.inputs) > 2 or shift is not None else []
    made = graph.node("Conv", node.inputs[0], name, *more, **node.attributes)
    return Value(value.shape, value.dtype, made, value.perm)


def _sub(step) -> Value:
    a, b = step.inputs
    dtype = step.outs[0].dtype
    if b.constant and np.issubdtype(dtype, np.floating):
        return add(step.graph, a, constant(-b.array), dtype)
    return apply(step.graph, "Sub", [a, b], dtype)


def _div(step) -> Value:
    a, b = step.inputs
    dtype = step.outs[0].dtype
    if not np.issubdtype(dtype, np.floating):
        return apply(step.graph, "Div", [a, b], dtype)  # both round to zero
    if not b.constant:
        return apply(step.graph, "Div", [a, b], dtype)
    node = step.graph.maker(a.name)
    if node and node.op == "ReduceSum" and _single(b) == node.attributes.get("asjax_count"):
        attributes = {k: v for k, v in node.attributes.items() if k != "asjax_count"}
        name = step.graph.node("ReduceMean", *node.inputs, **attributes)
        return Value(a.shape, a.dtype, name, a.perm)
    return multiply(step.graph, a, constant((1 / b.array.astype(np.float64)).astype(dtype)), dtype)


# ------------------------------------------------------------------------------------ single ones


def _max(step) -> Value:
    a, b = step.inputs
    a, b = (b, a) if a.constant else (a, b)
    if b.constant and _single(b) == 0 and np.issubdtype(step.outs[0].dtype, np.floating):
        return apply(step.graph, "Relu", [a], a.dtype)
    return _same("Max", step)


def _chain(*ops: str):
    def convert(step) -> Value:
        (value,) = step.inputs
        for op in ops:
            value = apply(step.graph, op, [value], value.dtype)
        return value

    return convert


def _square(step) -> Value:
    (x,) = step.inputs
    return apply(step.graph, "Mul", [x, x], x.dtype)


def _not_equal(step) -> Value:
    equal = apply(step.graph, "Equal", step.inputs, np.bool_)
    return apply(step.graph, "Not", [equal], np.bool_)


def _integer_pow(step) -> Value:
    (x,) = step.inputs
    power = step.params["y"]
    result = x
    for _ in range(abs(power) - 1):
        result = apply(step.graph, "Mul", [result, x], x.dtype)
    if power < 0:
        result = apply(step.graph, "Reciprocal", [result], x.dtype)
    return result if power else step.refuse("power 0")


def _one_more(op_after: str, sign: int):
    """log1p and expm1, which ONNX does not have: exact near 0 by log(1 + x) x / ((1 + x) - 1)."""

    def convert(step) -> Value:
        graph, (x,) = step.graph, step.inputs
        one = constant(np.ones((), x.dtype))
        if op_after == "Log":
            # Kahan's correction keeps the digits of a small x.
            u = apply(graph, "Add", [x, one], x.dtype)
            d = apply(graph, "Sub", [u, one], x.dtype)
            zero = apply(graph, "Equal", [d, constant(np.zeros((), x.dtype))], np.bool_)
            inf = apply(graph, "IsInf", [u], np.bool_)
            safe = apply(graph, "Where", [zero, one, d], x.dtype)
            log = apply(graph, "Log", [u], x.dtype)
            exact = apply(graph, "Div", [apply(graph, "Mul", [log, x], x.dtype), safe], x.dtype)
            exact = apply(graph, "Where", [zero, x, exact], x.dtype)
            return apply(graph, "Where", [inf, log, exact], x.dtype)
        # expm1(x) = 2 sinh(x / 2) exp(x / 2)
        half = apply(graph, "Mul", [x, constant(np.full((), 0.5, x.dtype))], x.dtype)
        e, s = apply(graph, "Exp", [half], x.dtype), apply(graph, "Sinh", [half], x.dtype)
        twice = apply(graph, "Mul", [s, constant(np.full((), 2, x.dtype))], x.dtype)
        return apply(graph, "Mul", [twice, e], x.dtype)

    return convert


def _erfc(step) -> Value:
    (x,) = step.inputs
    erf = apply(step.graph, "Erf", [x], x.dtype)
    return apply(step.graph, "Sub", [constant(np.ones((), x.dtype)), erf], x.dtype)


def _select(step) -> Value:
    which, *cases = step.inputs
    if len(cases) != 2 or which.dtype != np.bool_:
        step.refuse("only a choice between two")
    return apply(step.graph, "Where", [which, cases[1], cases[0]], step.outs[0].dtype)


def _clamp(step) -> Value:
    low, x, high = step.inputs
    dtype = step.outs[0].dtype
    raised = apply(step.graph, "Max", [x, low], dtype)
    return apply(step.graph, "Min", [raised, high], dtype)


def _convert(step) -> Value:
    (x,) = step.inputs
    dtype = np.dtype(step.outs[0].dtype)
    if dtype == x.dtype:
        return x
    if dtype.name not in ONNX_TYPES:
        step.refuse(f"dtype {dtype.name}")
    return apply(step.graph, "Cast", [x], dtype, to=ONNX_TYPES[dtype.name])


def _is_finite(step) -> Value:
    (x,) = step.inputs
    bad = [apply(step.graph, op, [x], np.bool_) for op in ("IsInf", "IsNaN")]
    return apply(step.graph, "Not", [apply(step.graph, "Or", bad, np.bool_)], np.bool_)


def _gelu(step) -> Value:
    """In the order of operations that onnxruntime joins to one."""
    graph, (x,) = step.graph, step.inputs
    number = lambda value: constant(np.full((), value, x.dtype))  # noqa: E731
    y = apply(graph, "Div", [x, number(2**0.5)], x.dtype)
    y = apply(graph, "Add", [apply(graph, "Erf", [y], x.dtype), number(1)], x.dtype)
    y = apply(graph, "Mul", [x, y], x.dtype)
    return apply(graph, "Mul", [y, number(0.5)], x.dtype)


def _named(op: str, **attributes):
    def convert(step) -> Value | None:
        if len(step.inputs) != 1:
            return None
        return apply(step.graph, op, step.inputs, step.inputs[0].dtype, **attributes)

    return convert


NAMED = {  # functions that are one node
    "graph_gelu": _gelu,
    "hard_swish": _named("HardSwish"),
    "hard_sigmoid": _named("HardSigmoid", alpha=1 / 6, beta=0.5),
}
CONVERTERS = {
    "add": lambda s: add(s.graph, *s.inputs, s.outs[0].dtype),
    "add_any": lambda s: add(s.graph, *s.inputs, s.outs[0].dtype),
    "mul": lambda s: multiply(s.graph, *s.inputs, s.outs[0].dtype),
    "sub": _sub, "div": _div, "max": _max, "square": _square, "integer_pow": _integer_pow,
    "log1p": _one_more("Log", 1), "expm1": _one_more("Exp", -1), "erfc": _erfc, "ne": _not_equal,
    "select_n": _select, "clamp": _clamp, "convert_element_type": _convert,
    "is_finite": _is_finite, "rsqrt": _chain("Sqrt", "Reciprocal"),
    "stop_gradient": lambda s: s.inputs[0], "copy": lambda s: s.inputs[0],
    "copy_p": lambda s: s.inputs[0], "reduce_precision": lambda s: s.inputs[0],
    "optimization_barrier": lambda s: list(s.inputs),
    "rem": lambda s: _same("Mod", s, fmod=1), "round": _chain("Round"),
    **{
        name: partial(_same, op)
        for name, op in {
            "min": "Min", "neg": "Neg", "exp": "Exp", "log": "Log", "tanh": "Tanh", "erf": "Erf",
            "logistic": "Sigmoid", "sqrt": "Sqrt", "abs": "Abs", "sign": "Sign", "floor": "Floor",
            "ceil": "Ceil", "sin": "Sin", "cos": "Cos", "pow": "Pow", "lt": "Less",
            "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "eq": "Equal",
            "and": "And", "or": "Or", "not": "Not", "xor": "Xor",
        }.items()
    },
}  # fmt: skip

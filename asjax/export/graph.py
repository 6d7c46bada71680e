"""A graph of ONNX nodes under construction: values, constants, sizes that are known at run time.

A `Value` is an array of the traced program. Its tensor may be stored in another order of axes
(`perm`), and an axis along which it only repeats is stored with size 1. So transpositions and
broadcasts cost nothing until a node needs them written out.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

import numpy as np

OPSET, IR = 18, 9


@dataclass(frozen=True, eq=False)
class Value:
    """An array of the program.

    Attributes:
      shape: its sizes in the order of the program; 1 along an axis where it only repeats. A size is
        a number or a symbolic dimension of jax.
      dtype: numpy dtype.
      name: its tensor, or None for a constant.
      perm: axis i of the tensor is axis perm[i] of the array; None: the same order.
      array: the value of a constant, in the order of the program.
    """

    shape: tuple
    dtype: np.dtype
    name: str | None = None
    perm: tuple[int, ...] | None = None
    array: np.ndarray | None = None

    @property
    def constant(self) -> bool:
        return self.array is not None

    @property
    def rank(self) -> int:
        return len(self.shape)


def constant(array) -> Value:
    array = np.asarray(array)
    return Value(array.shape, array.dtype, array=array)


@dataclass(eq=False)
class Node:
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict


class Graph:
    """Nodes in order. A body of `Scan` is a graph inside another: it sees the outer names."""

    def __init__(self, outer: Graph | None = None):
        self.outer, self.nodes, self._same = outer, [], {}
        self.made: dict[str, Node] = {}
        root = self
        while root.outer:
            root = root.outer
        self.root = root
        if outer is None:
            self.arrays, self._known, self._sizes, self._count = {}, {}, {}, 0
            self.inputs: dict[str, str] = {}  # name of a symbolic dimension -> its tensor [1]

    def fresh(self, what: str) -> str:
        self.root._count += 1
        return f"{what}_{self.root._count}"

    # ---------------------------------------------------------------------------------- nodes

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes):
        """Add a node, unless the same one is there; the name of its output, or a list of names."""
        key = (op, inputs, outputs, repr(sorted(attributes.items())))
        graph = self
        while graph:
            if key in graph._same:
                return graph._same[key]
            graph = graph.outer
        names = tuple(self.fresh(op.lower()) for _ in range(outputs))
        node = Node(op, inputs, names, attributes)
        self.nodes.append(node)
        self.made.update(dict.fromkeys(names, node))
        self._same[key] = names[0] if outputs == 1 else list(names)
        return self._same[key]

    def maker(self, name: str | None) -> Node | None:
        """The node that makes a tensor, or None."""
        graph = self
        while graph:
            if name in graph.made:
                return graph.made[name]
            graph = graph.outer
        return None

    def tensor(self, array) -> str:
        """The name of a stored constant; equal small ones are stored once."""
        array, root = np.asarray(array), self.root
        small = array.size <= 4096
        key = (array.dtype.str, array.shape, array.tobytes()) if small else id(array)
        if key not in root._known:
            name = self.fresh("c")
            # The array is kept, so that its id stays its own.
            root._known[key], root.arrays[name] = name, array
        return root._known[key]

    def array_of(self, name: str) -> np.ndarray | None:
        return self.root.arrays.get(name)

    # ---------------------------------------------------------------------------------- sizes

    def size(self, dim) -> int | str:
        """A number, or the tensor int64 [1] of a symbolic dimension."""
        if isinstance(dim, (int, np.integer)):
            return int(dim)
        root, text = self.root, str(dim)
        if text not in root._sizes:
            root._sizes[text] = root._evaluate(ast.parse(text.replace("^", "**"), mode="eval").body)
        return root._sizes[text]

    def _evaluate(self, tree) -> int | str:
        """A size from the text of a dimension: + - * ** of numbers and names, floordiv, mod, max
        and min."""
        if isinstance(tree, ast.Constant):
            return tree.value
        if isinstance(tree, ast.Name):
            return self.inputs[tree.id]
        if isinstance(tree, ast.UnaryOp):
            value = self._evaluate(tree.operand)
            return -value if isinstance(value, int) else self.node("Neg", value)
        if isinstance(tree, ast.Call):
            op, (a, b) = tree.func.id, map(self._evaluate, tree.args)
            if op == "floordiv":  # Div of ONNX rounds to zero, Mod has the sign of the divisor
                rest = self.node("Mod", self._one(a), self._one(b))
                return self.node("Div", self.node("Sub", self._one(a), rest), self._one(b))
            op = {"mod": "Mod", "max": "Max", "min": "Min"}[op]
            return self.node(op, self._one(a), self._one(b))
        a, b = self._evaluate(tree.left), self._evaluate(tree.right)
        if isinstance(tree.op, ast.Pow):
            result = a
            for _ in range(b - 1):
                result = self.node("Mul", self._one(result), self._one(a))
            return result
        op = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul"}[type(tree.op)]
        if isinstance(a, int) and isinstance(b, int):
            return {"Add": a + b, "Sub": a - b, "Mul": a * b}[op]
        return self.node(op, self._one(a), self._one(b))

    def _one(self, size: int | str) -> str:
        """A size as tensor int64 [1]."""
        return self.tensor(np.array([size], np.int64)) if isinstance(size, int) else size

    def sizes(self, dims) -> str:
        """The tensor int64 [n] of several sizes."""
        dims = [self.size(d) for d in dims]
        if all(isinstance(d, int) for d in dims):
            return self.tensor(np.array(dims, np.int64))
        parts, run = [], []
        for d in dims:
            if isinstance(d, int):
                run.append(d)
                continue
            if run:
                parts.append(self.root.tensor(np.array(run, np.int64)))
            parts, run = [*parts, d], []
        if run:
            parts.append(self.root.tensor(np.array(run, np.int64)))
        return parts[0] if len(parts) == 1 else self.root.node("Concat", *parts, axis=0)

    # --------------------------------------------------------------------------------- layouts

    def ordered(self, value: Value, axes=None) -> str:
        """The tensor of a value with its axes in the order `axes` (default: the program's)."""
        axes = tuple(range(value.rank)) if axes is None else tuple(axes)
        if value.constant:
            return self.tensor(np.ascontiguousarray(value.array.transpose(axes)))
        stored = value.perm or tuple(range(value.rank))
        if stored == axes:
            return value.name
        return self.node("Transpose", value.name, perm=[stored.index(a) for a in axes])

    def full(self, value: Value, shape, axes=None) -> Value:
        """A value with its repetitions written out along `axes` (default: all)."""
        wide = list(value.shape)
        for axis in range(value.rank) if axes is None else axes:
            wide[axis] = shape[axis]
        if all(same(a, b) for a, b in zip(wide, value.shape, strict=True)):
            return value
        fixed = all(isinstance(d, int) for d in wide)
        if value.constant and fixed:
            return constant(np.broadcast_to(value.array, wide))
        order = value.perm or tuple(range(value.rank))
        grown = [1 if same(wide[a], value.shape[a]) else wide[a] for a in order]
        name = self.node("Expand", self.ordered(value, order), self.sizes(grown))
        return Value(tuple(wide), value.dtype, name, value.perm)

    def plain(self, value: Value, shape) -> str:
        """The tensor of a value in the program's order and with the whole shape."""
        return self.ordered(self.full(value, shape))

    def reshape(self, name: str, before, after) -> str:
        """Reshape a tensor of sizes `before` to `after`, with as few computed sizes as possible."""
        if len(before) == len(after) and all(map(same, before, after)):
            return name
        wanted, unknown = [], 0
        for i, dim in enumerate(after):
            if isinstance(dim, int):
                wanted.append(dim)
            elif i < len(before) and same(before[i], dim):
                wanted.append(0)
            else:
                wanted.append(-1 if not unknown else dim)
                unknown += 1
        shape = self.sizes(wanted if unknown < 2 else after)
        return self.node("Reshape", name, shape)


def same(a, b) -> bool:
    """Whether two sizes are the same number or the same expression."""
    return a is b or (a == b if isinstance(a, int) and isinstance(b, int) else str(a) == str(b))


def kept(perm, removed) -> tuple[int, ...] | None:
    """The order of axes after the axes `removed` of the array are gone."""
    if perm is None:
        return None
    left = [a for a in perm if a not in removed]
    rank = {a: i for i, a in enumerate(sorted(left))}
    order = tuple(rank[a] for a in left)
    return None if order == tuple(range(len(order))) else order

"""From a jaxpr to ONNX nodes: calls are inlined, operations on constants are computed at once."""

from __future__ import annotations

import numpy as np

from asjax.config import AsjaxError
from asjax.export.elementwise import CONVERTERS as ELEMENTS
from asjax.export.elementwise import NAMED as NAMED_ELEMENTS
from asjax.export.fold import folded
from asjax.export.graph import Graph, Value, constant
from asjax.export.products import CONVERTERS as PRODUCTS
from asjax.export.products import NAMED as NAMED_PRODUCTS
from asjax.export.shapes import CONVERTERS as SHAPES
from asjax.export.shapes import stacked as stacked_values

CALLS = {  # name of the parameter with the inner program
    "jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr", "checkpoint": "jaxpr",
    "remat2": "jaxpr", "custom_lin": "call_jaxpr",
}  # fmt: skip
LONGEST = 128  # steps of a loop over constants that is written out
CONVERTERS = {**ELEMENTS, **SHAPES, **PRODUCTS}
NAMED = {**NAMED_ELEMENTS, **NAMED_PRODUCTS}


class Step:
    """One equation of the program: its inputs as values, its parameters and the graph."""

    def __init__(self, graph: Graph, eqn, inputs: list[Value]):
        self.graph, self.inputs, self.params = graph, inputs, eqn.params
        self.avals = [v.aval for v in eqn.invars]
        self.outs = [v.aval for v in eqn.outvars]
        self.eqn = eqn

    def refuse(self, why: str = ""):
        raise _unknown(self.eqn, why)


def _unknown(eqn, why: str = "") -> AsjaxError:
    where = str(eqn.source_info.name_stack) or "the model"
    shown = ", ".join(f"{v.aval.str_short()}" for v in eqn.invars[:4])
    return AsjaxError(
        f"ONNX: no form for the operation {eqn.primitive.name!r} on {shown} in {where[:200]}"
        + (f": {why}" if why else "")
        + "; asjax export --stablehlo writes any model"
    )


def walk(graph: Graph, jaxpr, consts, inputs: list[Value]) -> list[Value]:
    """Write the equations of a jaxpr into the graph; the values of its outputs.

    Raises:
      AsjaxError: an operation that is not known. It names the primitive, shape and module.
    """
    env = dict(zip(jaxpr.invars, inputs, strict=True))
    env.update(zip(jaxpr.constvars, map(constant, consts), strict=True))

    def read(atom) -> Value:
        literal = hasattr(atom, "val")  # a number; its dtype is that of its aval
        return constant(np.asarray(atom.val, atom.aval.dtype)) if literal else env[atom]

    for eqn in jaxpr.eqns:
        values = [read(atom) for atom in eqn.invars]
        outs = _write(graph, eqn, values)
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _write(graph: Graph, eqn, values: list[Value]) -> list[Value]:
    name, params = eqn.primitive.name, eqn.params
    if name in CALLS:
        inner = params[CALLS[name]]
        if params.get("name") in NAMED and not all(v.constant for v in values):
            made = NAMED[params["name"]](Step(graph, eqn, values))
            if made is not None:
                return [made]
        return walk(graph, getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), values)
    if name == "scan":
        return _scan(graph, eqn, values)
    fixed = all(isinstance(d, int) for v in eqn.outvars for d in v.aval.shape)
    if fixed and name != "dim_as_value" and all(v.constant for v in values):
        return [constant(x) for x in folded(eqn, [v.array for v in values])]
    if name not in CONVERTERS:
        raise _unknown(eqn)
    made = CONVERTERS[name](Step(graph, eqn, values))
    return made if isinstance(made, list) else [made]


# ------------------------------------------------------------------------------------------ loops


def _scan(graph: Graph, eqn, values) -> list[Value]:
    params, closed = eqn.params, eqn.params["jaxpr"]
    n, m = params["num_consts"], params["num_carry"]
    fixed, carry, rows = values[:n], values[n : n + m], values[n + m :]
    length = params["length"]
    few = isinstance(length, int) and length <= LONGEST
    if few and all(v.constant for v in rows):
        return _unrolled(graph, eqn, fixed, carry, rows)
    outs = [v.aval for v in eqn.outvars]
    ins = [v.aval for v in eqn.invars]
    body = Graph(graph)
    inner, names = list(fixed), []
    for k, var in enumerate(closed.jaxpr.invars[n:]):
        names.append(body.fresh("step"))
        inner.append(Value(var.aval.shape, var.aval.dtype, names[-1]))
        assert k < m + len(rows)
    made = walk(body, closed.jaxpr, closed.consts, inner)
    results = []
    for value, var in zip(made, closed.jaxpr.outvars, strict=True):
        name = body.plain(value, var.aval.shape)
        results.append(body.node("Identity", name, own=len(results)))
        body.nodes[-1].attributes.pop("own")
    back = 1 if params["reverse"] else 0
    types = [(v.aval.dtype, v.aval.shape) for v in closed.jaxpr.invars[n:]]
    ends = [(v.aval.dtype, v.aval.shape) for v in closed.jaxpr.outvars]
    tensors = [graph.plain(v, a.shape) for v, a in zip(values[n:], ins[n:], strict=True)]
    names_out = graph.node(
        "Scan", *tensors, outputs=len(outs) + (len(outs) == 1),
        body=(body, list(zip(names, types, strict=True)), list(zip(results, ends, strict=True))),
        num_scan_inputs=len(rows),
        scan_input_directions=[back] * len(rows),
        scan_output_directions=[back] * (len(outs) - m),
    )  # fmt: skip
    return [
        Value(a.shape, a.dtype, name) for a, name in zip(outs, names_out[: len(outs)], strict=True)
    ]


def _unrolled(graph, eqn, fixed, carry, rows):
    """A loop over constants, such as stacked layers, written out."""
    params, closed = eqn.params, eqn.params["jaxpr"]
    m, stacked = params["num_carry"], []
    order = range(params["length"])
    wide = [v.aval.shape for v in eqn.invars[len(eqn.invars) - len(rows) :]]
    arrays = [np.broadcast_to(v.array, s) for v, s in zip(rows, wide, strict=True)]
    for i in reversed(order) if params["reverse"] else order:
        now = [constant(array[i]) for array in arrays]
        outs = walk(graph, closed.jaxpr, closed.consts, [*fixed, *carry, *now])
        carry, ys = outs[:m], outs[m:]
        stacked.append(ys)
    if params["reverse"]:
        stacked.reverse()
    results = list(carry)
    for k, var in enumerate(eqn.outvars[m:]):
        used = type(var).__name__ != "DropVar"
        parts = [ys[k] for ys in stacked]
        results.append(stacked_values(graph, parts, var.aval, 0) if used else constant(np.zeros(0)))
    return results

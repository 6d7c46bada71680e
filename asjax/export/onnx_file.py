"""`to_onnx`: a model folder as one ONNX file with the log-mel inside, checked against jax.

Opset 18 of the standard domain, without loops (a recurrent layer is `Scan`), `Einsum` and Fourier
operations.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from asjax import __version__
from asjax.config import AsjaxError, unknown
from asjax.export.check import GATED, compare, libraries, onnx_run
from asjax.export.elementwise import ONNX_TYPES
from asjax.export.graph import IR, OPSET, Graph, Node, Value, constant
from asjax.export.program import Program, Traced, load, trace
from asjax.export.walk import walk

WEIGHTS = {"float32": 1e-4, "float16": 1e-3, "int8": 2e-2}  # form -> allowed relative error
LIMIT = 2**31 - 2**20  # bytes of a protobuf message
SMALLEST = 1024  # numbers; smaller arrays are always float32
INSTALL = 'pip install "asjax[onnx]"'


def to_onnx(
    directory, to, *, weights: str = "float32", length: str = "dynamic", overwrite: bool = False
) -> dict:
    """Write `to`, an ONNX file with input wave [b, s] and outputs logits, embedding and, for models
    with scores in time, frame_logits and frame_embedding; then check it against jax.

    Args:
      directory: model folder, or workdir of a finished run.
      weights: how the weights are stored; they are float32 again when they are used.
      length: "dynamic": waves of any length, as far as the model allows; "clip": the model's own.

    Returns:
      A report: opset, bytes, nodes, max_abs, rel_l2, errors (output -> (max abs, relative L2)),
      least, most (samples of a wave; None: no limit), why (the reason of a limit),
      dtype (what the model in the folder computes in; the file computes in float32).

    Raises:
      AsjaxError: no model, `to` exists, an operation without a form in ONNX, the file would be too
        large, or it differs from jax; then there is no file.
    """
    if weights not in WEIGHTS:
        raise unknown("weights", weights, WEIGHTS)
    libraries()
    to = Path(to)
    if to.suffix.lower() != ".onnx":
        raise AsjaxError(f"{to} must end with .onnx, because asjax knows such a file by its ending")
    if to.exists() and not overwrite:
        raise AsjaxError(f"{to} exists; add --overwrite to replace it")
    if not to.absolute().parent.is_dir():
        raise AsjaxError(f"{to.absolute().parent} does not exist; make the folder first")
    made = load(directory)
    traced = trace(made, length)
    proto = build(made, traced, weights)
    from asjax.store import files

    content = proto.SerializeToString()
    try:
        with files.replacing(to.absolute()) as temporary:
            temporary.write_bytes(content)
            errors = compare(onnx_run(temporary), made, traced, WEIGHTS[weights])
    except OSError as error:
        raise AsjaxError(f"{to} could not be written: {files.reason(error)}") from None
    return {
        "opset": OPSET,
        "bytes": len(content),
        "nodes": len(proto.graph.node),
        "max_abs": errors["logits"][0],
        "rel_l2": max(errors[name][1] for name in GATED if name in errors),
        "errors": errors,
        "least": traced.least,
        "most": traced.most,
        "why": traced.why,
        "dtype": made.dtype,
        "outputs": traced.names,
    }


def graph_of(made: Program, traced: Traced) -> tuple[Graph, set[str], list[str]]:
    """(graph, names of the frontend's constants, tensors of the outputs).

    Raises:
      AsjaxError: an operation without a form in ONNX.
    """
    import jax

    graph = Graph()
    b, s = traced.wave.shape
    shape = graph.node("Shape", "wave")
    for k, dim in enumerate((b, s)):
        if not isinstance(dim, int):
            place = graph.tensor(np.array([k], np.int64))
            graph.inputs[str(dim)] = graph.node("Gather", shape, place, axis=0)
    wave = Value((b, s), np.dtype(np.float32), "wave")
    (feats,) = walk(graph, traced.frontend.jaxpr, traced.frontend.consts, [wave])
    frontend = set(graph.arrays)
    weights = [constant(x) for x in jax.tree.leaves(made.variables)]
    outs = walk(graph, traced.model.jaxpr, traced.model.consts, [*weights, feats])
    names = []
    for name, value, dims in zip(traced.names, outs, traced.shapes, strict=True):
        graph.nodes.append(Node("Identity", (graph.plain(value, dims),), (name,), {}))
        names.append(name)
    return graph, frontend, names


def build(made: Program, traced: Traced, weights: str = "float32"):
    """The ONNX ModelProto of a program. AsjaxError: as `graph_of`, or over 2 GB."""
    import onnx
    from onnx import helper

    graph, frontend, names = graph_of(made, traced)
    nodes = used_nodes(graph, names)
    wanted = {name for node in nodes for name in inputs_of(node)}
    arrays = {name: array for name, array in graph.arrays.items() if name in wanted}
    total = sum(array.nbytes for array in arrays.values())
    smaller = {"float32": 1, "float16": 2, "int8": 4}[weights]
    if total / smaller > LIMIT:
        raise AsjaxError(
            f"an ONNX file holds at most 2 GB, and this model has {total / 1e9:.1f} GB of weights; "
            "give --weights int8, or --stablehlo FILE"
        )
    stored, first = _stored(arrays, nodes, frontend, weights)
    inputs = [helper.make_tensor_value_info("wave", 1, [_label(d) for d in traced.wave.shape])]
    outputs = [
        helper.make_tensor_value_info(name, 1, [_label(d) for d in dims])
        for name, dims in zip(traced.names, traced.shapes, strict=True)
    ]
    body = helper.make_graph(
        [*first, *map(_node, nodes)], "asjax", inputs, outputs, initializer=stored
    )
    model = helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="asjax",
        producer_version=__version__,
    )
    helper.set_model_props(model, metadata(made, traced, weights))
    if model.ByteSize() > LIMIT:
        raise AsjaxError("an ONNX file holds at most 2 GB; give --weights int8, or --stablehlo")
    onnx.checker.check_model(model)
    return model


def metadata(made: Program, traced: Traced, weights: str) -> dict[str, str]:
    """All that a program needs to tag with the file alone; values are texts, lists are JSON."""
    labels = made.label_set
    found = {
        "asjax": __version__,
        "model": made.name,
        "sample_rate": str(made.sample_rate),
        "clip_s": repr(float(made.clip_s)),
        "least_samples": str(traced.least),
        "most_samples": str(traced.most or 0),
        "label_set": labels.name,
        "label_hash": labels.hash,
        "labels": json.dumps(list(labels.names), ensure_ascii=False),
        "label_ids": json.dumps(list(labels.ids), ensure_ascii=False),
        "label_mids": json.dumps(labels.mids),
        "activation": made.activation,
        "card": made.record.get("sha256", {}).get("card.json", ""),
        "weights": weights,
        "frames": str(made.frames),  # frame_logits of a window of clip_s
    }
    if made.frames:
        found["frame_s"] = repr(made.samples / made.sample_rate / made.frames)
        found["decoding"] = json.dumps(made.record.get("decoding"))
    return found


# ----------------------------------------------------------------------------------------- writing


def inputs_of(node: Node) -> list[str]:
    """The tensors that a node needs, also those inside its body."""
    names = list(node.inputs)
    if node.op == "Scan":
        body, ins, outs = node.attributes["body"]
        inner = {name for name, _ in ins}
        made = {name for n in body.nodes for name in n.outputs}
        for n in body.nodes:
            names += [name for name in inputs_of(n) if name not in inner | made]
        names += [name for name, _ in outs if name not in inner | made]
    return names


def used_nodes(graph: Graph, outputs: list[str]) -> list[Node]:
    """The nodes that the outputs need, in order."""
    needed, kept = set(outputs), []
    for node in reversed(graph.nodes):
        if needed & set(node.outputs):
            if node.op == "Scan":
                body, _, outs = node.attributes["body"]
                body.nodes = used_nodes(body, [name for name, _ in outs])
            needed.update(inputs_of(node))
            kept.append(node)
    return kept[::-1]


def _label(dim) -> int | str:
    return dim if isinstance(dim, int) else str(dim)


def _node(node: Node):
    from onnx import helper

    attributes = {k: v for k, v in node.attributes.items() if not k.startswith("asjax_")}
    if node.op == "Scan":
        body, ins, outs = attributes["body"]
        infos = [
            [
                helper.make_tensor_value_info(
                    name, ONNX_TYPES[np.dtype(dtype).name], [_label(d) for d in shape]
                )
                for name, (dtype, shape) in pairs
            ]
            for pairs in (ins, outs)
        ]
        attributes["body"] = helper.make_graph(list(map(_node, body.nodes)), "step", *infos)
    return helper.make_node(node.op, list(node.inputs), list(node.outputs), **attributes)


def _stored(arrays, nodes, frontend: set[str], weights: str):
    """(initializers, nodes that make float32 of them again)."""
    from onnx import helper, numpy_helper

    axes = _product_weights(nodes)
    stored, first = [], []
    for name, array in arrays.items():
        small = array.dtype != np.float32 or array.size < SMALLEST or name in frontend
        if weights == "float16" and not small and np.abs(array).max() < 65504:
            stored.append(numpy_helper.from_array(array.astype(np.float16), f"{name}_half"))
            first.append(helper.make_node("Cast", [f"{name}_half"], [name], to=1))
        elif weights == "int8" and not small and name in axes:
            levels, scale = quantised(array, axes[name])
            stored += [
                numpy_helper.from_array(levels, f"{name}_int8"),
                numpy_helper.from_array(scale, f"{name}_scale"),
            ]
            first.append(
                helper.make_node(
                    "DequantizeLinear", [f"{name}_int8", f"{name}_scale"], [name], axis=axes[name]
                )
            )
        else:
            stored.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    return stored, first


def quantised(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """(int8 levels, float32 scale [channels]): -127 to 127 for each channel along `axis`."""
    others = tuple(a for a in range(array.ndim) if a != axis)
    most = np.abs(array).max(axis=others)
    scale = np.where(most > 0, most / 127, 1).astype(np.float32)
    shape = [1] * array.ndim
    shape[axis] = -1
    levels = np.clip(np.rint(array / scale.reshape(shape)), -127, 127)
    return levels.astype(np.int8), scale


def _product_weights(nodes) -> dict[str, int]:
    """Name of each weight of a product -> its axis of output channels."""
    found = {}
    for node in nodes:
        if node.op in ("Conv", "MatMul"):
            found[node.inputs[1]] = 0 if node.op == "Conv" else -1
        elif node.op == "Scan":
            found.update(_product_weights(node.attributes["body"][0].nodes))
    return found

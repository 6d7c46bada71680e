"""From operations of jax to ONNX nodes: each against jax itself, with sizes known and unknown."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from asjax import nn
from asjax.config import AsjaxError
from asjax.export import elementwise, fold, products, shapes  # noqa: F401 (named here)
from asjax.export.graph import IR, OPSET, Graph, Node, Value
from asjax.export.onnx_file import _label, _node, used_nodes
from asjax.export.walk import walk
from asjax.nn import graph, recurrent

ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")


def converted(function, shape):
    """The ONNX model of a function of one float32 array [b, ...]."""
    dims = export.symbolic_shape(
        shape, constraints=["b >= 1"] + (["t >= 8"] if "t" in shape else [])
    )
    with nn.forms("graph"), jax.numpy_rank_promotion("allow"):
        traced, out = jax.make_jaxpr(function, return_shape=True)(
            jax.ShapeDtypeStruct(dims, np.float32)
        )
    g = Graph()
    sizes = g.node("Shape", "x")
    for k, dim in enumerate(dims):
        if not isinstance(dim, int):
            place = g.tensor(np.array([k], np.int64))
            g.inputs[str(dim)] = g.node("Gather", sizes, place, axis=0)
    (made,) = walk(g, traced.jaxpr, traced.consts, [Value(dims, np.dtype(np.float32), "x")])
    g.nodes.append(Node("Identity", (g.plain(made, out.shape),), ("y",), {}))
    helper = onnx.helper
    info = helper.make_tensor_value_info
    kind = elementwise.ONNX_TYPES[np.dtype(out.dtype).name]
    body = helper.make_graph(
        [_node(n) for n in used_nodes(g, ["y"])], "f",
        [info("x", 1, [_label(d) for d in dims])],
        [info("y", kind, [_label(d) for d in out.shape])],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in g.arrays.items()],
    )  # fmt: skip
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(model, full_check=True)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


RNG = np.random.default_rng(0)
W = RNG.standard_normal((6, 5)).astype(np.float32)
K = RNG.standard_normal((3, 3, 4, 7)).astype(np.float32)
DEEP = RNG.standard_normal((3, 3, 1, 4)).astype(np.float32)
C = RNG.uniform(0.5, 2, 6).astype(np.float32)
ROW = np.array([3])
CUBE = RNG.standard_normal((8, 6, 5)).astype(np.float32)
GRU = [RNG.standard_normal(s).astype(np.float32) * 0.3 for s in ((2, 5, 15), (2, 15))]


def conv(x, kernel=K, **more):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (2, 1), "SAME", dimension_numbers=numbers, **more)


def batch_norm(y):
    c = np.resize(C, y.shape[-1])[None, None, None]
    return jax.nn.relu((y - c) * (2 * c) + 0.1 * c)


def blocks(x):
    stacked = np.stack([np.eye(6, dtype=np.float32) * k for k in (1.0, 0.5, 2.0)])
    return lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, jnp.asarray(stacked))[0]


CASES = {
    "add a constant twice": ("b, t, 6", lambda x: (x + C) + 2.0 * C),
    "factor after a product": ("b, t, 6", lambda x: ((x @ W) + W[0]) * W[1]),
    "divisions": ("b, t, 6", lambda x: x / C + 1 / (2 + jnp.square(x))),
    "mean by a sum": ("b, t, 6", lambda x: x.mean(-1) + x.mean((1, 2))[:, None]),
    "mean over time": ("b, t, 6", lambda x: x.mean(1) + x.max(1) - x.min(1)),
    "variance": ("b, t, 6", lambda x: (x - x.mean(1, keepdims=True)) * lax.rsqrt(x.var() + 1e-5)),
    "functions": (
        "b, t, 6",
        lambda x: jnp.log1p(jnp.exp(x)) + jnp.expm1(0.01 * x) + lax.erf(x) * lax.erfc(x),
    ),
    "small log1p": ("b, t, 6", lambda x: 1e6 * jnp.log1p(1e-7 * x)),
    "choices": ("b, t, 6", lambda x: jnp.where(x > 0.1, jnp.clip(x, -1, 1), -jnp.abs(x)) ** 3),
    "convolution": ("b, t, 6, 4", lambda x: batch_norm(conv(x))),
    "depthwise": ("b, t, 6, 4", lambda x: batch_norm(conv(x, DEEP, feature_group_count=4))),
    "1 x 1 after a convolution": ("b, t, 6, 4", lambda x: batch_norm(conv(x) @ K[0, 0].T)),
    "pools": ("b, t, 6, 4", lambda x: nn_pool(x)),
    "transposes": ("b, t, 6", lambda x: (x.swapaxes(1, 2) * C[:, None]).reshape(x.shape[0], -1)),
    "reshapes": ("b, t, 6", lambda x: x.reshape(-1, 2, 3)[:, None].sum((1, 3))),
    "slices": ("b, t, 6", lambda x: x[:, 2:-1:2, ::-1][:, :, 1:5]),
    "first frames": ("b, t, 6", lambda x: jnp.pad(x, ((0, 0), (3, 20), (0, 0)))[:, :16]),
    "reflection": ("b, t", lambda x: jnp.pad(x, ((0, 0), (5, 5)), mode="reflect")),
    "negative padding": ("b, t, 6", lambda x: lax.pad(x, 0.0, ((0, 0, 0), (-2, 3, 0), (1, -1, 0)))),
    "rows by index": ("b, t, 6", lambda x: x[:, :, np.array([4, 0, 4])] * x[:, ROW][..., :1]),
    "entries by index": ("b, 8, 6", lambda x: x.swapaxes(0, 1)[np.array([7, 1, 2]), :, 3]),
    "joining": ("b, t, 6", lambda x: jnp.concatenate([x, jnp.ones_like(x), 2 * x], 1)),
    "stacking": ("b, t, 6", lambda x: jnp.stack([x, x[:, ::-1]]).transpose(1, 2, 3, 0)),
    "broadcast": ("b, t, 6", lambda x: jnp.broadcast_to(x[:, :1], x.shape).sum(1)),
    "positions": ("b, t, 6", lambda x: x * jnp.arange(x.shape[1])[None, :, None]),
    "split": ("b, t, 6", lambda x: jnp.split(x, 3, -1)[2] - jnp.split(x, 3, -1)[0]),
    "sums so far": ("b, t, 6", lambda x: jnp.cumsum(x, 1)),
    "two contracted axes": ("b, t, 6", lambda x: jnp.einsum("btf,bsf->bts", x, x)),
    "constant on the left": ("b, t, 6", lambda x: jnp.einsum("of,btf->bot", W.T, x)),
    "outer product": ("b, 8, 6", lambda x: jnp.einsum("btf,bt->bf", x, x[:, :, 0])),
    "dense of a clip": ("b, 8, 6", lambda x: jnp.einsum("btf,tfo->bo", x, CUBE)),
    "stacked blocks": ("b, t, 6", blocks),
    "softmax": ("b, t, 6", lambda x: graph.graph_softmax(x.swapaxes(1, 2))),
    "gelu": ("b, t, 6", graph.graph_gelu),
    "layer norm": (
        "b, t, 6",
        lambda x: graph.graph_layer_norm(x, C[None, None], -C[None, None], 1e-3),
    ),
    "attention": ("b, t, 4, 6", lambda x: graph.attend(x, 2 * x, x + 1)),
    "hard swish": ("b, t, 6", lambda x: jax.nn.hard_swish(3 * x) + jax.nn.hard_sigmoid(x)),
    "gru": (
        "2, t, b, 15",
        lambda x: recurrent._gru(x.swapaxes(0, 1), *GRU, x.swapaxes(0, 1)[..., :1] > -1),
    ),
}  # fmt: skip


def nn_pool(x):
    pads = ((0, 0), (1, 1), (0, 0), (0, 0))
    largest = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 2, 1), (1, 2, 2, 1), pads)
    total = lax.reduce_window(x, 0.0, lax.add, (1, 2, 3, 1), (1, 2, 1, 1), "VALID")
    return jnp.concatenate([largest.sum(1), total.sum(1)], 1)


@pytest.mark.parametrize("case", CASES)
def test_an_operation_gives_what_jax_gives(case):
    shape, function = CASES[case]
    run = converted(function, shape)
    for b, t in ((1, 8), (3, 13)):
        sizes = [{"b": b, "t": t}.get(word.strip(), 0) or int(word) for word in shape.split(",")]
        x = np.random.default_rng(b).standard_normal(sizes).astype(np.float32)
        with jax.numpy_rank_promotion("allow"):
            expected = np.asarray(function(jnp.asarray(x)))
        (found,) = run.run(None, {"x": x})
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_an_unknown_operation_is_one_line_that_names_it_and_its_module():
    def function(x):
        with jax.named_scope("my_layer"):
            return lax.linalg.cholesky(x)

    with pytest.raises(AsjaxError, match=r"'cholesky' on float32\[b,4,4\] in my_layer") as error:
        converted(function, "b, 4, 4")
    assert "\n" not in str(error.value)


def test_an_unknown_kind_of_indexing_is_refused():
    with pytest.raises(AsjaxError, match="'gather'.*indexing"):
        converted(lambda x: jnp.take_along_axis(x, (x > 0).astype(int), 1), "b, 4, 4")


@pytest.mark.parametrize(
    "text", ["b + t", "t // 3 * 2", "-(-t // 4)", "(t - 11) // 2 + 9", "b * t % 5 + 1"]
)
def test_sizes_are_those_of_python(text):
    def function(x):
        b, t = x.shape
        return jnp.zeros((eval(text, {"b": b, "t": t}),)) + x.sum()

    run = converted(function, "b, t")
    for b, t in ((1, 8), (3, 13), (2, 9)):
        (found,) = run.run(None, {"x": np.zeros((b, t), np.float32)})
        assert len(found) == eval(text, {"b": b, "t": t})

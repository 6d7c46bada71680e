"""The traced form depends on context, the operand's mesh, current mesh and default device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding, PartitionSpec

from asjax import nn, sharding
from asjax.config import AsjaxError
from asjax.nn import layers, ops, placement


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh("data=2")


def mesh_of(platform, kind="some chip", devices=4):
    device = AbstractDevice(device_kind=kind, num_cores=1, platform=platform)
    return AbstractMesh((devices,), ("data",), (AxisType.Auto,), abstract_device=device)


def seen(question, *args):
    """The result of `question(x)` while `x -> x` is traced for these arguments."""
    answers = []
    jax.jit(lambda x: (answers.append(question(x)), x)[1]).lower(*args)
    return answers[0]


def test_the_context_decides_before_everything_else(mesh):
    placed = jax.device_put(jnp.ones((2, 3)), sharding.batch_sharding(mesh))
    assert seen(placement.platform, placed) == "cpu"
    for kind in ("accelerator", "tpu", "gpu", "cpu"):
        with nn.forms(kind):
            assert seen(placement.platform, placed) == kind
            assert seen(placement.on_cpu, placed) == (kind == "cpu")
    assert placement.platform() == "cpu"
    with pytest.raises(AsjaxError, match="did you mean 'cpu'"), nn.forms("cpus"):
        pass


def test_the_operands_mesh_decides_before_the_current_one_and_the_default_device(mesh):
    x = jax.ShapeDtypeStruct((4, 3), jnp.float32)
    rows = NamedSharding(mesh_of("tpu"), PartitionSpec("data"))
    assert jax.typeof(jnp.ones(3)).sharding.mesh.empty
    with jax.sharding.use_abstract_mesh(mesh_of("gpu")):
        assert placement.platform() == "gpu"
        assert placement.platform(np.ones((4, 3))) == "gpu"
    with jax.set_mesh(mesh):
        answers = []
        jax.eval_shape(
            lambda x: answers.append(placement.platform(x)),
            jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows),
        )
    assert answers == ["tpu"]
    for device in (jax.devices()[1], "cpu"):
        with jax.default_device(device):
            assert placement.platform() == "cpu"


def test_a_program_is_traced_again_in_another_form():
    call = jax.jit(lambda x, k: ops.depthwise(x, k, (1, 1), ((1, 1), (1, 1))))
    args = np.ones((2, 5, 4, 3), np.float32), np.ones((3, 3, 1, 3), np.float32)
    assert "stablehlo.convolution" not in call.lower(*args).as_text()
    with nn.forms("accelerator"):
        assert call.lower(*args).as_text().count("stablehlo.convolution") == 1
        there = call(*args)
    assert "stablehlo.convolution" not in call.lower(*args).as_text()
    np.testing.assert_allclose(call(*args), there, rtol=1e-6)


def test_an_export_for_accelerators_holds_their_forms():
    module = layers.DepthwiseConv(7)
    x = jnp.ones((2, 9, 8, 3))
    variables = module.init(jax.random.key(0), x)
    with nn.forms("accelerator"):
        exported = jax.export.export(jax.jit(module.apply), platforms=("cuda", "tpu"))(variables, x)
    assert " stablehlo.convolution(" in exported.mlir_module()


@pytest.mark.parametrize("spec", ["data=2", "data=1,fsdp=2", "data=1"])
def test_rows_are_split_over_the_devices_of_the_mesh(spec):
    mesh = sharding.make_mesh(spec)
    placed = jax.device_put(jnp.ones((6, 3)), sharding.batch_sharding(mesh))
    assert seen(lambda x: placement.splits(6, x), placed) == mesh.size
    assert seen(lambda x: placement.splits(5, x), placed) == 1
    inner = []

    def local(x):
        inner.append(placement.splits(len(x), x))
        return x

    rows = PartitionSpec(mesh.axis_names)
    jax.jit(jax.shard_map(local, mesh=mesh, in_specs=rows, out_specs=rows))(placed)
    assert inner == [1]


def test_where_no_mesh_is_known_rows_may_lie_on_all_devices():
    assert placement.splits(6) == jax.device_count() == 2
    with jax.set_mesh(sharding.make_mesh("data=1")):
        assert placement.splits(6) == 1


def test_a_mesh_of_some_of_the_devices_has_no_collective_in_a_loop():
    """Six rows on three of four devices: one part per device, so the loop has no communication."""
    from asjax.nn.cpu import convolution

    where = mesh_of("cpu", devices=3)
    rows = NamedSharding(where, PartitionSpec("data"))
    x = jax.ShapeDtypeStruct((6, 9, 8, 4), jnp.float32, sharding=rows)
    kernel = jax.ShapeDtypeStruct((3, 3, 4, 4), jnp.float32)
    shapes = []

    def grad(x, kernel):
        return jax.grad(lambda k: (convolution.conv(x, k) ** 2).sum())(kernel)

    jaxpr = jax.make_jaxpr(grad)(x, kernel)
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "scan":
            shapes += [v.aval.shape for v in eqn.outvars]
    assert shapes == [(3, 12, 12)]

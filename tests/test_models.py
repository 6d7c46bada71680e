"""The zoo: found by walking the files, built by name, sizes as the papers print them."""

import argparse
import functools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from asjax import models, zoo
from asjax.config import AsjaxError
from asjax.models import depthwise, kernels, layers

ALL = [(name, v) for name in models.families() for v in models.family(name).VARIANTS]
FIRST = [(name, next(iter(models.family(name).VARIANTS))) for name in models.families()]


def test_the_families_are_the_files_that_offer_variants():
    assert {"cnn", "convnext"} <= set(models.families())
    assert "layers" not in models.families()
    for name in models.families():
        file = models.family(name)
        assert set(file.FRONTENDS) == set(file.VARIANTS)
        assert file.TORCH


def test_importing_asjax_does_not_import_jax_or_the_models():
    code = "import asjax, sys; assert not {'jax','flax','asjax.models'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def _outputs(family, variant, shape):
    """Shapes of the outputs and the variables for features of `shape`, None: the input's own."""
    module = models.build(family, variant=variant, num_classes=7, dtype="bfloat16")
    frames, bins = module.example_shape
    x = jax.ShapeDtypeStruct((2, shape or frames, bins), jnp.float32)
    return jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x), x)


@pytest.mark.parametrize(("family", "variant"), ALL)
def test_every_variant_keeps_the_contract_of_shapes(family, variant):
    out, variables = _outputs(family, variant, 1001)
    assert out["logits"].shape == (2, 7)
    assert out["logits"].dtype == jnp.float32
    assert out["embedding"].ndim == 2
    assert out["frame_embedding"].ndim == 3
    if "frame_logits" in out:
        assert out["frame_logits"].shape[::2] == (2, 7)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize(("family", "variant"), FIRST)
def test_the_length_of_the_input_changes_no_variable(family, variant):
    shapes = [_outputs(family, variant, frames)[1] for frames in (1, None, 257)]
    assert shapes[0] == shapes[1] == shapes[2]


def test_unknown_names_are_errors_that_list_the_known():
    with pytest.raises(AsjaxError, match="did you mean 'convnext'"):
        models.build("convnet", variant="femto")
    with pytest.raises(AsjaxError, match="did you mean 'femto'"):
        models.build("convnext", variant="fempto")
    with pytest.raises(AsjaxError, match="drop_path_rate"):
        models.build("convnext", variant="femto", drop_path=0.1)
    with pytest.raises(AsjaxError, match="must have a variant: one of .*cnn6"):
        models.build("cnn")
    with pytest.raises(AsjaxError, match="float32, bfloat16"):
        models.build("cnn", variant="cnn6", dtype="int8")


def test_a_module_built_from_json_equals_the_one_it_describes():
    fields = models.family("cnn").VARIANTS["mini"]
    from_json = json.loads(json.dumps({**fields, "dtype": "float32"}))
    again = models.build("cnn", variant="mini", **from_json)
    assert again == models.build("cnn", variant="mini")
    assert hash(again) == hash(models.build("cnn", variant="mini"))


@pytest.mark.parametrize("shape", [(2, 64), (2, 0, 64), (2, 9, 64, 1)])
def test_features_of_a_wrong_shape_are_refused_when_traced(shape):
    module = models.build("cnn", variant="mini")
    with pytest.raises(AsjaxError, match="at least one frame"):
        jax.eval_shape(lambda x: module.init(jax.random.key(0), x), jnp.zeros(shape))


def test_features_of_other_bins_say_what_to_do():
    module = models.build("cnn", variant="mini")
    with pytest.raises(AsjaxError, match="must have 64 mel bins, got 128; choose"):
        jax.eval_shape(lambda x: module.init(jax.random.key(0), x), jnp.zeros((1, 99, 128)))


def _models_verb(*words):
    parser = argparse.ArgumentParser()
    zoo.add_arguments(parser)
    return zoo.main(parser.parse_args(list(words)))


def test_the_models_verb_prints_the_variants_of_families(capsys):
    assert _models_verb("cnn", "convnext", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["family"], r["variant"]) for r in rows] == [
        a for a in ALL if a[0] in ("cnn", "convnext")
    ]
    assert _models_verb("cnn") == 0
    assert "4,837,455" in capsys.readouterr().out
    with pytest.raises(AsjaxError, match="did you mean 'passt'"):
        _models_verb("past")


def test_the_models_verb_prints_the_published_checkpoints(capsys):
    assert _models_verb("--published", "passt") == 0
    text = capsys.readouterr().out
    assert "passt" in text
    assert "cnn14" not in text
    assert _models_verb("--published", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    for row in rows:  # every published checkpoint is of a model that is here
        assert row["variant"] in models.family(row["family"]).VARIANTS, row["name"]


# -------------------------------------------------------------------------------------- layers


def _torch_batch_norm(x, gradient, scale, bias, momentum=0.1, eps=1e-5):
    """Naive float64: output, running statistics (unbiased variance) and the input's gradient."""
    x, g = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, x.shape[-1])
    mean, var = x.mean(0), x.var(0)
    hat = (x - mean) / np.sqrt(var + eps)
    gx = (g - g.mean(0) - hat * (g * hat).mean(0)) * scale / np.sqrt(var + eps)
    unbiased = x.var(0, ddof=1)
    return hat * scale + bias, momentum * mean, 1 - momentum + momentum * unbiased, gx


@pytest.mark.parametrize("shape", [(2, 3, 5), (4, 6, 3, 5)])
def test_batch_norm_trains_as_torch_does(shape):
    rng = np.random.default_rng(0)
    x = rng.normal(-40, 3, shape)  # as far from zero as a log-mel in dB
    gradient, scale, bias = rng.normal(size=shape), rng.normal(size=5), rng.normal(size=5)
    expected = _torch_batch_norm(x, gradient, scale, bias)
    module = layers.BatchNorm()
    variables = module.init(jax.random.key(0), jnp.zeros(shape), False)
    np.testing.assert_array_equal(variables["batch_stats"]["var"], np.ones(5))
    params = {"scale": jnp.float32(scale), "bias": jnp.float32(bias)}
    variables = {"params": params, "batch_stats": variables["batch_stats"]}

    def run(x):
        return module.apply(variables, x, True, mutable=["batch_stats"])

    y, pull, state = jax.vjp(run, jnp.float32(x), has_aux=True)
    stats = state["batch_stats"]
    (gx,) = pull(jnp.float32(gradient))
    found = (y.reshape(-1, 5), stats["mean"], stats["var"], gx.reshape(-1, 5))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)


def test_batch_norm_of_a_sharded_batch_uses_the_global_batch():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x = np.random.default_rng(1).normal(size=(4, 3, 5)).astype(np.float32)
    x[2:] += 10
    module = layers.BatchNorm()
    variables = module.init(jax.random.key(0), x, False)
    run = jax.jit(lambda v, x: module.apply(v, x, True, mutable=["batch_stats"]))
    whole, _ = run(variables, x)
    split, _ = run(variables, jax.device_put(x, rows))
    np.testing.assert_allclose(split, whole, atol=1e-6)


def test_patch_conv_equals_a_convolution_with_its_gradients():
    x = np.random.default_rng(2).normal(size=(2, 19, 9, 3)).astype(np.float32)
    module = layers.PatchConv(5, (4, 2))
    variables = module.init(jax.random.key(0), x)

    def ours(v, x):
        return module.apply(v, x)

    def theirs(v, x):
        dims = ("NHWC", "HWIO", "NHWC")
        kernel = v["params"]["kernel"]
        y = jax.lax.conv_general_dilated(x, kernel, (4, 2), "VALID", dimension_numbers=dims)
        return y + v["params"]["bias"].reshape(1, 1, 1, -1)

    with jax.default_matmul_precision("highest"):
        np.testing.assert_allclose(ours(variables, x), theirs(variables, x), atol=1e-6)
        grads = [
            jax.grad(lambda v, x, f=f: (f(v, x) ** 2).sum(), (0, 1))(variables, x)
            for f in (ours, theirs)
        ]
    for a, b in zip(*map(jax.tree.leaves, grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def test_average_pooling_drops_what_does_not_fill_a_window():
    x = np.random.default_rng(3).normal(size=(2, 7, 5, 3)).astype(np.float32)
    naive = np.stack(
        [
            [x[:, 3 * i : 3 * i + 3, 2 * j : 2 * j + 2].mean((1, 2)) for j in range(2)]
            for i in (0, 1)
        ]
    ).transpose(2, 0, 1, 3)
    np.testing.assert_allclose(layers.avg_pool(x, (3, 2)), naive, atol=1e-6)


def test_drop_path_drops_whole_clips_and_keeps_the_expectation():
    x = jnp.ones((4000, 2, 3))
    y = layers.DropPath(0.25).apply({}, x, True, rngs={"dropout": jax.random.key(0)})
    per_clip = np.asarray(y).reshape(4000, -1)
    assert np.all(per_clip == per_clip[:, :1])
    assert set(np.unique(per_clip.round(5))) == {0.0, np.float32(1.33333)}
    assert abs(per_clip[:, 0].mean() - 1) < 0.05
    np.testing.assert_array_equal(layers.DropPath(0.25).apply({}, x, False), x)


def depthwise_form(shape, size, strides, pads):
    form = dict(strides=strides, pads=pads)
    pair = (functools.partial(f, **form) for f in (depthwise.shifts, depthwise.library))
    return (*pair, shape, (size, size, 1, shape[-1]))


FORMS = [
    depthwise_form((2, 9, 8, 3), 7, (1, 1), ((3, 3), (3, 3))),
    depthwise_form((2, 9, 8, 3), 3, (2, 1), ((1, 1), (1, 1))),
    depthwise_form((2, 10, 7, 3), 5, (2, 2), ((1, 2), (2, 2))),  # EfficientNet-B0's padding
    depthwise_form((2, 2, 11, 3), 3, (1, 3), ((1, 1), (0, 1))),
    depthwise_form((2, 1, 1, 3), 5, (2, 2), ((2, 2), (2, 2))),
    (kernels.conv_matmul, kernels.conv, (2, 9, 8, 3), (5, 5, 3, 4)),
    (kernels.conv_matmul, kernels.conv, (3, 70, 8, 2), (3, 3, 2, 4)),  # more than one step
    (kernels.conv_matmul, kernels.conv, (2, 9, 8, 1), (5, 5, 1, 4)),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("ours", "library", "shape", "taps"), FORMS)
def test_cpu_convolutions_equal_the_library_with_their_gradients(ours, library, shape, taps, dtype):
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.normal(size=shape), dtype)
    kernel = jnp.asarray(rng.normal(size=taps), dtype)
    g = jnp.asarray(rng.normal(size=jax.eval_shape(library, x, kernel).shape), dtype)
    with jax.default_matmul_precision("highest"):
        y, pull = jax.vjp(ours, x, kernel)
        found = (y, *pull(g))
        # the oracle runs in float32 on the same (rounded) numbers
        y, pull = jax.vjp(library, x.astype("f4"), kernel.astype("f4"))
        expected = (y, *pull(g.astype("f4")))
    assert {r.dtype for r in found} == {jnp.dtype(dtype)}
    bound = 4e-6 if dtype == "float32" else 8e-3
    for a, b in zip(found, expected, strict=True):
        assert np.abs(a.astype("f4") - b).max() <= bound * np.abs(b).max()


@pytest.mark.parametrize("form", [FORMS[0], FORMS[2], FORMS[-1]])
def test_cpu_convolutions_on_a_sharded_batch_move_no_activations(form):
    """Only the kernel's gradient may cross devices: no gather of the batch in the program."""
    function, _, shape, taps = form
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x = jax.device_put(np.ones(shape, np.float32), rows)
    kernel = np.ones(taps, np.float32)
    loss = jax.jit(jax.grad(lambda k, x: (function(x, k) ** 2).sum(), (0, 1)))
    text = loss.lower(kernel, x).compile().as_text()
    assert "all-reduce" in text
    assert not any(word in text for word in ("all-gather", "all-to-all", "collective-permute"))


def test_depthwise_is_one_convolution_away_from_the_cpu():
    module = layers.DepthwiseConv(7)
    x = jax.ShapeDtypeStruct((2, 9, 8, 3), jnp.float32)
    call = jax.jit(lambda x: module.init_with_output(jax.random.key(0), x)[0])
    texts = {p: call.trace(x).lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "cuda")}
    assert texts["cuda"].count("stablehlo.convolution") == 1
    assert "stablehlo.convolution" not in texts["cpu"]


@pytest.mark.parametrize("width", [5, 6])
def test_gelu_equals_the_normal_distribution_in_value_and_slope(width):
    x = np.random.default_rng(5).normal(0, 3, (2, 3, width))
    x[0, 0, :3] = -9, 0, 9
    value = x * norm.cdf(x)
    slope = norm.cdf(x) + x * norm.pdf(x)
    y, pull = jax.vjp(layers.gelu, jnp.float32(x))
    np.testing.assert_allclose(y, value, rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(pull(jnp.ones_like(y))[0], slope, rtol=2e-5, atol=1e-6)

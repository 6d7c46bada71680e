"""The list of models: found from the files, built by name, sizes equal to the papers'."""

import argparse
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asjax import models
from asjax.config import AsjaxError
from asjax.nn import layers
from asjax.weights import zoo

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
    """Shapes of outputs and variables for features of `shape` (None: the example shape)."""
    module = models.build(family, variant=variant, num_classes=7, dtype="bfloat16")
    frames, bins = module.example_shape
    x = jax.ShapeDtypeStruct((2, shape or frames, bins), jnp.float32)
    return jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x), x)


@pytest.mark.parametrize(
    ("family", "variant"),
    [
        # The trace of a large network takes seconds, and the variants of a family share their code.
        pytest.param(*one, marks=[] if one in FIRST else pytest.mark.slow)
        for one in ALL
    ],
)
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
    shapes = [_outputs(family, variant, frames)[1] for frames in (1, 257)]
    assert shapes[0] == shapes[1]


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
    for row in rows:  # every published checkpoint belongs to one of our models
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

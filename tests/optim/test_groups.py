"""Frozen arrays and factors per block, against factors written by hand and plain gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from asjax import build, frontends, models, step
from asjax.config import AsjaxError
from asjax.optim import groups
from asjax.weights import port

MINI = dict(variant="mini", num_classes=3, n_mels=16, block_dropout=0.3, head_dropout=0.3)


def made(name="cnn", **fields):
    module = models.build(name, **(fields or MINI))
    feats = jnp.zeros((1, *module.example_shape))
    return module, module.init(jax.random.key(0), feats)


def test_factors_of_a_cnn_by_hand():
    module, variables = made()
    ones = jax.tree.map(jnp.ones_like, variables["params"])
    tx = groups.grouped(optax.sgd(1.0), module, layer_decay=0.5)
    updates, _ = tx.update(ones, tx.init(variables["params"]))
    want = dict(bn0=1 / 32, block1=1 / 16, block2=1 / 8, block3=1 / 4, block4=1 / 2, fc1=1, head=1)
    for path, update in flatten_dict(updates).items():
        np.testing.assert_allclose(update, -want[path[0]], err_msg="/".join(path))


def test_factors_of_stacked_blocks_by_hand():
    module, variables = made(
        "ast", variant="tiny224", num_classes=3, depth=3, width=16, heads=2, n_mels=32, frames=64
    )
    ones = jax.tree.map(jnp.ones_like, variables["params"])
    tx = groups.grouped(optax.sgd(1.0), module, layer_decay=0.5)
    flat = flatten_dict(tx.update(ones, tx.init(variables["params"]))[0])
    for path, update in flat.items():
        if path[:2] == ("encoder", "blocks"):
            for block, factor in enumerate((1 / 8, 1 / 4, 1 / 2)):
                np.testing.assert_allclose(update[block], -factor, err_msg="/".join(path))
        else:
            after = path[0] in ("norm", "head_norm", "head")
            np.testing.assert_allclose(update, -1 if after else -1 / 16, err_msg="/".join(path))


SMALL = {  # the variant that is built; any will do
    "convnext": "atto", "resnet": "resnet22", "mobilenet": "mn01", "conformer": "conformer_mini",
}  # fmt: skip


@pytest.mark.parametrize("family", models.families())
def test_blocks_are_in_order_in_every_family(family):
    """Factors do not fall from one block to the next, every array has one, and the head has 1."""
    file = models.family(family)
    module = file.model(SMALL.get(family, next(iter(file.VARIANTS))))
    factors = groups.block_factors(module, 0.5)
    params = flatten_dict(models.abstract(module)["params"])
    assert factors.keys() == params.keys()
    head = {path[1:] for path in models.class_axes(module, {}, 527) if path[0] == "params"}
    for path in head:
        assert factors[path] == 1, path
    numbered = [
        (int("".join(c if c.isdigit() else " " for c in path[0]).split()[-1]), path[0], factor)
        for path, factor in factors.items()
        if path[0].startswith("block")
    ]
    numbered.sort(key=lambda row: row[0])
    assert [f for *_, f in numbered] == sorted(f for *_, f in numbered)
    for path, factor in factors.items():
        if isinstance(factor, list):
            assert factor == sorted(factor)
            assert len(factor) == params[path].shape[0]


DETECTORS = {  # 12 blocks each, and a sequence model
    "atst_frame": dict(width=16, heads=2),
    "beats": dict(width=16, heads=2, patch_width=8, position_groups=2),
    "fpasst": dict(width=16, heads=2),
    "m2d": dict(width=16, heads=2),
    "asit": dict(width=16, heads=2),
}


@pytest.mark.parametrize("family", DETECTORS)
@pytest.mark.parametrize("decay", [0.5, 0.95])
def test_groups_are_pretrained_seds(golden, family, decay):
    """Each array is filled with its factor, and then every torch weight must have its group's."""
    fields = dict(num_classes=3, sequence="gru", sequence_width=2, **DETECTORS[family])
    module = models.build(family, variant=f"{family}_base", **fields)
    factors = groups.block_factors(module, decay, "pretrained_sed")
    shapes = models.abstract(module)
    flat = {}
    for path, leaf in flatten_dict(shapes["params"]).items():
        factor = np.asarray(factors[path], np.float64)
        factor = factor.reshape(factor.shape + (1,) * (leaf.ndim - factor.ndim))
        flat[path] = np.broadcast_to(factor, leaf.shape).astype(np.float32)
    others = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), dict(shapes, params={}))
    found = port.to_torch(family, {**others, "params": unflatten_dict(flat)})
    manifest, _ = golden("sed_optim")
    left = {name for name in found if "relative_attention_bias" not in name}  # tied copies
    for number, names in enumerate(manifest["layer_groups"]["groups"][family]):
        for name in names:
            key = f"model.{name}"
            if key not in found:  # not a parameter with us: fixed normalisation of M2D's features
                assert "norm_stats" in name or "relative_attention_bias" in name, name
                continue
            np.testing.assert_allclose(found[key], decay ** (number + 1), rtol=1e-6, err_msg=name)
            left.discard(key)
    assert left
    for name in left:
        assert name.split(".")[0] in ("strong_head", "weak_head", "seq_model"), name
        np.testing.assert_array_equal(found[name], 1)


def test_the_rule_of_pretrained_sed_for_a_tagger():
    """mini has a norm before its blocks and a layer between them and the head."""
    module, _ = made()
    factors = groups.block_factors(module, 0.5, "pretrained_sed")
    want = dict(bn0=1 / 16, block1=1 / 16, block2=1 / 8, block3=1 / 4, block4=1 / 2, fc1=1 / 2)
    assert {path[0]: factor for path, factor in factors.items()} == {**want, "head": 1}
    beit = groups.block_factors(module, 0.5)
    assert {path[0]: factor for path, factor in beit.items()} == {
        **want, "bn0": 1 / 32, "fc1": 1, "head": 1,
    }  # fmt: skip


def trained(freeze, layer_decay=1.0, steps=2):
    frontend = frontends.build("panns_logmel", sample_rate=8000, n_mels=16, n_fft=256, hop=128)
    module, _ = made()
    tx, _ = build.make("optim", dict(name="adamw", lr=1e-2, weight_decay=0.1), total_steps=9)
    tx = groups.grouped(tx, module, freeze=freeze, layer_decay=layer_decay)
    objective = build.make(
        "objective", dict(name="tagging"), model=groups.still(module, freeze), frontend=frontend,
        augment={},
    )  # fmt: skip
    state = step.init_state(
        jax.random.key(1),
        model=module,
        frontend=frontend,
        tx=tx,
        wave_shape=(4, 8000),
        average=False,
    )
    before = jax.tree.map(np.asarray, {"params": state.params, **state.stats})
    rng = np.random.default_rng(0)
    batch = dict(
        wave=jnp.asarray(rng.normal(size=(4, 8000)), jnp.float32),
        target=jnp.asarray(rng.integers(0, 2, (4, 3)), jnp.float32),
        mask=jnp.ones(4),
    )
    run = jax.jit(step.make_train_step(objective=objective, tx=tx))
    losses = []
    for _ in range(steps):
        state, scalars = run(state, batch)
        losses.append(float(scalars["loss"]))
    after = jax.tree.map(np.asarray, {"params": state.params, **state.stats})
    same = {
        "/".join(path)
        for path, leaf in flatten_dict(before).items()
        if np.array_equal(leaf, flatten_dict(after)[path])
    }
    return module, frontend, before, after, batch, same, losses


def test_freeze_all_keeps_everything_but_the_head_bit_for_bit():
    module, frontend, before, after, batch, same, losses = trained("all")
    head = {"params/head/kernel", "params/head/bias"}
    everything = {"/".join(path) for path in flatten_dict(before)}
    assert same == everything - head
    assert losses[1] < losses[0]
    # The first loss is that of the model in evaluation: stored statistics and no dropout.
    out = module.apply(before, frontend(batch["wave"]), train=False)
    want = optax.sigmoid_binary_cross_entropy(out["logits"], batch["target"]).mean()
    np.testing.assert_allclose(losses[0], want, rtol=1e-5)


def test_freeze_head_keeps_only_the_head():
    *_, same, _ = trained("head")
    assert {"params/head/kernel", "params/head/bias"} == {s for s in same if s.startswith("params")}


def test_freeze_none_is_the_plain_optimiser():
    module, _ = made()
    tx = optax.sgd(1.0)
    assert groups.grouped(tx, module) is tx
    assert groups.still(module, "none") is module
    assert not trained("none")[5]


def test_the_gradient_of_the_head_is_that_of_logistic_regression():
    module, frontend, before, _, batch, *_ = trained("all", steps=1)
    quiet = groups.still(module, "all")
    feats = frontend(batch["wave"])

    def loss(params):
        variables = {**before, "params": params}
        out, stats = quiet.apply(variables, feats, train=True, mutable=["batch_stats"])
        assert stats == {}
        return optax.sigmoid_binary_cross_entropy(out["logits"], batch["target"]).mean()

    grads = flatten_dict(jax.grad(loss)(before["params"]))
    x = np.asarray(module.apply(before, feats, train=False)["embedding"], np.float64)
    head = before["params"]["head"]
    error = 1 / (1 + np.exp(-(x @ head["kernel"] + head["bias"]))) - np.asarray(batch["target"])
    np.testing.assert_allclose(
        grads["head", "kernel"], x.T @ error / error.size, rtol=1e-4, atol=1e-7
    )
    np.testing.assert_allclose(grads["head", "bias"], error.sum(0) / error.size, rtol=1e-4)
    assert all(not g.any() for path, g in grads.items() if path[0] != "head")


def test_wrong_values_are_one_line():
    module, _ = made()
    for options, message in (
        (dict(freeze="backbone"), "optim.freeze 'backbone' does not exist"),
        (dict(layer_decay=0.0), "optim.layer_decay must be above 0"),
        (dict(layer_decay=1.5), "optim.layer_decay must be above 0"),
        (dict(layer_decay=True), "optim.layer_decay must be above 0"),
        (dict(layer_rule="bert"), "optim.layer_rule 'bert' does not exist; did you mean 'beit'"),
    ):
        with pytest.raises(AsjaxError, match=message):
            groups.grouped(optax.sgd(1.0), module, **options)


def test_a_users_model_without_blocks_says_so():
    import flax.linen as nn

    class Flat(nn.Module):
        num_classes: int = 3
        example_shape = (4, 8)

        @nn.compact
        def __call__(self, feats, train=False):
            x = nn.Dense(5)(feats).mean(1)
            return {"logits": nn.Dense(self.num_classes, name="head")(x)}

    tx = groups.grouped(optax.sgd(1.0), Flat(), freeze="all")
    params = Flat().init(jax.random.key(0), jnp.zeros((1, 4, 8)))["params"]
    updates, _ = tx.update(params, tx.init(params))
    flat = flatten_dict(updates)
    assert not flat["Dense_0", "kernel"].any()
    assert flat["head", "kernel"].any()
    assert jax.tree.structure(unflatten_dict(flat)) == jax.tree.structure(params)
    with pytest.raises(AsjaxError, match="Flat has no blocks in a known order"):
        groups.grouped(optax.sgd(1.0), Flat(), layer_decay=0.5)

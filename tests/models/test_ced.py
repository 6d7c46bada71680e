"""CED: sizes, a float64 numpy forward pass, chunks of long clips, other names, training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rule
from reference import vit as naive
from scipy.special import expit, logit

from asjax import models
from asjax.config import AsjaxError
from asjax.models import ced
from asjax.weights import port

SMALL = dict(width=64, heads=2, depth=2, n_mels=32, chunk_frames=100, num_classes=5)


def _weights(module, seed="a"):
    """A state dict under the authors' names."""
    d, (sf, st) = module.width, module.strides
    shapes = {
        "time_pos_embed": (1, d, 1, module.chunk_frames // st),
        "freq_pos_embed": (1, d, module.n_mels // sf, 1),
        "patch_embed.proj.weight": (d, 1, module.patch, module.patch),
        "patch_embed.proj.bias": (d,),
        **naive.shapes(module.depth, d, 4 * d),
        "outputlayer.0.weight": (d,),
        "outputlayer.0.bias": (d,),
        "outputlayer.1.weight": (module.num_classes, d),
        "outputlayer.1.bias": (module.num_classes,),
    }
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"init_bn.1.{leaf}"] = (module.n_mels,)
    if module.pooling == "token":
        shapes |= {"cls_token": (1, 1, d), "token_pos_embed": (1, d)}
    out = naive.fill(shapes, seed)
    out["outputlayer.1.weight"] = out["outputlayer.1.weight"] * np.float32(3)
    out["init_bn.1.running_mean"] = rule.array("mean", (module.n_mels,), salt=seed)
    out["init_bn.1.running_var"] = 1 + rule.array("var", (module.n_mels,), salt=seed) ** 2
    return out


@functools.cache
def _ported(**fields):
    fields = {**SMALL, **fields}
    weights = _weights(models.build("ced", variant="ced_tiny", **fields))
    return *port.from_torch("ced", "ced_tiny", weights, **fields), weights


def _feats(module, frames, clips=2):
    shape = (clips, frames, module.n_mels)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


_apply = jax.jit(lambda module, variables, x: module.apply(variables, x), static_argnums=0)


def _run(module, variables, feats):
    with jax.default_matmul_precision("highest"):
        return {k: np.asarray(v) for k, v in _apply(module, variables, feats).items()}


def _forward(module, w, x):
    """Normalised [T, F] of at most `frames` -> tokens [S, D], their grid, by loops."""
    (sf, st), p = module.strides, module.patch
    kernel = w["patch_embed.proj.weight"].reshape(module.width, -1).T.astype(np.float64)
    tokens, bins = [], range(0, x.shape[1] - p + 1, sf)
    for i, f in enumerate(bins):
        for j, t in enumerate(range(0, len(x) - p + 1, st)):
            token = x[t : t + p, f : f + p].T.reshape(-1) @ kernel + w["patch_embed.proj.bias"]
            token = token + w["time_pos_embed"][0, :, 0, j] + w["freq_pos_embed"][0, :, i, 0]
            tokens.append(token)
    if module.pooling == "token":
        tokens.insert(0, w["cls_token"][0, 0] + w["token_pos_embed"][0].astype(np.float64))
    return naive.encode(np.array(tokens), w, module.depth, module.heads)[-1], len(bins)


def _head(w, x):
    return naive.linear(naive.layer_norm(x, w, "outputlayer.0", 1e-5), w, "outputlayer.1")


def _chunk(module, w, x):
    """(the reference's output, frame embedding) of one chunk."""
    tokens, bins = _forward(module, w, x)
    frames = tokens[module.pooling == "token" :].reshape(bins, -1, module.width).mean(0)
    if module.pooling == "dm":
        return expit(_head(w, frames)).mean(0), frames
    y = _head(w, tokens[0] if module.pooling == "token" else tokens.mean(0))
    return (y if module.pooling == "logit" else expit(y)), frames


@pytest.mark.parametrize(
    ("variant", "count"),
    [
        ("ced_tiny", 5_503_183),
        ("ced_mini", 9_696_655),
        ("ced_small", 21_622_543),
        ("ced_base", 85_711_759),
    ],
)
def test_parameters_are_as_many_as_the_references(variant, count):
    assert models.parameters(models.build("ced", variant=variant)) == count


@pytest.mark.parametrize(
    ("frames", "fields"),
    [
        (40, {}),
        (100, dict(stride=(16, 9), pooling="dm")),
        (250, {}),
        (250, dict(pooling="token")),
        (210, dict(pooling="logit")),
        (210, dict(pooling="dm", chunk_pooling="max")),
    ],
)
def test_the_output_equals_float64_numpy(frames, fields):
    module, variables, w = _ported(**fields)
    pooling = module.pooling
    feats = _feats(module, frames)
    out = _run(module, variables, feats)
    mean, var = (w[f"init_bn.1.running_{k}"].astype(np.float64) for k in ("mean", "var"))
    x = (feats - mean) / np.sqrt(var + 1e-5) * w["init_bn.1.weight"] + w["init_bn.1.bias"]
    for clip in range(2):
        cuts = [x[clip, i : i + 100] for i in range(0, frames, 100)]
        if len(cuts) > 1:
            cuts[-1] = np.pad(cuts[-1], ((0, 100 - len(cuts[-1])), (0, 0)))
        found = [_chunk(module, w, cut) for cut in cuts]
        y = np.stack([y for y, _ in found])
        y = y.max(0) if "chunk_pooling" in fields else y.mean(0)
        want = y if pooling == "logit" else logit(y)
        np.testing.assert_allclose(out["logits"][clip], want, rtol=2e-5, atol=1e-5)
        want = np.concatenate([f for _, f in found])[: out["frame_embedding"].shape[1]]
        np.testing.assert_allclose(out["frame_embedding"][clip], want, rtol=1e-4, atol=2e-5)
    stride = module.strides[1]
    full, rest = divmod(frames, 100)
    count = full * ((100 - 16) // stride + 1) + max(0, (rest - 16) // stride + 1)
    assert out["frame_embedding"].shape == (2, count, 64)
    assert ("frame_logits" in out) == (pooling == "dm")


def test_the_last_chunk_counts_when_it_is_full():
    module, variables, _ = _ported()
    feats = _feats(module, 300)
    parts = [_run(module, variables, feats[:, i : i + 100])["logits"] for i in (0, 100, 200)]
    want = expit(np.float64(parts)).mean(0)
    got = expit(np.float64(_run(module, variables, feats)["logits"]))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    # The authors' code leaves out the last chunk.
    assert np.abs(got - expit(np.float64(parts[:2])).mean(0)).max() > 1e-3


def test_the_mean_of_saturated_probabilities_keeps_its_log_odds():
    both = ced._mean_probability(jnp.array([[[-200.0], [-202.0]], [[200.0], [190.0]]]))
    want = [np.log((np.exp(-200) + np.exp(-202)) / 2), -np.log((np.exp(-200) + np.exp(-190)) / 2)]
    np.testing.assert_allclose(both[:, 0], want, rtol=1e-6)


def test_less_than_a_patch_is_padded_with_the_mean_frame():
    module, variables, w = _ported()
    feats = _feats(module, 20)
    zero = w["init_bn.1.running_mean"] - w["init_bn.1.bias"] / w["init_bn.1.weight"] * np.sqrt(
        w["init_bn.1.running_var"] + 1e-5
    )
    for frames in (1, 15):
        whole = np.concatenate([feats[:, :frames], np.tile(zero, (2, 16 - frames, 1))], 1)
        out, want = (_run(module, variables, x) for x in (feats[:, :frames], whole))
        assert out["frame_embedding"].shape == (2, 1, 64)
        np.testing.assert_allclose(out["logits"], want["logits"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(  # frames that do not fill a patch are dropped
        *(_run(module, variables, feats[:, :n])["logits"] for n in (16, 20))
    )


def test_augment_acts_after_the_norm():
    module, variables, w = _ported()
    feats = _feats(module, 32)
    seen = []

    def keep(x):
        seen.append(np.asarray(x))
        return 0 * x

    out = module.apply(variables, feats, augment=keep)["logits"]
    np.testing.assert_allclose(out[0], out[1], rtol=1e-5)
    scale = w["init_bn.1.weight"] / np.sqrt(w["init_bn.1.running_var"] + 1e-5)
    want = (feats - w["init_bn.1.running_mean"]) * scale + w["init_bn.1.bias"]
    np.testing.assert_allclose(seen[0], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "token"])
def test_weights_come_back_bit_for_bit_and_by_hugging_faces_names(pooling):
    fields = {**SMALL, "pooling": pooling}
    module, variables, weights = _ported(pooling=pooling)
    back = port.to_torch("ced", variables)
    assert back.keys() == weights.keys()
    assert all(np.array_equal(back[k], weights[k]) for k in back)
    other = {
        ("" if k.startswith("outputlayer") else "encoder.") + k.replace("init_bn.1.", "init_bn."): v
        for k, v in weights.items()
    }
    front = {"front_end.0.mel_scale.fb": np.zeros(2), "init_bn.1.num_batches_tracked": np.int64(3)}
    for given in (other, {**weights, **front}, {"model": weights}):
        _, again = port.from_torch("ced", "ced_tiny", given, **fields)
        jax.tree.map(np.testing.assert_array_equal, again, variables)
    found = dict(n_mels=32, chunk_frames=96, **({"pooling": "token"} if pooling == "token" else {}))
    assert ced.torch_fields(other) == found
    assert ced.torch_fields({"time_pos_embed": np.zeros((1, 64, 1, 63))}) == {}


def test_training_moves_the_statistics_as_torch_does_and_draws_dropout():
    module, variables, w = _ported(dropout=0.2, drop_path=0.3)
    feats = _feats(module, 130, clips=4)

    def loss(params, key):
        given = {**variables, "params": params}
        out, new = module.apply(
            given, feats, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
        )
        return ((out["logits"] - 1) ** 2).mean(), new["batch_stats"]

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (a, stats), grads = step(variables["params"], jax.random.key(0))
    (b, _), _ = step(variables["params"], jax.random.key(1))
    assert a != b
    dead = [p for p, g in jax.tree_util.tree_leaves_with_path(grads) if not np.abs(g).max() > 0]
    assert not dead
    want = 0.99 * w["init_bn.1.running_mean"] + 0.01 * feats.mean((0, 1))
    np.testing.assert_allclose(stats["bn0"]["mean"], want, rtol=1e-5, atol=1e-6)


def test_a_new_model_starts_as_the_authors_do():
    module = models.build("ced", variant="ced_tiny", depth=1)
    start = jax.jit(lambda key: module.init(key, jnp.zeros((1, 64, 64))))
    params = start(jax.random.key(0))["params"]
    for path in ("time_pos_embed", "freq_pos_embed"):
        assert np.isclose(params[path].std(), 0.02, rtol=0.15)
    assert np.isclose(params["head"]["kernel"].std(), 0.02, rtol=0.05)
    assert not params["head"]["bias"].any()
    bound = np.abs(params["patches"]["kernel"]).max()
    assert 0.99 / 16 < bound <= 1 / 16


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (dict(pooling="men"), "did you mean 'mean'"),
        (dict(chunk_pooling="sum"), "chunk_pooling"),
        (dict(stride=0), "stride must be a positive integer or a pair"),
        (dict(chunk_frames=15), "at least 16 mel bins and frames"),
        (dict(stride=10), "n_mels // stride = 6 frequency embeddings"),
    ],
)
def test_wrong_fields_are_named_in_one_line(fields, text):
    with pytest.raises(AsjaxError) as caught:
        models.build("ced", variant="ced_tiny", **fields)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_features_are_refused():
    module = models.build("ced", variant="ced_tiny")
    with pytest.raises(AsjaxError, match="must have 64 mel bins, got 128"):
        jax.eval_shape(lambda x: module.init(jax.random.key(0), x), jnp.zeros((1, 64, 128)))

"""PaSST: sizes, lengths, encodings, patchout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import parity_table
import pytest

from asjax import models
from asjax.config import AsjaxError
from asjax.models import passt

SMALL = dict(stride=16, width=32, depth=2, heads=2, num_classes=5)  # a grid of 8 rows


def _small(frames=80, **fields):
    return models.build("passt", "passt_s", **{**SMALL, "frames": frames, **fields})


def _feats(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def _variables(module):
    """Variables without zeros, so that every bias and encoding matters."""
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), jnp.float32)  # noqa: E731
    return jax.tree.map(draw, models.abstract(module))


@functools.cache
def _compiled(module, train=False):
    return jax.jit(lambda v, x, key=None, kept=None: _apply(module, v, x, train, key, kept))


def _apply(module, variables, x, train=False, key=None, kept=None):
    """Outputs; "tokens" are the tokens after the norm."""
    rngs = {} if key is None else {"dropout": key}
    kwargs = dict(train=train, kept=kept, rngs=rngs, capture_intermediates=True)
    out, state = module.apply(variables, x, **kwargs)
    return {**out, "tokens": state["intermediates"]["norm"]["__call__"][0]}


def _choice(module, rows, columns, key):
    return module.apply({}, rows, columns, True, None, method="_choice", rngs={"dropout": key})


# ------------------------------------------------------------------------------------- sizes

HEAD_DIST = 527 * 768 + 527  # counted by the authors, but not used in their forward pass


@pytest.mark.parametrize(
    ("case", "unused"),
    [
        ("passt_s_s10_mel", HEAD_DIST),
        ("passt_s_s12_mel", HEAD_DIST),
        ("passt_s_s16_mel", HEAD_DIST),
        ("passt_small_nodist_mel", 0),
    ],
)
def test_parameters_are_the_authors_less_the_head_they_never_use(case, unused):
    manifest, _ = parity_table.load(case)
    _, variant, fields = parity_table.spec(case)
    count = models.parameters(models.build("passt", variant, **fields))
    assert count == manifest["param_count"] - unused


@pytest.mark.parametrize(
    ("variant", "columns", "depth", "frames"),
    [
        ("passt_s", 99, 12, 1000),
        ("passt_l", 99, 7, 1000),
        ("passt_u", 99, 12, 1000),
        ("passt_s_20s", 200, 12, 2000),
        ("passt_s_30s", 300, 12, 1000),
        ("passt_s_hop100", 320, 12, 3200),
        ("passt_s_hop160", 200, 12, 2000),
    ],
)
def test_variants_have_the_published_grids(variant, columns, depth, frames):
    module = models.build("passt", variant)
    assert module.grid == (12, columns)
    block = 12 * 768**2 + 13 * 768
    base = 86_153_758 - HEAD_DIST
    assert models.parameters(module) == base + (columns - 99) * 768 - (12 - depth) * block
    out = jax.eval_shape(module.apply, models.abstract(module), jnp.zeros((3, frames, 128)))
    assert out["logits"].shape == (3, 527)
    assert out["embedding"].shape == (3, 768)
    assert out["frame_embedding"].shape == (3, min(columns, (frames - 16) // 10 + 1), 768)
    assert set(passt.FRONTENDS) == set(passt.VARIANTS)


@pytest.mark.parametrize("stride", [10, 11, 12, 13, 14, 15, 16, (12, 7), [16, 10]])
def test_strides_give_the_grid_of_floors(stride):
    module = models.build("passt", "passt_s", stride=stride)
    fs, ts = (stride, stride) if isinstance(stride, int) else stride
    shapes = models.abstract(module)["params"]
    assert shapes["freq_encoding"].shape == (1, 128 // fs, 1, 768)
    assert shapes["time_encoding"].shape == (1, 1, 998 // ts, 768)


# ----------------------------------------------------------------------------------- lengths


@pytest.mark.parametrize("frames", [1, 15, 16, 79, 80, 300])
def test_any_length_works_short_padded_with_silence_long_cut(frames):
    module, x = _small(), _feats(2, frames, 128)
    variables = _variables(module)
    out = _compiled(module)(variables, x)
    fixed = jnp.pad(x[:, :80], ((0, 0), (0, max(0, 16 - frames)), (0, 0)), constant_values=-1.40258)
    want = _compiled(module)(variables, fixed)
    for name in out:
        np.testing.assert_allclose(out[name], want[name], atol=2e-5)
    assert out["frame_embedding"].shape == (2, max(1, min(frames, 80) // 16), 32)


def test_a_frame_embedding_is_the_mean_over_frequency_of_its_columns_patches():
    module, x = _small(), _feats(2, 80, 128)
    out = _compiled(module)(_variables(module), x)
    for column in range(5):
        patches = out["tokens"][:, [2 + row * 5 + column for row in range(8)]]
        np.testing.assert_allclose(out["frame_embedding"][:, column], patches.mean(1), atol=1e-6)


def test_augment_sees_the_features_before_everything():
    module, x = _small(), _feats(1, 80, 128)
    variables = _variables(module)
    out = jax.jit(lambda v, x: module.apply(v, x, augment=lambda x: 2 * x))(variables, x)
    want = _compiled(module)(variables, 2 * x)["logits"]
    np.testing.assert_allclose(out["logits"], want, atol=1e-5)


# ---------------------------------------------------------------------------------- patchout


@pytest.mark.parametrize(
    ("fields", "frames", "tokens"),
    [
        (dict(s_patchout_t=40, s_patchout_f=4), 1000, 2 + 59 * 8),
        (dict(s_patchout_t=40, s_patchout_f=4), 1500, 2 + 59 * 8),
        (dict(s_patchout_t=40), 600, 2 + 19 * 12),
        (dict(u_patchout=400), 998, 2 + 99 * 12 - 400),
        (dict(s_patchout_t=9, s_patchout_f=1, u_patchout=5, distilled=False), 998, 986),
    ],
)
def test_patchout_shrinks_the_attention_under_jit(fields, frames, tokens):
    module = models.build("passt", "passt_s", **fields)

    def run(variables, x, key):
        kwargs = dict(train=True, rngs={"dropout": key}, capture_intermediates=True)
        return module.apply(variables, x, **kwargs)

    args = models.abstract(module), jnp.zeros((2, frames, 128)), jax.random.key(0)
    out, state = jax.eval_shape(jax.jit(run), *args)
    qkv = state["intermediates"]["encoder"]["blocks"]["attn"]["qkv"]["__call__"][0]
    assert qkv.shape == (12, 2, tokens, 3 * 768)
    assert out["logits"].shape == (2, 527)


def test_draws_keep_a_sorted_part_of_the_grid_each_place_as_often():
    module = _small(160, s_patchout_t=3, s_patchout_f=2, u_patchout=4)  # 8 rows, 10 columns
    draw = jax.jit(jax.vmap(lambda key: _choice(module, 8, 7, key)))
    drawn = {k: np.asarray(v) for k, v in draw(jax.random.split(jax.random.key(1), 1000)).items()}
    for name, total, kept in (("time", 7, 4), ("freq", 8, 6), ("tokens", 24, 20)):
        assert drawn[name].shape == (1000, kept)
        assert (np.diff(drawn[name]) > 0).all()
        counts = np.bincount(drawn[name].ravel(), minlength=total)
        assert len(counts) == total
        np.testing.assert_allclose(counts / 1000, kept / total, atol=5 * 0.5 / 1000**0.5)
    counts = np.bincount(drawn["time_offset"])
    np.testing.assert_allclose(counts / 1000, [0.25] * 4, atol=5 * 0.5 / 1000**0.5)


def test_columns_are_drawn_after_the_cut():
    """The authors' code draws from the input's columns and fails if it exceeds the encodings."""
    module, x = _small(80, s_patchout_t=2), _feats(1, 400, 128)
    variables = _variables(module)
    for seed in range(20):
        out = _compiled(module, True)(variables, x, jax.random.key(seed))
        assert np.isfinite(out["logits"]).all()
        assert out["frame_embedding"].shape == (1, 3, 32)


@pytest.mark.parametrize(
    "fields", [{}, dict(s_patchout_t=2, s_patchout_f=3), dict(u_patchout=30), dict(s_patchout_f=7)]
)
def test_training_is_the_pass_with_the_drawn_choice_kept(fields):
    module, x = _small(160, **fields), _feats(3, 130, 128)
    variables, key = _variables(module), jax.random.key(5)
    choice = _choice(module, 8, 8, key)
    drawn = _compiled(module, True)(variables, x, key)
    kept = _compiled(module)(variables, x, kept=choice)
    for name in drawn:
        np.testing.assert_allclose(drawn[name], kept[name], atol=1e-5)
    other = _compiled(module, True)(variables, x, jax.random.key(6))
    assert np.abs(other["logits"] - drawn["logits"]).max() > 1e-3


def test_kept_patches_carry_their_own_encodings_and_frame_embeddings():
    """Dropped patches have no influence; the other patches keep their positions."""
    module, x = _small(), np.array(_feats(1, 80, 128))
    variables = _variables(module)
    kept = dict(time=np.array([1, 3]), freq=np.array([0, 6]), tokens=np.array([0, 3]))
    out = _compiled(module)(variables, x, kept=kept)
    blind = np.full_like(x, 7.0)  # the two remaining patches: row 0 column 1, row 6 column 3
    blind[:, 16:32, :16], blind[:, 48:64, 96:112] = x[:, 16:32, :16], x[:, 48:64, 96:112]
    same = _compiled(module)(variables, blind, kept=kept)
    for name in out:
        np.testing.assert_array_equal(out[name], same[name])
    np.testing.assert_allclose(out["frame_embedding"], out["tokens"][:, 2:], atol=1e-6)


def test_a_frame_embedding_in_training_is_the_mean_of_the_patches_that_stay():
    module, x = _small(), _feats(1, 80, 128)
    out = _compiled(module)(_variables(module), x, kept=dict(tokens=np.array([0, 5, 2])))
    means, tokens = np.asarray(out["frame_embedding"]), np.asarray(out["tokens"])
    np.testing.assert_allclose(means[:, 0], tokens[:, 2:4].mean(1), atol=1e-6)
    np.testing.assert_allclose(means[:, 2], tokens[:, 4], atol=1e-6)
    assert not means[:, [1, 3, 4]].any()


def test_full_length_training_without_rates_needs_no_rng_and_equals_evaluation():
    module, x = _small(), _feats(2, 80, 128)
    variables = _variables(module)
    train = _compiled(module, True)(variables, x)
    want = _compiled(module)(variables, x)["logits"]
    np.testing.assert_allclose(train["logits"], want, atol=1e-5)


@pytest.mark.parametrize("fields", [dict(dropout=0.3), dict(drop_path_rate=0.5)])
def test_dropouts_act_in_training_only(fields):
    module, x = _small(**fields), _feats(4, 80, 128)
    variables = _variables(module)
    plain = _compiled(_small())(variables, x)["logits"]
    np.testing.assert_allclose(_compiled(module)(variables, x)["logits"], plain, atol=1e-5)

    def run(seed):
        return np.asarray(_compiled(module, True)(variables, x, jax.random.key(seed))["logits"])

    np.testing.assert_array_equal(run(0), run(0))
    assert np.abs(run(0) - run(1)).max() > 1e-3
    assert np.abs(run(0) - plain).max() > 1e-3


def test_scan_and_remat_change_no_number_of_a_training_step():
    x = _feats(2, 64, 32)

    def gradient(**fields):
        module = _small(n_mels=32, s_patchout_t=1, u_patchout=3, dropout=0.1, **fields)

        def loss(variables):
            rngs = {"dropout": jax.random.key(2)}
            return jnp.square(module.apply(variables, x, train=True, rngs=rngs)["logits"]).sum()

        return jax.jit(jax.grad(loss))(_variables(module))

    plain, other = gradient(), gradient(scan_layers=False, remat=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), plain, other)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(plain))


def test_bfloat16_computes_in_it_and_answers_in_float32():
    x = _feats(2, 80, 128)
    variables = jax.jit(_small().init)(jax.random.key(0), x)
    out = _compiled(_small(dtype="bfloat16"))(variables, x)
    assert out.pop("tokens").dtype == jnp.bfloat16
    assert {v.dtype for v in out.values()} == {jnp.dtype("float32")}
    plain = _compiled(_small())(variables, x)
    scale = np.abs(plain["embedding"]).max()
    error = np.abs(out["embedding"] - plain["embedding"]).max()
    assert 0 < error < 0.05 * scale


def test_start_is_the_authors():
    module = _small(width=256, heads=4, depth=1, head_bias=-3.0)
    params = jax.jit(module.init)(jax.random.key(0), _feats(1, 16, 128))["params"]
    for name in ("time_encoding", "token_encoding", "freq_encoding", "cls_token", "dist_token"):
        assert 0.015 < params[name].std() < 0.025, name
    assert 0.019 < params["head"]["kernel"].std() < 0.021
    np.testing.assert_array_equal(params["head"]["bias"], -3.0)
    assert np.abs(params["patches"]["kernel"]).max() <= 1 / 16
    np.testing.assert_allclose(params["patches"]["kernel"].std(), 1 / 16 / 3**0.5, rtol=0.02)


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (dict(stride=0), "stride must be"),
        (dict(stride=(10, 10, 10)), "stride must be"),
        (dict(stride=10.0), "stride must be"),
        (dict(stride=8), "cuts 128 mels into 15 rows"),
        (dict(frames=5), "frames at least the time stride"),
        (dict(n_mels=10), "n_mels must be at least 16"),
        (dict(s_patchout_t=99), "leave patches of 99 columns x 12 rows"),
        (dict(s_patchout_f=12), "leave patches of"),
        (dict(u_patchout=-1), "0 or more"),
        (dict(u_patchout=99 * 12), "leave patches of"),
        (dict(patchout=3), "u_patchout"),
    ],
)
def test_wrong_fields_are_refused_in_one_line(fields, words):
    with pytest.raises(AsjaxError, match=words) as caught:
        models.build("passt", "passt_s", **fields)
    assert "\n" not in str(caught.value)


def test_wrong_input_is_refused_in_one_line():
    module = _small(s_patchout_t=2)
    variables = _variables(module)
    with pytest.raises(AsjaxError, match="128 mel bins, got 64"):
        module.apply(variables, _feats(1, 80, 64))
    with pytest.raises(AsjaxError, match="train on at least 48 frames"):
        module.apply(variables, _feats(1, 47, 128), train=True, rngs={"dropout": jax.random.key(0)})
    with pytest.raises(AsjaxError, match="kept: entry 'times' does not exist; did you mean 'time'"):
        module.apply(variables, _feats(1, 80, 128), kept={"times": [0]})
    assert module.example_shape == (48, 128)
    out = _compiled(module, True)(variables, _feats(1, 48, 128), jax.random.key(0))
    assert out["tokens"].shape == (1, 2 + 8, 32)

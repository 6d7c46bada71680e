"""Pooling of frames against naive numpy and torch's operations; padding has no effect."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asjax.config import AsjaxError
from asjax.nn import pooling

B, T, C, H = 3, 7, 5, 2
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (B, T, C)).astype("f4")
ATTENTION = RNG.normal(0, 3, (B, T, C)).astype("f4")
LENGTHS = (7, 4, 1)
MASK = np.arange(T)[None] < np.array(LENGTHS)[:, None]
SINGLE = sorted(set(pooling.POOLS) - {"multi_head_attention"})


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def naive(name, x, a):
    """Pooling of one class of one clip in float64: x, a [T]."""
    raw = sigmoid(x)
    p, w = np.clip(raw, 1e-7, 1 - 1e-7), np.clip(sigmoid(a), 1e-7, 1 - 1e-7)
    return {
        "max": lambda: max(p),
        "mean": lambda: sum(p) / len(p),
        "linear_softmax": lambda: sum(p * p) / sum(p),
        "exp_softmax": lambda: sum(p * np.exp(p)) / sum(np.exp(p)),
        "tal_attention": lambda: sum(p * np.exp(a)) / sum(np.exp(a)),
        "psla_attention": lambda: sum(raw * w) / sum(w),
        "asdr_attention": lambda: sum(p * w) / sum(w),
        "psla_mean": lambda: sum(raw) / len(raw),
    }[name]()


def arguments(name, logits=LOGITS, attention=ATTENTION):
    return (logits, attention) if pooling.needs_attention(name) else (logits,)


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("lengths", [(T,) * B, LENGTHS])
def test_every_function_is_its_definition_over_the_frames_of_the_clip(name, lengths):
    mask = None if lengths[1] == T else MASK
    clip, weights = pooling.pool(name)(*arguments(name), mask=mask)
    want = [
        [naive(name, *np.float64((LOGITS[b, :n, c], ATTENTION[b, :n, c]))) for c in range(C)]
        for b, n in enumerate(lengths)
    ]
    np.testing.assert_allclose(clip, want, rtol=2e-6)
    np.testing.assert_allclose(np.sum(weights, 1), 1, rtol=1e-6)
    for b, n in enumerate(lengths):
        assert np.all(np.asarray(weights)[b, n:] == 0)


@pytest.mark.parametrize("name", SINGLE)
def test_a_padded_batch_equals_single_clips_whatever_the_padding_holds(name):
    garbage = np.where(MASK[..., None], 0, 1e4).astype("f4")
    args = arguments(name, LOGITS + garbage, ATTENTION + garbage)
    together, _ = pooling.pool(name)(*args, mask=MASK)
    for b, n in enumerate(LENGTHS):
        alone, _ = pooling.pool(name)(*(x[b : b + 1, :n] for x in args))
        np.testing.assert_allclose(together[b : b + 1], alone, rtol=1e-6)


def test_the_softmax_of_psla_runs_over_classes_and_other_activations_are_clamped_over_time():
    torch = pytest.importorskip("torch")
    acts = dict(
        sigmoid=torch.sigmoid,
        relu=torch.relu,
        linear=lambda x: x,
        softmax=lambda x: torch.softmax(x, 1),
    )
    x, a = (torch.tensor(v).transpose(1, 2) for v in (LOGITS, ATTENTION))  # (B, C, T)
    for name, act in acts.items():
        weight = act(a).clamp(1e-7, 1 - 1e-7)
        weight = weight / weight.sum(2, keepdim=True)
        for other, inner in acts.items():
            want = (weight * inner(x)).sum(2)
            found, kept = pooling.psla_attention(
                LOGITS, ATTENTION, activation=name, logit_activation=other
            )
            np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(kept, weight.transpose(1, 2), rtol=1e-5, atol=1e-9)
        same, _ = pooling.psla_attention(LOGITS, ATTENTION, activation=name)
        np.testing.assert_allclose(same, (weight * act(x)).sum(2), rtol=1e-5, atol=1e-6)


def test_heads_are_summed_with_their_free_weights():
    x, a = RNG.normal(0, 2, (2, B, T, H, C)).astype("f4")
    weight = np.float32([0.25, -2.0])
    found, weights = pooling.multi_head_attention(x, a, weight, mask=MASK)
    each = [pooling.psla_attention(x[:, :, h], a[:, :, h], mask=MASK) for h in range(H)]
    want = sum(w * np.asarray(clip) for w, (clip, _) in zip(weight, each, strict=True))
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
    for h in range(H):
        np.testing.assert_allclose(weights[:, :, h], each[h][1], rtol=1e-6)


def test_logit_turns_the_sigmoid_back_and_is_held_where_the_authors_clamp():
    p = np.float64([1e-6, 0.01, 0.3, 0.5, 0.9, 0.999])
    np.testing.assert_allclose(pooling.logit(p), np.log(p) - np.log1p(-p), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(jax.nn.sigmoid(pooling.logit(p)), p, rtol=1e-6)
    ends = np.asarray(pooling.logit(np.float32([-1.0, 0.0, 1.0, 3.7])))
    assert np.isfinite(ends).all()
    np.testing.assert_allclose(ends[:2], np.log(1e-7), rtol=1e-6)
    assert ends[2] == ends[3] == np.float32(np.log(1 - 2.0**-23) - np.log(2.0**-23))


@pytest.mark.parametrize("name", SINGLE)
def test_extreme_logits_and_a_clip_without_frames_have_finite_gradients(name):
    x = LOGITS * 1e3
    empty = MASK & (np.arange(B) < 2)[:, None]

    def total(x, a):
        args = (x, a) if pooling.needs_attention(name) else (x,)
        return pooling.pool(name)(*args, mask=empty)[0].sum()

    value, grads = jax.value_and_grad(total, (0, 1))(x, ATTENTION * 1e3)
    assert all(np.isfinite(v).all() for v in (value, *grads))


def test_unknown_names_list_the_known_ones():
    with pytest.raises(AsjaxError, match="did you mean 'tal_attention'.*exp_softmax") as error:
        pooling.pool("tal_atention")
    assert "\n" not in str(error.value)
    with pytest.raises(AsjaxError, match="pooling activation 'tanh'.*relu"):
        pooling.psla_attention(LOGITS, ATTENTION, activation="tanh")
    module = pooling.FramePool(C, "multi_head_attention")
    with pytest.raises(AsjaxError, match="MultiHeadPool"):
        module.init(jax.random.key(0), jnp.ones((1, 2, 3)))


@pytest.mark.parametrize("name", SINGLE)
def test_the_layer_has_the_linear_layers_its_function_needs_under_the_names_given(name):
    x = RNG.normal(size=(B, T, 4)).astype("f4")
    module = pooling.FramePool(C, name, logits="fc_prob", attention="fc_att")
    variables = module.init(jax.random.key(0), x)
    layers = jax.tree.map(np.asarray, variables["params"])
    needed = {"fc_prob", "fc_att"} if pooling.needs_attention(name) else {"fc_prob"}
    assert set(layers) == needed
    out = module.apply(variables, x, MASK)
    linear = [x @ layers[k]["kernel"] + layers[k]["bias"] for k in sorted(needed, reverse=True)]
    want, weights = pooling.pool(name)(*linear, mask=MASK)
    np.testing.assert_allclose(out.frame_logits, linear[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out.prob, want, rtol=1e-5)
    np.testing.assert_allclose(out.weights, weights, rtol=1e-5, atol=1e-7)


def test_the_layers_start_as_the_authors():
    x = jnp.ones((1, 2, 96))
    single = pooling.FramePool(400).init(jax.random.key(0), x)["params"]
    heads = pooling.MultiHeadPool(400).init(jax.random.key(1), x)["params"]
    np.testing.assert_allclose(heads["head_weight"], [0.25] * 4)
    for start, bound in (
        (single["cla"]["kernel"], (6 / 96) ** 0.5),
        (heads["att_heads"]["kernel"], 96**-0.5),
        (heads["cla_heads"]["bias"], 96**-0.5),
    ):
        assert np.abs(start).max() <= bound
        assert np.std(start) == pytest.approx(bound / 3**0.5, rel=0.03)
    assert not np.any(single["att"]["bias"])


def test_frame_logits_of_heads_are_those_of_the_clip_when_it_is_one_frame():
    x = RNG.normal(size=(2, 1, 6)).astype("f4")
    for act, back in ((None, pooling.logit), ("linear", lambda p: p)):
        module = pooling.MultiHeadPool(C, 3, logit_activation=act)
        out = module.apply(module.init(jax.random.key(0), x), x)
        np.testing.assert_allclose(out.frame_logits[:, 0], back(out.prob), rtol=1e-4, atol=1e-6)
        assert out.weights.shape == (2, 1, 3, C)

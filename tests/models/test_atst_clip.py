"""ATST-Clip: sizes, a float64 numpy pass chunk by chunk, lengths, heads, checkpoints' names."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rule
from reference import vit as naive

from asjax import models
from asjax.config import AsjaxError
from asjax.models import atst_clip
from asjax.weights import port

SMALL = dict(width=64, heads=2, depth=3, blocks_used=2, chunk_frames=61, frames=101, num_classes=5)


def _weights(module, seed="a"):
    """A state dict of the authors' encoder and head."""
    d, (bins, frames) = module.width, module.patch
    places = (module.n_mels // bins) * (module.frames // frames)
    shapes = {
        "cls_token": (1, 1, d),
        "pos_embed": (1, 1 + places, d),
        "patch_embed.patch_embed.weight": (d, bins * frames),
        "patch_embed.patch_embed.bias": (d,),
        **naive.shapes(module.depth, d, 4 * d, qkv_bias=False),
    }
    if module.num_classes:
        wide = 2 * module.blocks_used * d
        shapes |= {"head.linear.weight": (module.num_classes, wide)}
        shapes |= {"head.linear.bias": (module.num_classes,)}
        shapes |= {"head.norm.running_mean": (wide,), "head.norm.running_var": (wide,)}
    out = naive.fill(shapes, seed)
    if module.num_classes:
        out["head.norm.running_var"] = 1 + rule.array("var", (wide,), salt=seed) ** 2
    return out


@functools.cache
def _ported(**fields):
    fields = {**SMALL, **fields}
    weights = _weights(models.build("atst_clip", variant="atst_clip_small", **fields))
    return *port.from_torch("atst_clip", "atst_clip_small", weights, **fields), weights


def _feats(frames, clips=2):
    return np.random.default_rng(0).standard_normal((clips, frames, 64)).astype(np.float32)


_apply = jax.jit(lambda module, v, x, n: module.apply(v, x, lengths=n), static_argnums=0)


def _run(module, variables, feats, lengths=None):
    with jax.default_matmul_precision("highest"):
        out = _apply(module, variables, feats, None if lengths is None else jnp.asarray(lengths))
    return {k: np.asarray(v) for k, v in out.items()}


def _clip(module, w, x, length):
    """(embedding, patch tokens) of one clip [T, F], from its real patches only, chunk by chunk."""
    rows, cols = module.patch
    high, chunks, tokens = module.n_mels // rows, [], []
    for start in range(0, len(x), module.chunk_frames):
        left = max(0, length - start)
        part = x[start : min(start + module.chunk_frames, length)]
        patches = [
            part[t : t + cols, f : f + rows].T.reshape(-1)
            for t in range(0, len(part) - cols + 1, cols)
            for f in range(0, high * rows, rows)
        ]
        embedded = [naive.linear(p, w, "patch_embed.patch_embed") for p in patches]
        s = np.stack([w["cls_token"][0, 0].astype(np.float64), *embedded])
        s = s + w["pos_embed"][0, : len(s)]
        every = np.stack(naive.encode(s, w, module.depth, module.heads)[-module.blocks_used :])
        mean = every[:, 1:].sum(1) / (high * (left // cols) + 1e-6)
        tokens.append(every[-1, 1:].reshape(-1, high, module.width).mean(1))
        if start == 0 or left > module.chunk_frames // 2:
            chunks.append(np.concatenate([every[:, 0].ravel(), mean.ravel()]))
    return np.mean(chunks, 0), np.concatenate(tokens)


def test_parameters_are_as_many_as_the_references():
    # without the mask_embed of the pre-training
    for variant, count in (("small", 21_476_352 - 384), ("base", 85_420_032 - 768)):
        bare = models.build("atst_clip", variant=f"atst_clip_{variant}", num_classes=0)
        assert models.parameters(bare) == count
        head = 527 * (24 * bare.width + 1)
        assert models.parameters(bare.clone(num_classes=527)) == count + head


@pytest.mark.parametrize(
    ("frames", "lengths", "fields"),
    [
        (61, None, {}),
        (40, (40, 17), {}),
        (101, (101, 83), {}),  # 40 and 22 frames remain in the second chunk
        (200, (200, 122), {}),  # four chunks, the last of 17 frames
        (150, None, dict(patch=(16, 8), blocks_used=3)),
        (63, None, {}),  # two frames remain: no patch
    ],
)
def test_the_output_equals_float64_numpy(frames, lengths, fields):
    module, variables, w = _ported(**fields)
    feats = _feats(frames)
    out = _run(module, variables, feats, lengths)
    for i, length in enumerate(lengths or (frames, frames)):
        embedding, tokens = _clip(module, w, feats[i], length)
        np.testing.assert_allclose(out["embedding"][i], embedding, rtol=1e-4, atol=1e-5)
        ours = out["frame_embedding"][i]
        if length == frames:
            assert len(ours) == len(tokens)
        np.testing.assert_allclose(ours[: len(tokens)], tokens, rtol=1e-4, atol=1e-5)
        assert not ours[len(tokens) :].any()
        y = embedding - w["head.norm.running_mean"]
        y = naive.linear(y / np.sqrt(w["head.norm.running_var"] + 1e-5), w, "head.linear")
        np.testing.assert_allclose(out["logits"][i], y, rtol=1e-4, atol=1e-5)


def test_what_lies_beyond_a_clips_length_does_not_matter():
    module, variables, _ = _ported()
    feats, lengths = _feats(101), np.array([77, 30])
    noisy = np.where(np.arange(101)[None, :, None] < lengths[:, None, None], feats, 1e3)
    a, b = (_run(module, variables, x, lengths) for x in (feats, np.float32(noisy)))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-5)
    long = _run(module, variables, feats, [300, 30])["embedding"]
    np.testing.assert_array_equal(long, _run(module, variables, feats, [101, 30])["embedding"])


def test_less_than_a_patch_leaves_the_class_token():
    module, variables, w = _ported()
    for frames, lengths in ((1, None), (3, None), (9, [0, 3])):
        out = _run(module, variables, _feats(frames), lengths)
        want, _ = _clip(module, w, _feats(frames)[0], 0)
        np.testing.assert_allclose(out["embedding"], [want, want], rtol=1e-4, atol=1e-5)
        assert out["frame_embedding"].shape == (2, max(1, frames // 4), 64)


def test_a_model_without_head_gives_no_logits():
    module, variables, weights = _ported(num_classes=0)
    out = _run(module, variables, _feats(50))
    assert sorted(out) == ["embedding", "frame_embedding"]
    whole, with_head, _ = _ported()
    same = _run(whole, with_head, _feats(50))["embedding"]
    np.testing.assert_allclose(out["embedding"], same, rtol=1e-6, atol=1e-6)
    with pytest.raises(AsjaxError, match=r"missing: head\.linear\.weight") as caught:
        port.from_torch("atst_clip", "atst_clip_small", weights, **SMALL)
    assert "give num_classes=0 for the features without a head" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("classes", [0, 5])
def test_weights_come_back_bit_for_bit_from_every_checkpoint(classes):
    module, variables, weights = _ported(num_classes=classes)
    back = port.to_torch("atst_clip", variables)
    assert back.keys() == weights.keys()
    assert all(np.array_equal(back[k], weights[k]) for k in back)
    mask = {"mask_embed": np.zeros((1, 1, 64))}
    bare = {**mask, **{k: v for k, v in weights.items() if not k.startswith("head.")}}
    head = {k: v for k, v in weights.items() if k.startswith("head.")}
    tuned = {f"encoder.encoder.{k}": v for k, v in bare.items()}
    student = {f"model.student.encoder.{k}": v + 1 for k, v in bare.items()}
    teacher = {f"model.teacher.encoder.{k}": v for k, v in bare.items()}
    extra = {
        "model.student.predictor.0.weight": np.zeros(2),
        "model.teacher.projector.0.weight": np.zeros(2),
        "head.norm.num_batches_tracked": np.int64(1),
    }
    checkpoints = [
        {"state_dict": {**tuned, **head}, "epoch": 3},
        {"state_dict": {**student, **teacher, **extra, **head}},
    ]
    if not classes:
        old = {f"module.backbone.{k}": v for k, v in bare.items()}
        checkpoints.append({"teacher": old, "student": student})
    for given in checkpoints:
        _, again = port.from_torch(
            "atst_clip", "atst_clip_small", given, **{**SMALL, "num_classes": classes}
        )
        jax.tree.map(np.testing.assert_array_equal, again, variables)
    found = atst_clip.torch_fields({**tuned, **head})
    assert found == dict(frames=100, **(dict(blocks_used=2) if classes else dict(num_classes=0)))
    assert atst_clip.torch_fields({"pos_embed": np.zeros((1, 251, 4))}) == {"num_classes": 0}


def test_training_moves_the_heads_statistics_and_draws():
    module, variables, _ = _ported(dropout=0.1)
    assert module.drop_path == 0.1
    feats = _feats(101, clips=4)

    def loss(params, key):
        given = {**variables, "params": params}
        out, new = module.apply(
            given, feats, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
        )
        return ((out["logits"] - 1) ** 2).mean(), (out["embedding"], new["batch_stats"])

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (a, (embedding, stats)), grads = step(variables["params"], jax.random.key(0))
    (b, _), _ = step(variables["params"], jax.random.key(1))
    assert a != b
    dead = [p for p, g in jax.tree_util.tree_leaves_with_path(grads) if not np.abs(g).max() > 0]
    assert not dead
    old = variables["batch_stats"]["head_norm"]["mean"]
    want = 0.9 * old + 0.1 * embedding.mean(0)
    np.testing.assert_allclose(stats["head_norm"]["mean"], want, rtol=1e-5, atol=1e-6)


def test_augment_sees_the_features_as_given():
    module, variables, _ = _ported()
    out = module.apply(variables, _feats(20), augment=lambda x: 2 * x)["logits"]
    same = module.apply(variables, 2 * _feats(20))["logits"]
    np.testing.assert_array_equal(out, same)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (dict(blocks_used=13), "blocks_used must be in 1..12 (depth), got 13"),
        (dict(chunk_frames=1300), "chunk_frames into frames=1001"),
        (dict(n_mels=32), "patch=(64, 4) must fit into n_mels=32"),
        (dict(num_class=3), "did you mean 'num_classes'"),
    ],
)
def test_wrong_fields_are_named_in_one_line(fields, text):
    with pytest.raises(AsjaxError) as caught:
        models.build("atst_clip", variant="atst_clip_base", **fields)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lengths_of_another_shape_are_refused():
    module, variables, _ = _ported()
    with pytest.raises(AsjaxError, match=r"lengths must be \[2\] \(frames of each clip\)"):
        module.apply(variables, _feats(20), lengths=jnp.array([20]))

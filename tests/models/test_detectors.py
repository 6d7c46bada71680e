"""The six families of frame models: sizes, lengths, masks, randomness in training, weight names.

tests/weights/test_port.py tests parity with the authors' code, with the cases sed_tiny_* of several
lengths.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import parity_table
import pytest
import rule

from asjax import models
from asjax.config import AsjaxError
from asjax.models import asit, atst_frame, beats, fpasst, frame_mn, m2d  # noqa: F401 (named here)
from asjax.weights import detect, port

KEY = jax.random.key(0)
FAMILIES = {
    "atst_frame": dict(width=32, heads=2, depth=2),
    "beats": dict(
        width=32, heads=2, depth=2, patch_width=16, position_taps=8, position_groups=2, buckets=16,
        farthest=40,
    ),
    "fpasst": dict(width=32, heads=2, depth=2),
    "m2d": dict(width=32, heads=2, depth=2),
    "asit": dict(width=32, heads=2, depth=2),
    "frame_mn": dict(width=0.1),
}  # fmt: skip
every = pytest.mark.parametrize("family", FAMILIES)


def mostly(*names):
    """A test of every family that compiles long; the named families run every time."""
    marks = {name: [] if name in names else [pytest.mark.slow] for name in FAMILIES}
    return pytest.mark.parametrize(
        "family", [pytest.param(name, marks=marks[name]) for name in FAMILIES]
    )


def variant(family):
    return "frame_mn06" if family == "frame_mn" else f"{family}_base"


def build(family, **fields):
    return models.build(family, variant(family), **{**FAMILIES[family], "num_classes": 5, **fields})


@functools.cache
def ready(family, **fields):
    """(module, variables) with non-trivial positions."""
    module = build(family, **fields)
    feats = jnp.zeros((1, *module.example_shape))
    variables = jax.jit(module.init)(KEY, feats)
    draw = lambda path, x: (  # noqa: E731
        0.5 * jax.random.normal(jax.random.key(len(path)), x.shape)
        if any(w in str(path) for w in ("pos_embed", "encoding", "relative_bias"))
        else x
    )
    return module, jax.tree_util.tree_map_with_path(draw, variables)


@functools.partial(jax.jit, static_argnums=0)
def run(module, variables, x, mask=None, masked=None):
    """Outputs of a module, compiled once for a shape."""
    more = {k: v for k, v in (("mask", mask), ("masked", masked)) if v is not None}
    return module.apply(variables, x, **more)


def feats(family, frames, clips=2, seed=0):
    bins = build(family).n_mels
    return np.random.default_rng(seed).standard_normal((clips, frames, bins)).astype(np.float32)


# ------------------------------------------------------------------------------------ sizes

# parameters: the bare model, with two heads of 447 classes, with the teachers' GRU
COUNTS = {
    "atst_frame": (85_419_264, 86_106_750, 199_231_614),
    "beats": (90_311_792, 90_999_278, 204_124_142),
    "fpasst": (88_421_632, 89_109_118, 120_162_430),
    "m2d": (85_492_994, 88_926_848, 237_054_080),
    "asit": (85_482_240, 86_169_726, 199_294_590),
}


@pytest.mark.parametrize("family", COUNTS)
def test_parameters_are_as_many_as_the_authors(family):
    teacher = dict(sequence="gru", sequence_width=1024 if family == "fpasst" else 2048)
    found = [
        models.parameters(models.build(family, variant(family), **fields))
        for fields in (dict(num_classes=0), dict(num_classes=447), dict(num_classes=447, **teacher))
    ]
    assert tuple(found) == COUNTS[family]


def test_frame_mobilenets_are_as_large_as_the_authors():
    for name, count in (("frame_mn06", 1_615_022), ("frame_mn10", 3_830_798)):
        assert models.parameters(models.build("frame_mn", name, num_classes=447)) == count


# S and D of 10 s, which each family's published frontend makes 1001, 998 or 1000 frames of
TOKENS = {
    "atst_frame": (1001, 250, 768), "beats": (998, 496, 768), "fpasst": (1000, 250, 768),
    "m2d": (1001, 62, 3840), "asit": (998, 497, 768), "frame_mn": (1000, 250, 576),
}  # fmt: skip


@every
def test_ten_seconds_have_the_authors_tokens(family):
    frames, tokens, width = TOKENS[family]
    module = models.build(family, variant(family), num_classes=447)
    assert module.input_frames == frames
    x = jax.ShapeDtypeStruct((3, frames, module.n_mels), jnp.float32)
    out = jax.eval_shape(lambda x: module.init_with_output(KEY, x)[0], x)
    assert out["frame_embedding"].shape == (3, tokens, width)
    assert out["frame_logits"].shape == (3, 250, 447)
    assert out["logits"].shape == (3, 447)
    assert out["embedding"].shape == (3, width)


# -------------------------------------------------------------------------- lengths and batches


@mostly("atst_frame", "beats")
def test_any_length_gives_as_many_outputs_and_finite_numbers(family):
    module, variables = ready(family, frames=20)
    for frames in (1, 131):
        out = run(module, variables, feats(family, frames))
        assert out["frame_logits"].shape == (2, 20, 5)
        assert all(np.isfinite(x).all() for x in out.values())


@mostly("atst_frame", "beats", "m2d", "asit", "fpasst")
def test_a_clip_in_a_batch_gives_what_it_gives_alone(family):
    module, variables = ready(family, frames=20, sequence="gru", sequence_width=8)
    x = feats(family, 80)
    x[1, 40:] = 0
    mask = jnp.arange(80)[None] < jnp.array([[80], [40]])
    twice = [1, 1]  # alone, but for itself: the same program serves all three
    both, alone = (
        run(module, variables, x, mask),
        run(module, variables, x[twice], mask[jnp.array(twice)]),
    )
    for key in both:
        np.testing.assert_allclose(both[key][1], alone[key][0], rtol=2e-4, atol=2e-5)
    free = run(module, variables, x[twice], jnp.ones((2, 80), bool))
    assert not np.allclose(free["logits"], alone["logits"], atol=1e-4)


@pytest.mark.slow
def test_fpasst_cuts_what_is_longer_than_its_encodings():
    module, variables = ready("fpasst", input_frames=80)
    long, short = feats("fpasst", 160), feats("fpasst", 160)[:, :84]
    for x in (long, short):
        assert run(module, variables, x)["frame_embedding"].shape == (2, 20, 32)
    mask = jnp.arange(160)[None] < jnp.array([[160], [40]])
    out = run(module, variables, long, mask)
    assert out["logits"].shape == (2, 5)


def test_atst_frame_refuses_more_than_it_has_positions_for():
    module, variables = ready("atst_frame", input_frames=80)
    assert run(module, variables, feats("atst_frame", 83))["frame_embedding"].shape[1] == 20
    with pytest.raises(AsjaxError, match="positions for 80 frames, got 84; cut the audio"):
        run(module, variables, feats("atst_frame", 84))


def test_m2d_encodes_long_input_unit_by_unit():
    module, variables = ready("m2d", input_frames=83)
    x = feats("m2d", 200)
    tokens = run(module, variables, x)["frame_embedding"]
    assert tokens.shape == (2, 5 + 5 + 3, 5 * 32)
    parts = [x[:, :83], x[:, 83:166], np.pad(x[:, 166:], ((0, 0), (0, 14), (0, 0)))]
    each = [run(module, variables, part)["frame_embedding"] for part in parts]
    np.testing.assert_allclose(tokens, np.concatenate(each, 1), atol=1e-5)


def test_asits_positions_are_scrambled_but_for_the_length_they_were_made_for():
    """For a constant patch the tokens differ only by position, so they show the position table."""
    fields = dict(depth=1, positions=64, n_mels=32)
    module, variables = ready("asit", **fields)
    table = np.asarray(variables["params"]["pos_embed"][0, 1:]).reshape(2, 4, 32)

    def places(frames):
        x = np.zeros((1, frames, 32), np.float32)
        state = jax.jit(lambda v, x: module.apply(v, x, capture_intermediates=True)[1])(
            variables, x
        )
        tokens = parity_table.captured(state["intermediates"])["Dropout_0"][0, 1:]
        return tokens - variables["params"]["patches"]["bias"][None]

    np.testing.assert_allclose(places(64), table.reshape(8, 32), atol=1e-6)  # used without change
    torch = pytest.importorskip("torch")
    grid = torch.from_numpy(table.transpose(2, 0, 1)[None].copy())
    want = torch.nn.functional.interpolate(grid, size=(6, 2), mode="bicubic")[0]
    np.testing.assert_allclose(places(96), want.numpy().reshape(32, 12).T, atol=1e-5)


# ---------------------------------------------------------------------------------- training


@mostly("atst_frame", "beats")
def test_every_parameter_learns_and_dropout_draws(family):
    drops = {"beats": {}, "frame_mn": {}}.get(family, dict(dropout=0.1, drop_path=0.1))
    module, variables = ready(family, frames=10, **drops)
    x = feats(family, 64, clips=3)
    stats = {k: v for k, v in variables.items() if k != "params"}

    def loss(params, key):
        out, _ = module.apply(
            {"params": params, **stats}, x, train=True, rngs={"dropout": key}, mutable=list(stats)
        )
        return jnp.square(out["frame_logits"] - 1).mean() + jnp.square(out["logits"] - 1).mean()

    step = jax.jit(jax.value_and_grad(loss))
    a, grads = step(variables["params"], jax.random.key(1))
    b, _ = step(variables["params"], jax.random.key(2))
    assert (a == b) == (family == "frame_mn")
    still = {"mask_embed", "norm_stats"}  # only for the pre-training; copied
    dead = {
        path[-1].key
        for path, g in jax.tree_util.tree_leaves_with_path(grads)
        if not np.abs(g).max() > 0
    }
    # the bias of a convolution before a batch norm has no gradient
    assert dead <= still, dead


@pytest.mark.slow
def test_beats_leaves_out_whole_layers():
    module, variables = ready("beats", layer_drop=1.0 - 1e-9, dropout=0.0, input_dropout=0.0,
                              attention_dropout=0.0)  # fmt: skip
    x = feats("beats", 32)
    out, state = module.apply(
        variables, x, train=True, rngs={"dropout": KEY}, capture_intermediates=True,
        mutable=["intermediates"],
    )  # fmt: skip
    norm = parity_table.captured(state["intermediates"])["norm"]
    np.testing.assert_allclose(out["frame_embedding"], norm, atol=1e-6)


def test_fpasst_draws_a_stretch_of_its_encodings_in_training():
    module, variables = ready("fpasst")
    x = feats("fpasst", 40)
    train = jax.jit(
        lambda x, key: module.apply(variables, x, train=True, rngs={"dropout": key})["logits"]
    )
    drawn = {np.asarray(train(x, key)).tobytes() for key in jax.random.split(KEY, 6)}
    assert len(drawn) > 3
    full = feats("fpasst", 1000, clips=1)
    a, b = (train(full, key) for key in jax.random.split(KEY))
    np.testing.assert_array_equal(a, b)


def test_atst_frame_hides_masked_tokens():
    module, variables = ready("atst_frame")
    x = feats("atst_frame", 40)
    masked = jnp.zeros((2, 10), bool).at[:, 3].set(True)
    out = run(module, variables, x, None, masked)["frame_embedding"]
    louder = x * np.where(np.arange(40) // 4 == 3, np.float32(5), np.float32(1))[None, :, None]
    other = run(module, variables, louder, None, masked)["frame_embedding"]
    np.testing.assert_allclose(out, other, atol=1e-6)
    assert not np.allclose(out, run(module, variables, x)["frame_embedding"], atol=1e-3)


@mostly("atst_frame", "fpasst")
def test_augment_sees_the_features_as_given(family):
    module, variables = ready(family)
    x = feats(family, 32)
    doubled = jax.jit(lambda x: module.apply(variables, x, augment=lambda x: 2 * x)["logits"])
    np.testing.assert_allclose(doubled(x), run(module, variables, 2 * x)["logits"], atol=1e-5)


# ---------------------------------------------------------------------------------- weights


def shaped(family, **fields):
    """A state dict with the authors' shapes that uses no memory."""
    shapes = models.abstract(models.build(family, variant(family), **fields))
    zeros = jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes)
    return port.to_torch(family, zeros)


@every
@pytest.mark.parametrize("fields", [dict(num_classes=447), dict(num_classes=0), "teacher"])
def test_a_published_checkpoint_is_found_by_its_names_and_shapes(family, fields):
    if fields == "teacher":
        width = 1024 if family == "fpasst" else 2048
        fields = dict(num_classes=447, sequence="gru", sequence_width=width)
    names = shaped(family, **fields)
    found = detect.detect(names)
    known = {k: v for k, v in fields.items() if getattr(build(family), k) != v}
    assert (found.family, found.variant) == (family, variant(family))
    assert found.fields == {k: v for k, v in fields.items() if k in known or k == "num_classes"}


@every
def test_weights_go_out_as_they_came_in(family):
    module, variables = ready(family, sequence="lstm", sequence_width=8)
    names = port.to_torch(family, variables)
    fields = dict(FAMILIES[family], num_classes=5, sequence="lstm", sequence_width=8)
    again, back = port.from_torch(family, variant(family), names, **fields)
    assert again == module
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    bare = port.match(family, variant(family), names, **{**fields, "num_classes": 0})
    left = {k for k, (_, why) in bare.skipped.items() if why == "the model has no head"}
    assert left == {k for k in names if k.startswith(("strong_head", "weak_head", "seq_model"))}
    without = {k: v for k, v in names.items() if k not in left}
    fields["sequence"] = None
    with pytest.raises(AsjaxError, match="no head: give num_classes=0 for the bare backbone"):
        port.from_torch(family, variant(family), without, **fields)


# PretrainedSED's files, its backbones alone, and the authors' own
FORMS = {
    "atst_frame": ("model.atst.", "atst.", "", "model.teacher.encoder.", "encoder.encoder."),
    "beats": ("model.beats.", "model.model.", "beats.", ""),
    "fpasst": ("model.fpasst.", "model.", "fpasst.", ""),
    "m2d": ("model.m2d.backbone.", "model.backbone.", "m2d.backbone.", "backbone.", "",
            "module.ar.runtime.backbone."),
    "asit": ("model.asit.", "model.", "asit.", "", "backbone.", "module.backbone."),
    "frame_mn": ("model.frame_mn.", "frame_mn.", ""),
}  # fmt: skip


@every
def test_every_form_of_the_names_is_understood(family):
    _, variables = ready(family)
    names, first = port.to_torch(family, variables), FORMS[family][0]
    heads = {k: v for k, v in names.items() if k.startswith(("strong_head", "weak_head"))}
    bare = {k.removeprefix(first): v for k, v in names.items() if k not in heads}
    assert len(heads) == 4
    for form in FORMS[family]:
        given = {form + k: v for k, v in bare.items()} | heads
        _, back = port.from_torch(
            family, variant(family), {"state_dict": given}, **FAMILIES[family], num_classes=5
        )
        jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_beats_takes_both_spellings_of_weight_normalisation_and_one_of_the_tied_tables():
    fields = dict(FAMILIES["beats"], num_classes=5)
    _, variables = ready("beats")
    names = port.to_torch("beats", variables)
    tied = [k for k in names if k.endswith("relative_attention_bias.weight")]
    assert len(tied) == 2  # one per layer, as in torch's state dict
    old = {
        k.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): v
        for k, v in names.items()
    }
    assert set(old) != set(names)
    once = {k: v for k, v in names.items() if k != tied[1]}
    for given in (old, once):
        _, back = port.from_torch("beats", "beats_base", given, **fields)
        jax.tree.map(np.testing.assert_array_equal, back, variables)
    with pytest.raises(AsjaxError, match="share one relative_attention_bias, but its copies"):
        port.from_torch("beats", "beats_base", {**names, tied[1]: names[tied[1]] + 1}, **fields)


def test_beats_own_classifier_is_the_mean_over_tokens_in_audiosets_order():
    from asjax import labels

    mids = labels.get("audioset527").ids
    small = FAMILIES["beats"]
    _, variables = ready("beats", num_classes=0)
    names = port.to_torch("beats", variables)
    names = {k.removeprefix("model.beats."): v for k, v in names.items()}
    weight = rule.param("predictor.weight", (527, 32), "float32", salt="a")
    names |= {"predictor.weight": weight, "predictor.bias": np.arange(527, dtype=np.float32)}
    order = np.random.default_rng(0).permutation(527)
    checkpoint = {
        "cfg": {"encoder_layers": 2},
        "model": names,
        "label_dict": {i: mids[k] for i, k in enumerate(order)},
    }
    fields = dict(small, head="mean", frames=None)
    module, back = port.from_torch("beats", "beats_base", checkpoint, **fields)
    x = feats("beats", 40)
    out = run(module, back, x)
    tokens = out["frame_embedding"]
    want = np.asarray(tokens).mean(1) @ weight.T + np.arange(527)  # in the file's order
    np.testing.assert_allclose(np.asarray(out["logits"])[:, order], want, rtol=1e-4, atol=1e-3)
    assert out["frame_logits"].shape == (2, tokens.shape[1], 527)
    bare, _ = port.from_torch("beats", "beats_base", checkpoint, **small, num_classes=0)
    assert bare.num_classes == 0
    other = {i: f"/x/{i}" for i in range(527)}
    with pytest.raises(AsjaxError, match="527 classes that are not AudioSet's"):
        port.from_torch("beats", "beats_base", {**checkpoint, "label_dict": other}, **fields)


def test_m2d_leaves_aside_what_is_not_its_encoder_and_completes_norm_stats():
    fields = dict(FAMILIES["m2d"], num_classes=0)
    _, variables = ready("m2d", num_classes=0)
    prefix = "model.m2d.backbone."
    names = {k.removeprefix(prefix): v for k, v in port.to_torch("m2d", variables).items()}
    del names["norm_stats"]
    extra = {
        "audio_proj.0.weight": np.ones((2, 2)),
        "text_proj.weight": np.ones((2, 2)),
        "decoder_embed.weight": np.ones((2, 2)),
        "decoder_pos_embed": np.ones((1, 2, 2)),
        "target_blocks.0.norm1.weight": np.ones(2),
        "mask_token": np.ones(2),
        "logit_scale": np.ones(()),
    }
    match = port.match("m2d", "m2d_base", {"model": {**names, **extra}}, **fields)
    assert len(match.skipped) == len(extra)
    np.testing.assert_allclose(np.asarray(match.arrays["params/norm_stats"]), (-7.1, 4.2))
    _, other = ready("m2d", num_classes=0, input_frames=64, patch=(16, 4))
    sizes = {k.removeprefix(prefix): v for k, v in port.to_torch("m2d", other).items()}
    found = m2d.torch_fields(sizes)
    assert found == dict(num_classes=0, patch=(16, 4), input_frames=64)


def test_asits_teacher_is_taken_from_a_pre_trainings_checkpoint():
    _, variables = ready("asit", num_classes=0)
    names = {
        "backbone." + k.removeprefix("model.asit."): v
        for k, v in port.to_torch("asit", variables).items()
    }
    heads = {"head_cls.mlp.0.weight": np.ones((2, 2)), "head_recons.convTrans.bias": np.ones(1)}
    student = {f"module.{k}": v + 1 for k, v in names.items()}
    checkpoint = {"student": student, "teacher": {**names, **heads}, "epoch": 3}
    _, back = port.from_torch("asit", "asit_base", checkpoint, **FAMILIES["asit"], num_classes=0)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_fpasst_starts_from_a_deit_as_the_authors_do(golden):
    manifest, want = golden("sed_fpasst_from_deit")
    shapes = models.abstract(models.build("fpasst", "fpasst_base", depth=1, num_classes=0))
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), shapes)
    own = port.to_torch("fpasst", zeros)
    salt = manifest["salt"]
    deit = {
        "pos_embed": rule.array("deit/pos_embed", [1, 578, 768], salt=salt),
        "patch_embed.proj.weight": rule.array("deit/patch", [768, 3, 16, 16], salt=salt),
        "blocks.0.norm1.weight": np.full(768, 7, np.float32),
        "head.weight": np.zeros((1000, 768)),
    }
    start = fpasst.rename_from_imagenet(own, deit)
    full = {k.removeprefix("model.fpasst."): v for k, v in start.items()}
    found = {
        "patch_embed.proj.weight": full["patch_embed.proj.weight"][::96, :, ::8],
        "time_new_pos_embed": full["time_new_pos_embed"][:, ::16],
        **{k: full[k] for k in ("new_pos_embed", "freq_new_pos_embed")},
    }
    assert set(found) == set(want)
    for name, array in want.items():
        error = np.linalg.norm(found[name] - array) / np.linalg.norm(array)
        assert error < 1e-6, name
    assert set(start) == set(own)
    _, variables = port.from_torch("fpasst", "fpasst_base", start, depth=1, num_classes=0)
    assert (variables["params"]["encoder"]["blocks"]["norm1"]["scale"] == 7).all()
    for wrong, message in (
        ({"pos_embed": np.zeros((1, 198, 768))}, "patch_embed.proj.weight must be"),
        ({**deit, "pos_embed": np.zeros((1, 577, 768))}, "pos_embed must be .1, 2 . a square"),
        ({**deit, "pos_embed": np.zeros((1, 578, 384))}, "pos_embed must be"),
    ):
        with pytest.raises(AsjaxError, match=message):
            fpasst.rename_from_imagenet(own, wrong)


def test_frame_mobilenet_starts_from_efficientats_image_model():
    _, variables = ready("frame_mn")
    own = port.to_torch("frame_mn", variables)
    image = {
        k.removeprefix("model.frame_mn."): v + 1 for k, v in own.items() if "features" in k
    } | {"classifier.5.bias": np.zeros(527)}
    start = frame_mn.rename_from_imagenet(own, image)
    assert set(start) == set(own)
    changed = {k for k in own if not np.array_equal(start[k], own[k])}
    assert changed == {k for k in own if "features" in k}


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("atst_frame", dict(n_mels=32), r"patch=(64, 4) must fit into n_mels=32"),
        (
            "m2d",
            dict(input_frames=10),
            r"patch=(16, 16) must fit into n_mels=80 and input_frames=10",
        ),
        ("fpasst", dict(n_mels=30), "n_mels must be a multiple of 4"),
        ("asit", dict(positions=9), "at least 16 mel bins and frames"),
        ("beats", dict(n_mels=9), "n_mels must be at least 16, got 9"),
        ("beats", dict(heads=7), "must be a multiple of heads=7"),
    ],
)
def test_wrong_sizes_are_one_line(family, fields, message):
    with pytest.raises(AsjaxError) as caught:
        models.build(family, variant(family), **fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)

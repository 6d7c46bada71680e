"""The frame detector against PretrainedSED's wrapper; lengths, masks, names, wrong fields."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rule

from asjax import build, models
from asjax.config import AsjaxError
from asjax.nn import frames, mobile, pooling
from asjax.weights import port

# tagger families, the smallest variant of each
TAGGERS = {
    "talnet": "crnn_mini",
    "conformer": "conformer_mini",
    "cnn": "mini",
    "efficientnet": "effnet_b0",
    "ced": "ced_tiny",
}
SMALL = dict(num_classes=5, frames=20, sequence_width=16, sequence_depth=1)
KEY = jax.random.key(0)


def _relative(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


# ----------------------------------------------------------------------------------- parity


def test_resampling_equals_the_authors(golden):
    manifest, want = golden("sed_resample")
    assert len(want) == 12
    for name, array in want.items():
        tokens = int(name[1:])
        x = rule.array(f"resample{tokens}", [2, tokens, 5], salt=manifest["salt"])[:1, :, :3]
        assert _relative(frames.resample(x, 250), array) < 5e-7, name


def _head_case(name, case, salt):
    """(Detector, its variables, tokens) of a case of sed_heads."""
    args = case["args"]
    kind = {None: None, "rnn": "gru"}[args.get("seq_model_type")]
    detector = frames.Detector(
        num_classes=args["n_classes_strong"],
        weak_classes=args.get("n_classes_weak"),
        frames=args.get("seq_len", 250),
        sequence="lstm" if args.get("rnn_type") == "BiLSTM" else kind,
        sequence_width=args.get("rnn_dim", 2048),
        sequence_depth=args.get("rnn_layers", 2),
        head=args.get("head_type", "linear"),
    )
    given = {
        key.removeprefix(f"{name}/"): rule.param(key, shape, dtype, salt=salt)
        for key, shape, dtype in case["state_dict"]
    }
    shape = json.loads(re.search(r"\[[\d,]+\]", case["input"])[0])
    tokens = rule.array(f"x_{name}", shape, salt=salt)
    shapes = jax.eval_shape(lambda x: detector.init(KEY, x), tokens)
    file = type("File", (), dict(TORCH=frames.TORCH, TORCH_SKIP=()))
    inside = {"params": {"detector": shapes["params"]}}
    placed = port.place(file, given, inside)
    assert not placed.trouble
    params = {}
    for path, array in placed.found.items():
        *folders, leaf = path.split("/")[2:]
        at = params
        for folder in folders:
            at = at.setdefault(folder, {})
        at[leaf] = array
    return detector, {"params": params}, tokens


def test_every_head_and_sequence_equals_the_authors(golden):
    manifest, want = golden("sed_heads")
    for name, case in manifest["cases"].items():
        detector, variables, tokens = _head_case(name, case, manifest["salt"])
        with jax.default_matmul_precision("highest"):
            out = jax.jit(detector.apply)(variables, tokens)
        strong, weak = np.asarray(out["frame_logits"], np.float64), out["logits"]
        assert [len(strong), *strong.shape[:0:-1]] == case["strong_shape"]
        if detector.head == "attention":  # the reference returns probabilities
            strong = 1 / (1 + np.exp(-strong))
            weak = 1 / (1 + np.exp(-np.asarray(weak, np.float64)))
        strong = strong.swapaxes(1, 2)[:, :, ::3]
        assert _relative(strong, want[f"{name}/strong"]) < 3e-6, name
        assert _relative(weak, want[f"{name}/weak"]) < 3e-6, name
    assert {"bilstm2_S250", "bigru3_attention_S250"} <= set(manifest["cases"])


# ------------------------------------------------------------------------------------ masks


@pytest.mark.parametrize(("rate", "frame", "total"), [(160, 0, 1001), (160, 400, 998)])
def test_a_clip_of_s_seconds_has_25_s_outputs_rounded_up(rate, frame, total):
    for seconds in (0.1, 1, 3.99, 4, 4.5, 9.96, 10):
        samples = round(seconds * 16000)
        length = 1 + (samples - frame) // rate  # centred frames, and frames inside the wave
        mask = frames.frame_mask(jnp.arange(total)[None] < length, 250)
        assert abs(int(mask.sum()) - np.ceil(round(25 * seconds, 6))) <= (frame > 0), seconds
    exact = [
        int(frames.frame_mask(jnp.arange(1001)[None] < 1 + s * 100, 250).sum()) for s in (1, 4, 10)
    ]
    assert exact == [25, 100, 250]
    assert int(frames.frame_mask(jnp.zeros((1, 9)), 5).sum()) == 1  # a row of padding


@pytest.mark.parametrize("sequence", frames.SEQUENCES)
@pytest.mark.parametrize("head", frames.HEADS)
def test_what_lies_beyond_a_clips_end_has_no_influence(sequence, head):
    detector = frames.Detector(
        4, frames=30, sequence=sequence, sequence_width=8, sequence_depth=1, head=head
    )
    tokens = jax.random.normal(KEY, (2, 60, 6))
    mask = jnp.arange(100)[None] < jnp.array([[100], [40]])
    variables = detector.init(KEY, tokens)
    run = jax.jit(detector.apply)
    out, other = run(variables, tokens, mask), run(variables, tokens.at[1, 30:].add(3), mask)
    for key in ("logits", "embedding"):
        np.testing.assert_allclose(out[key], other[key], rtol=1e-5, atol=1e-5)
    count = int(frames.frame_mask(mask, 30)[1].sum())
    assert count == 12
    np.testing.assert_allclose(
        out["frame_logits"][1, :count], other["frame_logits"][1, :count], rtol=1e-5, atol=1e-5
    )
    alone = run(variables, tokens[1:], mask[1:])  # a padded batch equals single clips
    for key in out:
        np.testing.assert_allclose(out[key][1], alone[key][0], rtol=1e-5, atol=1e-5)
    if sequence is None and head == "linear":
        weak = variables["params"]["weak_head"]
        want = frames.resample(tokens, 30)[1, :count].mean(0) @ weak["kernel"] + weak["bias"]
        np.testing.assert_allclose(out["logits"][1], want, rtol=1e-5, atol=1e-5)


def test_the_mean_head_is_a_clip_head_shown_every_frame():
    detector = frames.Detector(4, frames=None, head="mean")
    tokens = jax.random.normal(KEY, (2, 9, 6))
    variables = detector.init(KEY, tokens)
    assert set(variables["params"]) == {"weak_head"}
    out = detector.apply(variables, tokens)
    assert out["frame_logits"].shape == (2, 9, 4)
    np.testing.assert_allclose(out["logits"], out["frame_logits"].mean(1), atol=1e-6)


def test_attention_weighs_frames_as_a_softmax_over_classes_says():
    detector = frames.Detector(3, frames=5, head="attention")
    tokens = jax.random.normal(KEY, (1, 5, 6))
    variables = detector.init(KEY, tokens)
    out = detector.apply(variables, tokens)
    weak = variables["params"]["weak_head"]
    attention = jax.nn.softmax(tokens @ weak["kernel"] + weak["bias"][None, None], -1)
    prob = jax.nn.sigmoid(out["frame_logits"])
    want = (prob * attention).sum(1) / attention.sum(1)
    np.testing.assert_allclose(out["logits"], pooling.logit(want), rtol=1e-4)


# --------------------------------------------------------------------------------- families


@pytest.mark.parametrize("family", TAGGERS)
def test_a_field_turns_the_detector_on_in_any_family(family):
    plain = models.build(family, TAGGERS[family], num_classes=5)
    assert plain.frames is None
    feats = jax.ShapeDtypeStruct((2, 101, plain.n_mels), jnp.float32)
    mask = jax.ShapeDtypeStruct((2, 101), jnp.bool_)
    for sequence in frames.SEQUENCES:
        module = models.build(family, TAGGERS[family], **SMALL, sequence=sequence)
        run = lambda x, m, module=module: module.init_with_output(KEY, x, mask=m)  # noqa: E731
        out, variables = jax.eval_shape(run, feats, mask)
        assert out["frame_logits"].shape == (2, 20, 5)
        assert out["logits"].shape == (2, 5)
        assert out["frame_embedding"].ndim == 3
        assert "detector" in variables["params"]
        assert "head" not in variables["params"]
        zeros = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), variables)
        names = port.to_torch(family, zeros)
        match = port.match(family, TAGGERS[family], names, **SMALL, sequence=sequence)
        assert set(match.matched) == set(names)


def seldom(*names):
    """Every tagger family; the named ones, which compile long, only in the long run."""
    marks = {name: [pytest.mark.slow] * (name in names) for name in TAGGERS}
    return pytest.mark.parametrize("family", [pytest.param(n, marks=marks[n]) for n in TAGGERS])


@seldom("efficientnet", "ced", "conformer", "talnet")
def test_a_family_with_the_detector_learns_a_step_and_its_weights_go_out_and_in(family):
    module = models.build(family, TAGGERS[family], **SMALL, sequence="gru")
    feats = jax.random.normal(KEY, (2, 33, module.n_mels))
    target = jnp.zeros((2, 20, 5)).at[:, 5:9, 2].set(1)
    variables = jax.jit(module.init)(KEY, feats)
    stats = {k: v for k, v in variables.items() if k != "params"}

    @jax.jit
    def step(params):
        def loss(params):
            out, _ = module.apply(
                {"params": params, **stats}, feats, train=True, rngs={"dropout": KEY},
                mutable=list(stats),
            )  # fmt: skip
            bce = optax.sigmoid_binary_cross_entropy
            return (
                bce(out["frame_logits"], target).mean() + bce(out["logits"], target.max(1)).mean()
            )

        value, grads = jax.value_and_grad(loss)(params)
        return value, jax.tree.map(lambda p, g: p - 0.01 * g, params, grads)

    first, params = step(variables["params"])
    second, _ = step(params)
    assert second < first
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), params, variables["params"])
    assert all(jax.tree.leaves(moved["detector"]))
    trained = {"params": params, **stats}
    names = port.to_torch(family, trained)
    same, back = port.from_torch(family, TAGGERS[family], names, **SMALL, sequence="gru")
    assert same == module
    jax.tree.map(np.testing.assert_array_equal, back, trained)


def test_a_talnet_with_a_detector_keeps_padding_out():
    module = models.build("talnet", "crnn_mini", **SMALL, sequence="gru", convs=5, width=64)
    feats = jax.random.normal(KEY, (2, 48, 64))
    mask = jnp.arange(48)[None] < jnp.array([[48], [24]])
    variables = module.init(KEY, feats)
    out = module.apply(variables, feats, mask=mask)
    other = module.apply(variables, feats.at[1, 24:].add(1), mask=mask)
    np.testing.assert_allclose(out["logits"], other["logits"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["talnet", "beats", "cnn", "frame_mn"])
def test_a_command_line_may_set_every_field_of_the_detector(name):
    known = build.fields("model", name)
    wanted = {"frames", "sequence", "sequence_width", "sequence_depth", "head", "weak_classes"}
    assert wanted <= set(known)
    assert known["sequence_width"] == 2048
    assert known["frames"] == (250 if name in ("beats", "frame_mn") else None)


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("cnn", dict(sequence="gru"), "sequence='gru' needs a detector; give frames"),
        ("ced", dict(head="attention"), "head='attention' needs a detector"),
        ("beats", dict(sequence="gur"), "BEATs sequence 'gur' does not exist; did you mean 'gru'"),
        ("beats", dict(head="lin"), "BEATs head 'lin' does not exist"),
        ("beats", dict(frames=0), "BEATs frames must be a whole number from 1 on, got 0"),
        ("beats", dict(frames=25.0), "BEATs frames must be a whole number"),
        ("beats", dict(num_classes=-1), "BEATs num_classes must be a whole number from 0 on"),
        ("beats", dict(sequence_depth=True), "BEATs sequence_depth must be a whole number"),
        ("beats", dict(weak_classes=3, head="attention"), "weak_classes needs head='linear'"),
        ("beats", dict(sequences="gru"), "did you mean 'sequence'"),
    ],
)
def test_fields_that_make_no_sense_are_one_line(family, fields, message):
    variant = TAGGERS.get(family, f"{family}_base")
    with pytest.raises(AsjaxError) as caught:
        models.build(family, variant, **fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tagger_without_a_detector_takes_no_mask():
    module = models.build("cnn", "mini")
    with pytest.raises(AsjaxError, match="CNN takes a mask of frames only with a detector"):
        jax.eval_shape(lambda: module.init(KEY, jnp.zeros((1, 32, 64)), mask=jnp.ones((1, 32))))


# ---------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("sequence", frames.SEQUENCES)
def test_the_shapes_of_weights_tell_the_detector(sequence):
    fields = dict(sequence=sequence, sequence_width=16, sequence_depth=3, weak_classes=4)
    module = models.build("frame_mn", "frame_mn06", num_classes=6, **fields)
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), models.abstract(module))
    found = frames.torch_fields(port.to_torch("frame_mn", zeros))
    want = dict(num_classes=6, weak_classes=4, frames=250)
    assert found == (want | fields if sequence else want)


def test_every_form_of_a_name_is_the_modules():
    forms = ("model.beats.a.b", "model.model.a.b", "model.a.b", "beats.a.b", "a.b")
    for form in forms:
        assert frames.renamed({form: 1, "strong_head.bias": 2}, "beats") == {
            "model.beats.a.b": 1,
            "strong_head.bias": 2,
        }


def test_a_start_takes_the_head_only_where_all_of_it_fits():
    own = {"model.x.w": np.zeros(2), "strong_head.weight": np.zeros((3, 2))}
    given = {"model.x.w": np.ones(2), "strong_head.weight": np.ones((3, 2))}
    assert frames.started(own, given) == given
    other = {**given, "strong_head.weight": np.ones((4, 2))}
    started = frames.started(own, other)
    assert started["model.x.w"].all()
    assert not started["strong_head.weight"].any()
    rnn = {**own, "seq_model.rnn.weight_hh_l0": np.zeros((3, 1))}
    assert not frames.started(rnn, given)["strong_head.weight"].any()


# --------------------------------------------------------------- a block of two other families


def test_a_mobile_bottleneck_is_residual_only_at_stride_one_and_equal_width():
    """The branch equals the output minus the input."""
    x = jax.random.normal(KEY, (1, 6, 6, 8))
    for width, strides, residual in ((8, (1, 1), True), (8, (2, 1), False), (16, (1, 1), False)):
        block = mobile.Bottleneck(3, 24, width, False, "relu", strides)
        variables = block.init(KEY, x, False)
        silent = jax.tree.map(jnp.array, variables)
        silent["params"]["bn2"] = jax.tree.map(jnp.zeros_like, silent["params"]["bn2"])
        out = block.apply(silent, x, False)
        assert out.shape == (1, 6 // strides[0], 6, width)
        np.testing.assert_allclose(out, x if residual else np.zeros_like(out), atol=1e-6)

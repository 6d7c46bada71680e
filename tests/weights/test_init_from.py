"""Starting weights of a new run: another run, an image model's file, a published tagger's file."""

import functools
import inspect
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from asjax import build, config, labels, models, step
from asjax.config import AsjaxError
from asjax.labels import LabelSet
from asjax.store import model_dir
from asjax.weights import port
from asjax.weights import start as init_from

AST = dict(
    name="ast", variant="tiny224", width=32, heads=2, depth=1, n_mels=32, frames=48, stride=16
)
CNN = dict(name="cnn", variant="mini", channels=(2, 2, 2, 2), width=4, n_mels=32)


def fresh(spec, frames=48, n_mels=32, average=True, classes=5):
    """(state, module, spec with classes) of a model with input [B, frames, n_mels]."""
    spec = {**spec, "num_classes": classes}
    name, fields = config.split_spec(spec)
    module = models.build(name, **fields)
    tx, _ = build.make("optim", dict(name="adam", lr=1e-3), total_steps=2)
    create = functools.partial(
        step.init_state,
        model=module,
        frontend=lambda wave: wave.reshape(wave.shape[0], frames, n_mels),
        tx=tx,
        wave_shape=(1, frames * n_mels),
        average=average,
    )
    return jax.jit(create)(jax.random.key(0)), module, spec


@pytest.fixture
def files(monkeypatch):
    """Name -> weights of files that `asjax.weights.locate.read_weights` must find."""
    known = {}

    def read_weights(path, family=None):
        if path not in known:
            raise AsjaxError(f"weights {path} do not exist")
        return known[path]

    monkeypatch.setitem(
        sys.modules, "asjax.weights.locate", types.SimpleNamespace(read_weights=read_weights)
    )
    return known


def deit(width=32, side=3, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {
        "cls_token": (1, 1, width),
        "dist_token": (1, 1, width),
        "pos_embed": (1, 2 + side**2, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (1000, width),
        "head.bias": (1000,),
        "blocks.0.attn.qkv.weight": (3 * width, width),
        "blocks.0.attn.qkv.bias": (3 * width,),
        "blocks.0.attn.proj.weight": (width, width),
        "blocks.0.attn.proj.bias": (width,),
        "blocks.0.mlp.fc1.weight": (4 * width, width),
        "blocks.0.mlp.fc1.bias": (4 * width,),
        "blocks.0.mlp.fc2.weight": (width, 4 * width),
        "blocks.0.mlp.fc2.bias": (width,),
    }
    for norm in ("norm1", "norm2"):
        shapes |= {f"blocks.0.{norm}.{leaf}": (width,) for leaf in ("weight", "bias")}
    return {k: rng.normal(size=v).astype(np.float32) for k, v in shapes.items()}


def flat(tree):
    return {"/".join(k): np.asarray(v) for k, v in flatten_dict(tree).items()}


def test_ast_starts_from_a_file_of_deit_and_keeps_its_fresh_head(files, capsys):
    files["deit.pth"] = weights = deit()
    state, module, spec = fresh(AST)
    before = flat(state.params)
    state = init_from.start(state, "imagenet:deit.pth", model=module, spec=spec)
    after = flat(state.params)
    np.testing.assert_array_equal(
        after["patches/kernel"][..., 0, :],
        weights["patch_embed.proj.weight"].sum(1).transpose(1, 2, 0),
    )
    for name in before:
        assert np.array_equal(before[name], after[name]) == name.startswith("head"), name
    out = capsys.readouterr().out
    assert "init_from imagenet:deit.pth: " in out
    assert "new: head/bias, head/kernel, head_norm/bias, head_norm/scale" in out
    average = flat(state.average["params"])  # the average also begins with the starting weights
    np.testing.assert_array_equal(average["patches/kernel"], after["patches/kernel"])
    assert state.params["head"]["kernel"] is not state.average["params"]["head"]["kernel"]


def test_ast_starts_from_a_tagger_with_the_same_classes_head_and_all(files):
    state, module, spec = fresh(AST)
    other = jax.tree.map(lambda x: x + 1, state.params)
    files["ast.pth"] = port.to_torch("ast", {"params": other})
    state = init_from.start(state, "audioset:ast.pth", model=module, spec=spec)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), other)


BEATS = dict(
    name="beats", variant="beats_base", width=32, heads=2, depth=1, n_mels=32, patch_width=16,
    position_taps=8, position_groups=2, frames=10,
)  # fmt: skip


@pytest.mark.parametrize(
    ("classes", "sequence", "head"), [(5, None, True), (7, None, False), (5, "gru", False)]
)
def test_a_detector_starts_from_a_backbone_and_its_head_where_that_fits(
    files, classes, sequence, head
):
    there = models.build(**{**BEATS, "num_classes": classes})
    given = there.init(jax.random.key(9), jnp.ones((1, 48, 32)))
    files["beats.pt"] = {
        k.replace("model.beats.", "model.model."): v
        for k, v in port.to_torch("beats", given).items()
    }
    state, module, spec = fresh({**BEATS, "sequence": sequence, "sequence_width": 4})
    before = flat(state.params)
    state = init_from.start(state, "backbone:beats.pt", model=module, spec=spec)
    after, want = flat(state.params), flat(given["params"])
    for name, array in after.items():
        if head or not name.startswith("detector"):
            np.testing.assert_array_equal(array, want[name])
        else:
            np.testing.assert_array_equal(array, before[name])


def test_a_family_may_map_torch_names_and_starts_with_its_statistics(files, monkeypatch):
    """Like MobileNets and EfficientNets; `own` are the names of a new model."""
    start = lambda own, weights: {**own, **weights}  # noqa: E731
    monkeypatch.setattr(models.family("cnn"), "rename_from_imagenet", start, raising=False)
    state, module, spec = fresh(CNN)
    own = port.to_torch("cnn", {"params": state.params, **state.stats})
    files["cnn.pth"] = {k: v + 1 for k, v in own.items() if not k.startswith("fc_audioset")}
    state = init_from.start(state, "imagenet:cnn.pth", model=module, spec=spec)
    after = port.to_torch("cnn", {"params": state.params, **state.stats})
    for name, value in own.items():
        moved = 1.0 if name in files["cnn.pth"] else 0.0
        np.testing.assert_allclose(after[name], value + moved, rtol=1e-6, err_msg=name)
    assert any("running_mean" in name for name in files["cnn.pth"])


@pytest.mark.parametrize("source", init_from.SOURCES)
def test_every_familys_start_takes_what_it_is_given_here(source):
    starts = {f: init_from._starts(f, source) for f in models.families()}
    assert any(map(any, starts.values()))
    for family, (init, rename) in starts.items():
        assert not (init and rename), family
        if init:
            assert [*inspect.signature(init).parameters][:3] == ["module", "variables", "weights"]
        if rename:
            assert [*inspect.signature(rename).parameters] == ["own", "weights"]


def labelled(*ids, **mids):
    return LabelSet("own", ids, ids, tuple((mids[i],) if i in mids else () for i in ids))


def stored(folder, label_set, **changes):
    """A model folder of the small CNN in which every number is the index of its class, or 7."""
    spec = {**CNN, "num_classes": len(label_set)}
    module = models.build(**spec)
    variables = jax.tree.map(lambda x: np.full(x.shape, 7, np.float32), models.abstract(module))
    rows = np.arange(len(label_set), dtype=np.float32)
    head = variables["params"]["head"]
    head["kernel"], head["bias"] = head["kernel"] * 0 + rows, rows
    cfg = dict(CONFIG, **changes, model=spec)
    model_dir.save_model(folder, config=cfg, label_set=label_set, variables=variables, record={})
    return str(folder)


CONFIG = dict(
    frontend=dict(name="panns_logmel64_16k", n_mels=32),
    data=dict(sample_rate=16_000, clip_s=2.0),
)


@pytest.mark.parametrize(
    ("theirs", "ours", "rows", "fresh_names"),
    [
        ("high low", "cat dog", {}, "2 start at random: cat, dog"),  # the same number of classes
        ("a b c d e", "e d c b a", {0: 4, 1: 3, 2: 2, 3: 1, 4: 0}, "0 start at random"),
        ("a b c", "x b y a z", {1: 1, 3: 0}, "3 start at random: x, y, z"),
        ("a b c d e f g", "g x a b y", {0: 6, 2: 0, 3: 1}, "2 start at random: x, y"),
    ],
)
def test_the_rows_of_a_head_follow_their_classes(theirs, ours, rows, fresh_names, tmp_path, capsys):
    theirs, ours = labelled(*theirs.split()), labelled(*ours.split())
    state, module, spec = fresh(CNN, classes=len(ours))
    before = flat(state.params)
    place = stored(tmp_path / "m", theirs)
    state = init_from.start(state, place, model=module, spec=spec, label_set=ours)
    after = flat(state.params)
    for i in range(len(ours)):
        for leaf in ("head/kernel", "head/bias"):
            want = rows.get(i, before[leaf][..., i])
            assert (after[leaf][..., i] == want).all(), (ours.ids[i], leaf)
    assert (after["block1/conv1/kernel"] == 7).all()
    out = capsys.readouterr().out
    counted = f"head: {len(rows)} of {len(ours)} classes take their rows from its {len(theirs)}"
    assert counted in out
    assert fresh_names in out
    assert ("new: head/bias, head/kernel" in out) == (not rows)
    average = flat(state.average["params"])
    np.testing.assert_array_equal(average["head/kernel"], after["head/kernel"])


def test_classes_that_share_a_mid_are_the_same_class(tmp_path, capsys):
    theirs = LabelSet("mids", ("/m/1", "/m/2"), ("One", "Two"))
    ours = labelled("eins", "drei", eins="/m/1")
    state, module, spec = fresh(CNN, classes=2)
    place = stored(tmp_path / "m", theirs)
    state = init_from.start(state, place, model=module, spec=spec, label_set=ours)
    assert float(state.params["head"]["bias"][0]) == 0
    assert "head: 1 of 2 classes take their rows from its 2" in capsys.readouterr().out


def test_the_same_classes_take_the_head_as_it_is_and_say_nothing_of_it(tmp_path, capsys):
    theirs = labelled("a", "b")
    state, module, spec = fresh(CNN, classes=2)
    place = stored(tmp_path / "m", theirs)
    state = init_from.start(state, place, model=module, spec=spec, label_set=theirs)
    assert state.params["head"]["bias"].tolist() == [0, 1]
    out = capsys.readouterr().out
    assert "head:" not in out
    assert "new: none" in out


def test_a_published_tagger_gives_the_rows_of_the_classes_that_are_audioset_s(files, capsys):
    audioset = labels.get("audioset527")
    ours = LabelSet("two", (audioset.ids[70], "mine", audioset.ids[3]), ("x", "mine", "y"))
    wide, module, _ = fresh(AST, classes=527)
    other = jax.tree.map(lambda x: x + 1, wide.params)
    files["ast.pth"] = port.to_torch("ast", {"params": other})
    state, module, spec = fresh(AST, classes=3)
    before = np.asarray(state.params["head"]["kernel"])
    state = init_from.start(state, "audioset:ast.pth", model=module, spec=spec, label_set=ours)
    got, there = (np.asarray(tree["head"]["kernel"]) for tree in (state.params, other))
    np.testing.assert_array_equal(got[:, [0, 2]], there[:, [70, 3]])
    np.testing.assert_array_equal(got[:, 1], before[:, 1])
    np.testing.assert_array_equal(state.params["norm"]["scale"], other["norm"]["scale"])
    assert "head: 2 of 3 classes take their rows from its 527" in capsys.readouterr().out


def test_each_thing_that_is_heard_otherwise_is_named(tmp_path, capsys):
    theirs = labelled("a", "b")
    state, module, spec = fresh(CNN, classes=2)
    place = stored(tmp_path / "m", theirs)
    cfg = {
        "frontend": dict(name="panns_logmel64_16k", n_mels=32, fmin=20),
        "data": dict(sample_rate=32_000, clip_s=5.0),
    }
    init_from.start(state, place, model=module, spec=spec, label_set=theirs, cfg=cfg)
    out = capsys.readouterr().out
    for line in ("clip_s: 2.0 there, 5.0 here", "sample_rate: 16000 there, 32000 here"):
        assert f"WARNING: it was trained on other features: {line}" in out
    assert "frontend.fmin: 50.0 there, 20.0 here" in out
    assert "frontend.n_mels" not in out
    init_from.start(state, place, model=module, spec=spec, label_set=theirs, cfg=CONFIG)
    assert "WARNING" not in capsys.readouterr().out


def test_every_wrong_start_is_one_line(files, tmp_path):
    state, module, spec = fresh(AST, average=False)
    files["half.pth"] = {k: v for k, v in deit().items() if "mlp" not in k}
    for given, says in [
        ("imagenet:gone.pth", "weights gone.pth do not exist"),
        ("imagenet:", "needs a file, as imagenet:FILE"),
        ("imagenet:half.pth", "missing.*mlp"),
        (str(tmp_path / "none"), "or give a file as imagenet:FILE, audioset:FILE"),
    ]:
        with pytest.raises(AsjaxError, match=says):
            init_from.start(state, given, model=module, spec=spec)
    with pytest.raises(
        AsjaxError, match="cnn cannot start from imagenet; these families can: .*ast"
    ):
        init_from.start(state, "imagenet:x.pth", model=None, spec=CNN)
    assert init_from.start(state, "", model=module, spec=spec) is state


def test_a_real_file_is_read_and_a_missing_one_named(tmp_path):
    from safetensors.numpy import save_file

    weights, (state, module, spec) = deit(), fresh(AST)
    save_file(weights, tmp_path / "deit.safetensors")
    file = f"imagenet:{tmp_path / 'deit.safetensors'}"
    state = init_from.start(state, file, model=module, spec=spec)
    np.testing.assert_array_equal(state.params["norm"]["scale"], weights["norm.weight"])
    with pytest.raises(AsjaxError, match="init_from imagenet:.*does not exist") as error:
        init_from.start(state, f"imagenet:{tmp_path / 'gone.pth'}", model=module, spec=spec)
    assert "\n" not in str(error.value)


def test_placement_is_kept(files):
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    files["deit.pth"] = deit()
    state, module, spec = fresh(AST)
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",), axis_types=(AxisType.Auto,))
    wide = NamedSharding(mesh, PartitionSpec(None, "data"))
    qkv = state.params["encoder"]["blocks"]["mlp"]["fc1"]
    qkv["bias"] = jax.device_put(jnp.asarray(qkv["bias"]), wide)
    state = init_from.start(state, "imagenet:deit.pth", model=module, spec=spec)
    assert state.params["encoder"]["blocks"]["mlp"]["fc1"]["bias"].sharding == wide

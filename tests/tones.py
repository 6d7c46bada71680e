"""A model with a rule, as a tagger and as ONNX: each class is a tone, and a frame is 0.1 s.

frame_logits: GAIN (log of the tone's power in the frame - log FLOOR). logits: those of the mean
power in the window. embedding: the logarithms of the mean powers.
"""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from asjax import predict
from asjax.labels import LabelSet

RATE, CLIP_S, FRAMES = 16_000, 2.0, 20
SIZE = round(RATE * CLIP_S)
PER = SIZE // FRAMES  # samples of a frame
HZ = (300, 700, 1500, 2600, 4100)
GAIN, FLOOR, EPS = 1.5, 1e-3, 1e-9
LABELS = LabelSet(
    "tones",
    tuple(f"/t/{hz}" for hz in HZ),
    ("Hum", "Whistle, whistling", "Beep", "Alarm", "Cricket"),
)


def kernel() -> np.ndarray:
    """float32 [2 C, PER]: cosines, then sines, with a Hann window."""
    t = np.arange(PER) / RATE
    hann = np.hanning(PER) * 4 / PER
    waves = [f(2 * np.pi * hz * t) * hann for f in (np.cos, np.sin) for hz in HZ]
    return np.array(waves, np.float32)


def _apply(variables, feats, train):
    assert not train
    frames = feats.reshape(len(feats), FRAMES, PER)
    parts = jnp.einsum("btn,kn->btk", frames, variables["kernel"], precision="highest") ** 2
    power = parts[..., : len(HZ)] + parts[..., len(HZ) :]
    said = lambda p: GAIN * (jnp.log(p + EPS) - np.float32(np.log(FLOOR)))  # noqa: E731
    mean = power.mean(axis=1)
    return {"frame_logits": said(power), "logits": said(mean), "embedding": jnp.log(mean + EPS)}


def tagger(frames: bool = True, **kw):
    def apply(variables, feats, train):
        out = _apply(variables, feats, train)
        return out if frames else {k: v for k, v in out.items() if k != "frame_logits"}

    kw = {"sample_rate": RATE, "clip_s": CLIP_S, "batch_size": 4, **kw}
    model = SimpleNamespace(apply=apply)
    return predict.Tagger(model, {"kernel": kernel()}, lambda wave: wave, LABELS, **kw)


def onnx(path, frames: bool = True) -> None:
    """The same model as a file: wave [b, s] -> logits, embedding and frame_logits."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    weights = {
        "kernel": kernel()[:, None],
        "one": np.array([1], np.int64),
        "halves": np.array([len(HZ), len(HZ)], np.int64),
        "eps": np.float32(EPS),
        "gain": np.float32(GAIN),
        "bias": np.float32(-GAIN * np.log(FLOOR)),
    }
    node = helper.make_node
    nodes = [
        node("Unsqueeze", ["wave", "one"], ["w"]),
        node("Conv", ["w", "kernel"], ["parts"], strides=[PER]),
        node("Mul", ["parts", "parts"], ["squares"]),
        node("Split", ["squares", "halves"], ["c", "s"], axis=1),
        node("Add", ["c", "s"], ["power"]),
        node("ReduceMean", ["power", "last"], ["mean"], keepdims=0),
    ]
    weights["last"] = np.array([2], np.int64)
    outputs = {"logits": ["b", len(HZ)], "embedding": ["b", len(HZ)]}
    said = [("mean", "logits", "embedding")]
    if frames:
        outputs["frame_logits"] = ["b", "t", len(HZ)]
        nodes.append(node("Transpose", ["power"], ["by_time"], perm=[0, 2, 1]))
        said.append(("by_time", "frame_logits", "by_time_log"))
    for power, logits, log in said:
        nodes += [
            node("Add", [power, "eps"], [f"{power}_eps"]),
            node("Log", [f"{power}_eps"], [log]),
            node("Mul", [log, "gain"], [f"{power}_gain"]),
            node("Add", [f"{power}_gain", "bias"], [logits]),
        ]
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    graph = helper.make_graph(
        nodes,
        "tones",
        [value("wave", ["b", "s"])],
        [value(name, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    save(model, path)


def sounds(seconds: float, *tones, level=0.3, seed=0) -> np.ndarray:
    """Quiet noise with (onset_s, offset_s, index of the class) in it."""
    t = np.arange(round(seconds * RATE)) / RATE
    wave = 1e-3 * np.random.default_rng(seed).normal(size=len(t))
    for onset, offset, index in tones:
        wave += level * np.sin(2 * np.pi * HZ[index] * t) * ((t >= onset) & (t < offset))
    return wave.astype(np.float32)

"""Common parts of the parity cases of PretrainedSED's models: `sed_NAME_backbone` etc."""

import re

import jax
import numpy as np
import parity_table
import rule

from asjax import frontends, models
from asjax.nn import frames

# "array/..." is held to 3e-6. What begins with a waveform has the noise of two float32 Fourier
# transforms in it, the reference's and ours (6e-6 each of the mel, in quiet bins). Means are of
# numbers that cancel: over the last axis to 0.003 where the numbers are near 1.
TOLERANCE = {f"wave/{name}": 1e-5 for name in ("embedding", "strong", "weak")} | {
    f"{kind}/{name}_mean_{axis}": limit
    for kind, limit in (("array", 1e-5), ("wave", 3e-5))
    for name in ("embedding", "strong")
    for axis in ("last", "mid")
}


def spec(case, manifest, family, variant=None):
    """(variant, fields) of a full-size case `sed_NAME_(backbone|wrapper|rnn)`, else None.

    NAME is the name of the family, or of the variant if `variant` is given.
    """
    name = variant or family
    hit = re.fullmatch(rf"sed_{name}_(backbone|wrapper|rnn)", case)
    if not hit:
        return None
    variant = variant or f"{family}_base"
    if hit[1] == "backbone":
        return variant, dict(num_classes=0)
    shapes = {key: shape for key, shape, _ in manifest["state_dict"]}
    fields = dict(num_classes=shapes["strong_head.weight"][0])
    if hit[1] == "rnn":
        width = int(re.search(r"rnn_dim=(\d+)", manifest["reference"]["class"])[1])
        fields |= dict(sequence="gru", sequence_width=width)
    return variant, fields


def arrays(manifest):
    """(name, feats [B, T, F]) of every input that a text describes as rule.array(name, shape)."""
    texts = {k: v["input"] for k, v in manifest["outputs"].items() if "input" in v}
    texts |= {k: v for k, v in manifest.get("input", {}).items() if k == "array"}
    for key, text in texts.items():
        name, shape = re.search(r"rule\.array\('(\w+)', ?\[([\d, ]+)\]", text).groups()
        shape = [int(size) for size in shape.split(",")]
        yield key, rule.array(name, shape, salt=manifest["salt"])[:, 0].swapaxes(1, 2)


def waveform(manifest):
    """[1, S], the waveform of a case."""
    name, seconds, rate = re.search(
        r"waveform\('(\w+)', ([\d.]+), (\d+)", manifest["input"]["wave"]
    ).groups()
    return rule.waveform(name, float(seconds), int(rate), salt=manifest["salt"])[None]


def run(manifest, module, variables, family, inner=None):
    """All outputs of a case; `inner(captured)` returns those inside the backbone."""
    apply = jax.jit(lambda v, x: module.apply(v, x, capture_intermediates=True))
    feats = dict(arrays(manifest))
    if "input" in manifest:
        file = models.family(family)
        frontend = frontends.build(**next(iter(file.FRONTENDS.values())))
        feats["wave"] = frontend(waveform(manifest))
    found = {}
    for key, x in feats.items():
        out, state = apply(variables, x)
        captured = parity_table.captured(state["intermediates"])
        out = {k: np.asarray(v) for k, v in out.items()}
        tokens = out["frame_embedding"]
        each = {**(inner(captured) if inner else {}), "embedding": tokens}
        if "logits" in out:
            each["resampled"] = frames.resample(tokens, module.frames)
            each["seq_model"] = captured.get("detector/seq_model")
            each["strong"] = out["frame_logits"].swapaxes(1, 2)
            each["weak"] = out["logits"]
        for name in ("embedding", "strong"):
            if name in each:
                each[f"{name}_mean_last"] = each[name].astype(np.float64).mean(-1)
                each[f"{name}_mean_mid"] = each[name].astype(np.float64).mean(-2)
        found |= {f"{key}/{name}": value for name, value in each.items()}
        found[key] = tokens  # the tiny cases have no other output
    return found

"""Parity cases of CED: waveforms of several lengths through the frontend and the network."""

import re

import jax
import numpy as np
import parity_table
from scipy.special import expit

from asjax import frontends, models

FAMILY = "ced"


def spec(case, manifest):
    """(variant, fields) of a case from the authors' constructor and shapes; None if another's."""
    reference = manifest.get("reference")
    name = reference.get("class", "") if isinstance(reference, dict) else ""
    hit = re.search(r"audiotransformer\.(ced_\w+)\(", name)
    if hit is None:
        return None
    pooling = re.search(r"pooling (\w+)", name)
    return hit[1], {"pooling": pooling[1]} if pooling else {}


def run(case, manifest, module, variables):
    """Per waveform: the mel (B, F, T) in dB, the final tokens, the probabilities."""
    frontend = frontends.build(**models.family(FAMILY).FRONTENDS["ced_tiny"])
    apply = jax.jit(lambda v, x: module.apply(v, x, capture_intermediates=True))
    found = {}
    for name, text in manifest["input"].items():
        wave, seconds, rate = re.search(r"waveform\('(.*?)', ([\d.]+), (\d+)", text).groups()
        wave = parity_table.rule.waveform(wave, float(seconds), int(rate), salt=manifest["salt"])
        feats = frontend(wave[None])
        out, state = apply(variables, feats)
        found[f"{name}/mel_db"] = np.asarray(feats).swapaxes(1, 2)
        found[f"{name}/tokens"] = parity_table.captured(state["intermediates"])["norm"]
        found[f"{name}/probs"] = expit(np.asarray(out["logits"], np.float64))
    return found

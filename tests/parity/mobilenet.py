"""Parity cases of EfficientAT's MobileNets: `sed_effat_mn10`, features from the waveform."""

import re

import numpy as np
import rule

from asjax import frontends, models

FAMILY = "mobilenet"
TOLERANCE = {"mel": 1e-4}  # logarithms of small powers: the reference's own error is 4e-6


def spec(case, manifest):
    """(variant, fields) of a case by the authors' constructor; None if it is another family's."""
    name = str(manifest["reference"].get("class", ""))
    hit = re.match(r"models\.mn\.model\.get_model\(.*width_mult=([\d.]+)", name)
    return (f"mn{round(10 * float(hit[1])):02d}", {}) if hit else None


def features(manifest):
    """[B, T, F] through the frontend, from the rule's waveform."""
    seconds, rate = re.search(
        r"'waveform', ([\d.]+), (\d+)", manifest["input"]["waveform"]
    ).groups()
    wave = rule.waveform("waveform", float(seconds), int(rate), salt=manifest["salt"])
    spec = models.family(FAMILY).FRONTENDS["mn10"]
    return frontends.build(**spec)(np.asarray(wave)[None])


def outputs(out, inner, feats):
    """The reference's names and layouts, (B, F, T) for the mel."""
    return {"mel": feats.transpose(0, 2, 1), "features": out["embedding"]}

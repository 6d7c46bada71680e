"""Write one of our models with the names and layout of its family's authors: `asjax export`.

    asjax export runs/passt/model --safetensors passt.safetensors

A ported checkpoint is restored bit for bit, including the entries that asjax does not use. For a
model that was trained here, we generate the extra entries of the authors' code where we know them:
batch counters, and the DFT and mel tables of PANNs and ConvNeXt.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np

from asjax import build
from asjax.config import AsjaxError, split_spec, to_plain
from asjax.store import files, model_dir


def export(directory, to, *, overwrite: bool = False) -> dict:
    """Write `to`, a safetensors file that the authors' code loads, from a model directory.

    Returns:
      A report: arrays (name -> array), made (names of the generated entries), missing (patterns of
      other names that the authors' code may have), family, variant, lost (pairs of a thing that the
      file cannot carry and the option of `asjax port` that restores it, or "").

    Raises:
      AsjaxError: there is no model, `to` exists, the model is the user's own code, or an array has
        no name in torch.
    """
    from asjax import models
    from asjax.weights import port

    to = Path(to)
    if to.exists() and not overwrite:
        raise AsjaxError(f"{to} exists; add --overwrite to replace it")
    cfg, label_set, variables, card = model_dir.load_model(directory)
    extra = model_dir.load_extra(directory)
    family, fields = split_spec(cfg["model"])
    if ":" in family:
        raise AsjaxError(
            f"the model {family} is code of yours, and no authors' torch code loads it; its "
            "weights are in model.safetensors of the model folder, by the names of flax"
        )
    file = models.family(family)
    arrays = port.to_torch(family, variables)
    made = {}
    if "ported_from" not in card:
        made = {**_counters(arrays), **_tables(file, cfg["frontend"])}
    clash = sorted(arrays.keys() & (extra | made).keys())
    if clash:
        raise AsjaxError(f"{directory}: {', '.join(clash)} would be written twice")
    arrays = {**arrays, **extra, **made}
    metadata = {
        "format": "pt",
        "family": family,
        "variant": str(fields.pop("variant", "")),
        "fields": json.dumps(to_plain(fields), sort_keys=True),
        "frontend": json.dumps(to_plain(cfg["frontend"]), sort_keys=True),
        "label_set": label_set.name,
        "label_hash": label_set.hash,
    }
    lost = _lost(cfg, label_set, Path(directory))
    _write(to, arrays, metadata)
    absent = [p for p in file.TORCH_SKIP if not any(re.fullmatch(p, n) for n in arrays)]
    missing = [] if "ported_from" in card else absent
    return {
        "arrays": arrays,
        "made": sorted(made),
        "missing": missing,
        "family": family,
        "variant": metadata["variant"],
        "lost": lost,
    }


def _lost(cfg: dict, label_set, folder: Path) -> list[tuple[str, str]]:
    """What `asjax port` cannot find in the weights, each with the option that restores it."""
    from asjax import models
    from asjax.store.scores import activation_of
    from asjax.weights import convert

    family, fields = split_spec(cfg["model"])
    variant = fields.pop("variant", None)
    module, plain = build.make("model", cfg["model"]), models.build(family, variant)
    lost = []
    for key, value in fields.items():
        if key not in ("num_classes", "dtype", "remat") and value != getattr(plain, key, value):
            lost.append((f"model field {key}", f"--field {shlex.quote(f'{key}={value!r}')}"))
    spec, seconds = to_plain(cfg["frontend"]), float(cfg["data"]["clip_s"])
    default = dict(models.family(family).FRONTENDS[variant])
    built = build.make("frontend", spec)
    try:
        default, _ = convert.frontend_spec(default, module, None)
        same = build.make("frontend", default) == built
    except AsjaxError:  # the model takes other bins than the variant's frontend gives
        same = False
    if not same:
        values = ", ".join(f"{k}={v!r}" for k, v in spec.items() if k != "name")
        option = shlex.quote(f"{spec['name']}({values})" if values else spec["name"])
        lost.append(("frontend", f"--frontend {option}"))
    if seconds != convert.clip_seconds(module, built):
        lost.append((f"clip length of {seconds:g} s", f"--clip-s {seconds!r}"))
    if label_set.hash != convert.choose_labels(None, len(label_set), None)[0].hash:
        folder = folder / "model" if (folder / "model").is_dir() else folder
        lost.append(("class names", f"--labels {shlex.quote(str(folder / 'labels.csv'))}"))
    if activation_of(cfg) == "softmax":
        lost.append(("softmax", ""))
    return lost


def _write(to: Path, arrays: dict, metadata: dict[str, str]) -> None:
    try:
        with files.replacing(to) as temporary:
            files.write_safetensors(temporary, arrays, metadata)
    except OSError as error:
        raise AsjaxError(f"{to} could not be written: {files.reason(error)}") from None


def _counters(arrays: dict) -> dict:
    """One zero batch counter per batch norm, as torch stores it; inference does not read it."""
    end = ".running_mean"
    norms = (name.removesuffix(end) for name in arrays if name.endswith(end))
    return {f"{name}.num_batches_tracked": np.zeros((), np.int64) for name in norms}


def _tables(file, spec) -> dict:
    """The frontend that PANNs and ConvNeXt store as frozen weights (of torchlibrosa).

    They are the real and the imaginary part of the DFT times the window, each
    [n_fft // 2 + 1, 1, n_fft], and the mel filters [n_fft // 2 + 1, n_mels].
    """
    from asjax.frontends import panns, stft

    names = [f"spectrogram_extractor.stft.conv_{part}.weight" for part in ("real", "imag")]
    frontend = build.make("frontend", spec)
    frontend = getattr(frontend, "logmel", frontend)  # Wavegram's frontend contains a log-mel one
    if not all(any(re.fullmatch(p, name) for p in file.TORCH_SKIP) for name in names):
        return {}
    if not isinstance(frontend, panns.PannsLogmel):
        return {}
    size = frontend.n_fft
    window = np.asarray(stft.hann(frontend.window, size), np.float64)
    # reduce the product of the indices modulo n_fft first: a large angle would lose digits
    turns = np.outer(np.arange(size // 2 + 1), np.arange(size)) % size
    dft = np.exp(-2j * np.pi / size * turns) * window
    return {
        names[0]: dft.real[:, None].astype(np.float32),
        names[1]: dft.imag[:, None].astype(np.float32),
        "logmel_extractor.melW": np.asarray(frontend.mel_filters, np.float32),
    }

"""Read the configs of a Hugging Face folder: classes, input size, features.

We take only settings that our models and frontends have a field for. Other settings of the input
are listed for the user, because without them the features may differ from the model's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from asjax import labels
from asjax.config import AsjaxError, quoted
from asjax.store import schema

_SIZE, _REAL = schema.integer(1, 2**20), schema.sized(2**30)
# our field -> its names in configs
_MODEL = {
    "n_mels": ("num_mel_bins", "n_mels"),
    "frames": ("max_length", "target_length"),
    "width": ("hidden_size", "embed_dim"),
    "depth": ("num_hidden_layers", "depth"),
    "heads": ("num_attention_heads", "num_heads"),
    "patch": ("patch_size",),
}
FEATURES = {
    "sample_rate": ("sampling_rate", "sample_rate"),
    "n_mels": ("num_mel_bins", "n_mels"),
    "frames": ("max_length",),
    "n_fft": ("n_fft",),
    "hop": ("hop_length", "hop_size"),
    "window": ("win_length", "win_size"),
    "fmin": ("f_min", "fmin"),
    "fmax": ("f_max", "fmax"),
    "mean": ("mean",),
    "std": ("std",),
}
# These settings do not change the features, or our frontends always do what they ask.
_NO_FEATURES = {
    "auto_map", "do_normalize", "feature_extractor_type", "feature_size", "padding_side",
    "processor_class", "return_attention_mask",
}  # fmt: skip
_STRIDES = ("frequency_stride", "time_stride")
CONFIG = schema.mapping(
    {},
    {
        "id2label": schema.optional(schema.mapping({}, {}, schema.text(most=1000))),
        "layer_norm_eps": schema.optional(schema.number(0, 1)),
        "hidden_act": schema.optional(schema.text()),
        **dict.fromkeys([*_STRIDES, "intermediate_size"], schema.optional(_SIZE)),
        **{key: schema.optional(_SIZE) for keys in _MODEL.values() for key in keys},
    },
    schema.loose,
)
PREPROCESSOR = schema.mapping(
    {},
    {
        "do_normalize": schema.optional(schema.boolean),
        **{key: schema.optional(_REAL) for keys in FEATURES.values() for key in keys},
    },
    schema.loose,
)


class Said(NamedTuple):
    """The content of a folder's configs.

    label_set: the classes, or None. fields: model fields. features: frontend fields.
    not_taken: settings of the input that we cannot use, as "key=value: reason".
    """

    label_set: labels.LabelSet | None
    fields: dict
    features: dict
    not_taken: list[str]


def read(configs: dict[str, Path], name: str) -> Said:
    """Read config.json and preprocessor_config.json; `name` becomes the label set's name.

    Raises:
      AsjaxError: a file is damaged, or the classes are not a list of distinct names.
    """
    content = Said(None, {}, {}, [])
    path = configs.get("config.json")
    if path:
        config = schema.read_json(path)
        schema.require(config, CONFIG, path)
        label_set = _label_set(config.get("id2label"), path, name)
        content = content._replace(label_set=label_set, fields=_fields(config))
        if config.get("hidden_act", "gelu") not in (None, "gelu"):
            content.not_taken.append(f"hidden_act={quoted(config['hidden_act'])}: asjax uses gelu")
    path = configs.get("preprocessor_config.json")
    if path:
        extractor = schema.read_json(path)
        schema.require(extractor, PREPROCESSOR, path)
        content = content._replace(features=_taken(extractor, FEATURES))
        if extractor.get("do_normalize") is False:  # (x - 0) / (2 * 0.5)
            content.features.update(mean=0, std=0.5)
        known = {key for keys in FEATURES.values() for key in keys} | _NO_FEATURES
        if not extractor.get("padding_value"):
            known.add("padding_value")
        content.not_taken.extend(
            f"{quoted(key)[1:-1]}={quoted(value)}: no frontend has such a field"
            for key, value in extractor.items()
            if key not in known
        )
    return content


def _taken(config: dict, table: dict) -> dict:
    values = {
        field: next((config[key] for key in keys if config.get(key) is not None), None)
        for field, keys in table.items()
    }
    return {field: value for field, value in values.items() if value is not None}


def _fields(config: dict) -> dict:
    """Fields of our modules; fields that the family lacks are dropped later."""
    fields = _taken(config, _MODEL)
    strides = [config.get(key) for key in _STRIDES]
    if all(strides):
        fields["stride"] = strides[0] if strides[0] == strides[1] else tuple(strides)
    elif config.get("patch_stride"):
        fields["stride"] = config["patch_stride"]
    if config.get("intermediate_size") and config.get("hidden_size"):
        fields["mlp_ratio"] = config["intermediate_size"] / config["hidden_size"]
    if config.get("layer_norm_eps") is not None:
        fields["epsilon"] = fields["head_epsilon"] = float(config["layer_norm_eps"])
    return fields


def _label_set(id2label: dict | None, path: Path, name: str) -> labels.LabelSet | None:
    """The folder's classes in its order; ids are AudioSet's mids if all names are AudioSet's.

    If only some names are AudioSet's, the names are the ids, and the known mids are stored too.
    """
    if not id2label:
        return None
    wanted = [str(i) for i in range(len(id2label))]
    if sorted(id2label) != sorted(wanted):
        raise AsjaxError(
            f"{path}: id2label must number its {len(wanted)} classes from 0, without gaps; give "
            "them with --labels"
        )
    names = tuple(id2label[i].strip() for i in wanted)
    if all(text == f"LABEL_{i}" for i, text in enumerate(names)):
        return None  # the default names of `transformers`: nobody named the classes
    audioset = labels.get("audioset527")
    mids = dict(zip((n.casefold() for n in audioset.names), audioset.ids, strict=True))
    mids |= {i: i for i in audioset.ids}
    found = [mids.get(text.casefold()) or mids.get(text) for text in names]
    try:
        if None not in found:
            same = tuple(found) == audioset.ids
            return audioset if same else labels.LabelSet(name, tuple(found), names)
        known = tuple((mid,) if mid else () for mid in found)
        return labels.LabelSet(name, names, names, known if any(known) else ())
    except AsjaxError as error:
        raise AsjaxError(f"{path}: id2label: {error}; give the classes with --labels") from None

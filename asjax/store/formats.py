"""The formats of asjax's small files, made of the checks in `schema`.

Every range is wide enough for any reasonable model, and small enough that no number in a file can
fill the memory. Unknown fields are allowed, because later versions and hubs add fields.
"""

from __future__ import annotations

from asjax.store.schema import (
    boolean,
    integer,
    list_of,
    loose,
    mapping,
    number,
    optional,
    sized,
    text,
)

_NAME = text(r"\S(.*\S)?", 200, "a name")
_COUNT = integer(0, 2**53)
_HASH = text("[0-9a-f]{64}", 64, "a SHA-256 in hexadecimal")
_BIN = optional(integer(1, 32_768))


def _spec(**known):
    """A spec in a config: a call as text, or an object with a name and keywords."""
    as_object = mapping({"name": _NAME}, known, sized(2**20))
    return lambda value: _NAME(value) if isinstance(value, str) else as_object(value)


_FRONTEND = _spec(
    sample_rate=integer(1, 10**6),
    n_mels=integer(1, 1024),
    n_fft=_BIN,
    window=_BIN,
    hop=optional(integer(1, 10**6)),
    frames=optional(integer(1, 10**5)),
)
_SOURCE = optional(lambda value: _spec()(value))

_MODEL = mapping(
    {"name": _NAME}, {"variant": optional(_NAME), "num_classes": integer(1, 10**6)}, sized(2**20)
)
_DATA_FIELDS = {
    "train": _SOURCE,
    "eval": _SOURCE,
    "test": _SOURCE,
    "draw": text(),
    "ops": text(),
    "workers": integer(0, 1024),
    "threads": integer(0, 1024),
    "cache": boolean,
    "max_bad": number(-1, 1),
}
_HEARD = {"sample_rate": integer(1, 10**6), "clip_s": number(0, 3600)}


def _objective(value):
    """A spec that may have a list with one number per class."""
    return text()(value) if isinstance(value, str) else mapping({"name": _NAME}, {}, loose)(value)


_OTHER_FIELDS = {
    "labels": mapping({}, {"name": text(), "hlp": boolean, "strict": boolean, "parents": text()}),
    "eval": mapping(
        {},
        {
            "batch_size": integer(1, 2**20),
            "mappings": optional(list_of(_NAME, 100)),
            "median_s": optional(number(-1, 60)),
            "only_with_events": boolean,
        },
    ),
    "objective": optional(_objective),
    "optim": optional(mapping({}, {}, loose)),
}

# What the pages of the Hugging Face Hub read in config.json; asjax writes it and leaves it out
HUB_FIELDS = ("model_type", "architectures", "id2label", "label2id")
# config.json of a model folder: the fields that loading, tagging and evaluating read
CONFIG = mapping(
    {"model": _MODEL, "frontend": _FRONTEND, "data": mapping(_HEARD, _DATA_FIELDS)},
    _OTHER_FIELDS,
    loose,
)
# config.json of a workdir: the fields that reports read
RUN_CONFIG = mapping(
    {},
    {**_OTHER_FIELDS, "model": _MODEL, "data": mapping({}, _HEARD | _DATA_FIELDS)},
    loose,
)

_DATA = optional(mapping({}, {"name": text(), "clips": _COUNT, "hash": text()}))
# The record of a model or a run: in card.json, and in metrics.json under "record"
RECORD = {
    "hlp": optional(boolean),
    "draw": optional(text()),
    "seed": optional(integer(-(2**63), 2**63 - 1)),
    "step": optional(_COUNT),
    "parameters": optional(_COUNT),
    "train_data": _DATA,
    "eval_data": _DATA,
    "test_data": _DATA,
    "chosen": optional(mapping({}, {"step": _COUNT, "rule": text(), "metric": text()}, loose)),
    "evaluated_on": optional(text()),
    "labels": optional(mapping({}, {"name": text(), "hash": text()})),
    "ported_from": optional(mapping({}, {}, loose)),
    "scores": optional(mapping({}, {}, loose)),
    "events": optional(mapping({}, {}, loose)),
    "decoding": optional(mapping({}, {}, loose)),
}
CARD = mapping(
    {
        "sha256": mapping({"card.json": _HASH}, {}, _HASH),
        "label_set": text(wanted="the name of the label set"),
        "label_hash": _HASH,
    },
    RECORD,
    loose,
)

# `about` in scores.npz, a JSON text
_PAIRS = list_of(list_of(text(), 2))
ABOUT = mapping(
    {"label_set": text(wanted="the name of the label set"), "label_hash": _HASH},
    {
        "extra": optional(
            mapping(
                {},
                {
                    "left_out": _PAIRS,
                    "strict": boolean,
                    "zero_shot": optional(mapping({}, {"left_out": list_of(text())}, loose)),
                    "ensemble": optional(mapping({}, {}, loose)),
                },
                loose,
            )
        ),
        "parents": optional(mapping({}, {}, list_of(text()))),
        "activation": text("sigmoid|softmax", wanted="sigmoid or softmax"),
    },
    loose,
)

# run.json of a workdir
RUN = mapping(
    {"config": mapping({}, {}, loose), "data_fingerprint": text(most=200)},
    {"created": text(), "changes": list_of(mapping({}, {}, loose))},
    loose,
)

# metrics.json beside a scores file
METRICS = mapping({}, {"record": optional(mapping({}, RECORD, loose))}, loose)

"""The trainings of distillation.py: models, objectives, and the configs of `asjax train`."""

from __future__ import annotations

import json

from asjax import build, config

_CNN = dict(name="cnn", variant="mini", block_dropout=0.0, head_dropout=0.0, head_bias=-2.0)
_LOGMEL = dict(name="panns_logmel", sample_rate=16_000, n_mels=64, n_fft=512)
_PANNS = (dict(**_LOGMEL, hop=512), 5e-3)  # frontend, learning rate
_ATDR = (
    dict(name="atdr_logmel64", n_fft=1024, db_multiplier=10, frames=200, mean=-20.0, std=20.0),
    2e-3,
)
CLIPS = {  # name -> model, (frontend, learning rate)
    "ResNet": (dict(name="resnet_att", variant="resnet_mini", head_bias=-2.0), _ATDR),
    "CNN + Transformer": (
        dict(
            name="talnet", variant="cnn_transformer_mini", transformer_dropout=0.1, head_bias=-2.0
        ),
        _ATDR,
    ),
    "CNN": (_CNN, _PANNS),
    "student": (dict(**_CNN, channels=(5, 10, 20, 40), width=32), _PANNS),
}
_CRNN = dict(name="talnet", variant="crnn_mini", frames=250)
FRAMES = {"BiGRU": dict(**_CRNN, width=256), "student": dict(**_CRNN, width=128, context=None)}
STEPS = {
    "clips": {"teachers": 200, "student": 400},
    "frames": {"teachers": 800, "student": 600},
}
SCENES = 200  # of validation and of the test
DRAWN = 2400  # scenes that students learn from; they fit into the memory of data.cache
CLIPS_KD = dict(weight=1.0)
LEARNING = ["fold1", "fold2", "fold3"]  # the recordings of all labelled scenes
UNLABELLED = [*LEARNING, "fold4"]
FRAMES_KD = {  # name -> recordings of the scenes, fields of the objective
    "labels and teachers": (LEARNING, dict(weight=0.9)),
    "teachers, unlabelled scenes": (UNLABELLED, dict(weight=1.0)),
}
TRIED = [
    dict(weight=0.5),
    dict(weight=0.9),
    dict(weight=1.0),
    dict(weight=0.9, temperature=2.0),
    dict(weight=1.0, temperature=2.0),
    dict(weight=1.0, on="logits"),
]


# -------------------------------------------------------------------------------------- trainings


def common(seed: int, count: int, lr: float, tiny: bool) -> object:
    """The fields that all trainings of the study share."""
    c = config.new()
    c.seed, c.total_steps = seed, 2 if tiny else count
    c.labels = dict(name="esc10", hlp=False, strict=False)
    c.optim = dict(
        name="adamw",
        lr=lr,
        weight_decay=1e-3,
        schedule=f"cosine(warmup_steps={max(1, c.total_steps // 10)})",
        clip_norm=1.0,
    )
    c.average = dict(name="ema", decay=0.99)
    c.eval = dict(max_share=1.0, select="last", batch_size=4 if tiny else 16, bootstrap=0)
    c.log = dict(every_steps=10, save_steps=100)
    c.mesh = c.init_from = ""
    return c


def steps(part: str, name: str) -> int:
    return STEPS[part]["student" if name == "student" else "teachers"]


def clips_config(name: str, *, learning, held_out: str, seed: int, tiny: bool, kd=None):
    """A training on clips; `kd`: fields of the objective distillation, with a teacher."""
    model, (frontend, lr) = CLIPS[name]
    c = common(seed, steps("clips", name), lr, tiny)
    c.batch_size = 8 if tiny else 32
    c.data = dict(
        train=dict(name="esc10", splits=learning, convert=True),
        eval=dict(name="esc10", splits=[held_out], convert=True),
        sample_rate=16_000,
        clip_s=5.0,
        draw="shuffle",
        workers=0,
        threads=2,
    )
    c.frontend = frontend
    masks = ", freq_stripes=1, time_stripes=1, law='torchaudio', fill=0.5"
    bands = "specaug(time_width={}, freq_width={}{})"
    c.augment = dict(
        wave="roll(fraction=1.0) | mixup(alpha=1.0, rate=0.3, style='plain', remove_mean=True)",
        feats="" if frontend is _PANNS[0] else bands.format(25, 8, masks),
        normed=bands.format(16, 4, "") if frontend is _PANNS[0] else "",
    )
    c.model = model
    c.objective = dict(name="tagging", label_smoothing=0.0)
    if kd:
        c.objective = dict(name="distillation", base="tagging", **kd)
    c.eval.update(every_steps=c.total_steps, mappings=[])
    return build.finished(c)


def frames_config(name: str, *, seed: int, tiny: bool, folds=LEARNING, stored="", kd=None):
    """A training on scenes; `stored`: folder of the teachers' logits, for `kd`, as above.

    Teachers never hear a scene twice; students learn from `scenes`.
    """
    c = common(seed, steps("frames", name), 7e-3, tiny)
    c.batch_size = 4 if tiny else 16
    count = 4 if tiny else SCENES
    spec = scenes(folds, tiny)
    if name != "student":
        spec |= dict(clips=8 if tiny else 16 * c.total_steps, seed=10 + seed)
    c.data = dict(
        train=spec,
        eval=dict(name="soundscapes", splits=["fold4"], clips=count),
        sample_rate=16_000,
        clip_s=10.0,
        draw="shuffle",
        ops="decode | crop | strong" + (f" | teacher(path={json.dumps(stored)})" if kd else ""),
        workers=0,
        threads=2,
        cache=name == "student",
    )
    c.data.test = dict(name="soundscapes", splits=["fold5"], clips=count)
    c.frontend = dict(**_LOGMEL, hop=320)
    c.augment = dict(wave="", feats="", normed="")
    c.model = FRAMES[name]
    c.objective = dict(name="detection")
    if name == "student":  # the loss of frames alone, as in PretrainedSED
        c.objective = dict(name="detection", strong_weight=1.0, weak_weight=0.0)
    if kd:
        c.objective.update(name="distillation", base="detection", **kd)
    every = c.total_steps if name == "student" else max(1, c.total_steps // 4)
    c.eval.update(every_steps=every, median_s=0.84)  # the window of configs/quickstart_sed.py
    return build.finished(c)


def scenes(folds, tiny: bool) -> dict:
    """The scenes that students learn from, with recordings of these folds."""
    return dict(name="soundscapes", splits=folds, clips=8 if tiny else DRAWN, seed=1)

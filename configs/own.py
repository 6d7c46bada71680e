"""Your own clips: a small CNN with log-mel features, mixup and SpecAugment, for a CSV or a folder.

asjax train --config=configs/own.py:data=clips.csv,epochs=30 --workdir=runs/mine
asjax train --data clips.csv --epochs 30 --workdir runs/mine
asjax train --data events.tsv --audio recordings/ --workdir runs/detector

The first two commands are the same run. A list of events in time trains a small detector. Without
data it trains on the ten classes of ESC-10.
Arguments: data (a CSV, a folder of class folders, or a source), audio (the folder of a CSV's
files), columns, label_separator, splits, labels ("own": those of the data), model ("mini" or a
variant of `asjax models`), epochs (0: 40,000 / clips, from 10 to 100), clip_s (0: from the data),
lr (0: 5e-3 for mini, less for larger models), batch_size, multilabel (one sigmoid per class even if
every clip has one label), seed, tiny.
Result: configs/README.md.
"""

import math

from asjax import config
from asjax.own import data as clips
from asjax.own import parts


def get_config(arg=None):
    arg = config.parse_arg(
        arg,
        data="esc10",
        audio="",
        columns="",
        label_separator="",
        splits="",
        labels="own",
        model="mini",
        epochs=0.0,
        clip_s=0.0,
        lr=0.0,
        batch_size=32,
        multilabel=False,
        seed=0,
        tiny=False,
    )
    own = clips.read(
        arg.data,
        label_name=arg.labels,
        audio_root=arg.audio,
        columns=arg.columns,
        label_separator=arg.label_separator,
        splits=arg.splits,
    )
    clip_s = arg.clip_s or own.clip_s
    if own.detects:
        model, frontend = parts.detector(arg.model, clip_s)
    else:
        model, frontend = parts.model_and_frontend(arg.model)
    c = config.new()
    c.seed = arg.seed
    c.batch_size = 8 if arg.tiny else arg.batch_size
    epochs = arg.epochs or parts.epochs(own.counts["train"])
    steps = 2 if arg.tiny else math.ceil(epochs * own.counts["train"] / c.batch_size)
    c.total_epochs, c.total_steps = (0.0, 2) if arg.tiny else (epochs, 0)
    c.labels = dict(name=own.labels, hlp=False, strict=False)
    rate = parts.sample_rate(frontend)
    c.data = dict(
        **own.cut(clip_s),
        sample_rate=rate,
        clip_s=clip_s,
        draw="shuffle",
        ops="decode | crop | strong" if own.detects else "decode | crop | multihot",
        workers=0,
        threads=2,
        cache=True,
        max_bad=0.05,
    )
    c.frontend = frontend
    if own.detects:
        c.augment = dict(wave="", feats="", normed="")
    else:
        c.augment = dict(wave="roll(fraction=1.0)", **parts.masks(model, frontend, rate, clip_s))
    c.model = model
    c.objective = dict(name="tagging" if arg.multilabel else "auto")
    if own.detects:
        c.objective = dict(name="detection")
    c.optim = dict(
        name="adamw",
        lr=arg.lr or parts.learning_rate(model),
        weight_decay=1e-3,
        schedule=f"cosine(warmup_steps={steps // 10})",
        clip_norm=1.0,
    )
    c.average = dict(name="ema", decay=0.99)
    c.eval = dict(
        every_epochs=max(1.0, epochs / 20),
        # on a small set mean_ap varies less from step to step than the accuracy
        metric="psds1" if own.detects else "mean_ap",
        batch_size=16,
        bootstrap=1000,
        baseline=not own.detects,
    )
    c.log = dict(every_steps=10, save_steps=max(50, steps // 10))
    c.mesh = ""
    c.init_from = ""
    return c

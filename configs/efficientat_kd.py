"""EfficientAT's MobileNets (Schmid et al. 2023), taught AudioSet's clips by an ensemble of PaSST.

ASJAX_DATA=/data asjax train --config=configs/efficientat_kd.py:teacher=passt_logits \\
    --workdir=runs/mn10

Data: $ASJAX_DATA/audioset holds the records that `asjax prepare folder` wrote, splits `train` and
`eval`. `teacher` is a folder of stored logits: of `asjax logits MODEL...`, or the authors' file
passt_enemble_logits_mAP_495.npy and its index by `asjax logits import --form efficientat`. It must
be given; `teacher=none` learns from the labels alone, and so does `tiny` without it.
Recipe: 200 epochs of 100,000 clips drawn by weight without replacement, batch 120; Adam, lr 8e-4;
per epoch exponential warm-up over 8, flat to 80, linear to 1 % over 95, flat; weight x BCE of the
teachers' probabilities + (1 - weight) x BCE of the labels, weight .9 (the authors' kd_lambda is the
share of the labels, .1); features: mixup Beta(.3, .3), filter edges drawn per batch.
Arguments: variant (mn01 to mn40), teacher, weight, hlp, beta (> 0 replaces the sampler), seed,
tiny.
Memory: dtype, remat and accumulate as in configs/README.md. Not compiled for a device yet.
Where sources disagree or ours differs: a clip without stored logits learns from its labels with
weight 1; the authors' with .1. The start is from scratch; `--config.init_from=imagenet:FILE` takes
the authors' ImageNet file. PretrainedSED took this routine for step 2 of fPaSST and ASiT at 16 kHz.
Paper (not ours): mAP mn04 .432, mn05 .443, mn10 .471, mn40 .484.
Result: not yet run.
"""

import json

from asjax import config
from asjax.data import audioset

BATCH, EPOCH_CLIPS, EPOCHS = 120, 100_000, 200


def get_config(arg=None):
    arg = config.parse_arg(
        arg,
        variant="mn10",
        teacher="",
        weight=0.9,
        hlp=False,
        beta=0.0,
        seed=0,
        tiny=False,
        **config.MEMORY,
    )
    epoch_steps = 1 if arg.tiny else -(-EPOCH_CLIPS // BATCH)
    teacher = config.teacher_of(arg, "asjax logits MODEL... --data TRAIN --out FOLDER")
    c = config.new()
    c.seed = arg.seed
    c.total_steps = 2 if arg.tiny else EPOCHS * epoch_steps
    c.batch_size = 4 if arg.tiny else BATCH
    c.labels = dict(name="audioset527", hlp=arg.hlp, strict=False)
    draw = "weighted(scheme='passt', replacement=False)"
    c.data = audioset.recipe_data(
        tiny=arg.tiny, draw=f"oversample(beta={arg.beta})" if arg.beta else draw
    )
    c.frontend = dict(name="mn_mel128")
    c.augment = dict(wave="", feats="mixup(alpha=0.3, style='passt', block=8)", normed="")
    c.model = dict(name="mobilenet", variant="mn01" if arg.tiny else arg.variant)
    c.objective = dict(name="tagging", label_smoothing=0.0)
    if teacher:
        path = json.dumps(teacher, ensure_ascii=False)
        c.data.ops = f"decode | crop | multihot | teacher(path={path})"
        c.objective = dict(name="distillation", base="tagging", weight=arg.weight)
    schedule = "passt(warmup_epochs=8, start_epoch=80, ramp_epochs=95, end=0.01, "
    c.optim = dict(name="adam", lr=8e-4, schedule=f"{schedule}epoch_steps={epoch_steps})")
    config.save_memory(c, arg)
    c.average = None
    c.eval = dict(
        every_steps=2 if arg.tiny else epoch_steps,
        max_share=1.0,
        select="last",
        batch_size=4 if arg.tiny else 32,
        bootstrap=20 if arg.tiny else 1000,
        mappings=[],
    )
    c.log = dict(every_steps=1 if arg.tiny else 100, save_steps=2 if arg.tiny else epoch_steps)
    c.mesh = ""
    c.init_from = ""
    return c

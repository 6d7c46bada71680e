"""ATST-C2F (Li et al. 2024): ATST-Frame learns AudioSet's clips from labels and from ATST-Clip.

asjax logits models/atst_clip --data 'records(path="/data/audioset", splits=["train"])' \\
    --out runs/logits
ASJAX_DATA=/data asjax train --config=configs/atst_c2f.py:teacher=runs/logits --workdir=runs/c2f

Data: $ASJAX_DATA/audioset holds the records that `asjax prepare folder` wrote, splits `train` and
`eval`. `teacher` is a folder of logits of an ATST-Clip that was fine-tuned on AudioSet. It must be
given; `teacher=none` learns from the labels alone, and so does `tiny` without it.
$ASJAX_DATA/weights/ATST-F_ssl.pt is the start (`start=False`: from scratch).
Recipe: half BCE of the labels, half BCE of the teacher's probabilities, both on the clip's logits.
10 epochs of the whole AudioSet, 2 of them warm-up, SGD with momentum, lr 1 (the authors searched
.5, 1, 2), cosine, layer-wise decay .75, mixup: what ATST-Clip's fine-tuning has.
Arguments: teacher, weight, lr, start, hlp, beta (> 0: oversampling), seed, tiny.
Memory: dtype, remat and accumulate as in configs/README.md. Not compiled for a device yet.
Where sources disagree or ours differs: batch size and strength of mixup are not published, 256 and
Beta(.5, .5) here. The authors also crop and resize the features, which is not here.
Paper (not ours): none for this step alone; PretrainedSED takes the result as its ATST-F_weak.pt.
Result: not yet run.
"""

import json
import os

from asjax import config
from asjax.data import audioset

CLIPS, BATCH, EPOCHS, WARMUP = 2_000_000, 256, 10, 2
EPOCH = CLIPS // BATCH


def get_config(arg=None):
    arg = config.parse_arg(
        arg,
        teacher="",
        weight=0.5,
        lr=1.0,
        start=True,
        hlp=False,
        beta=0.0,
        seed=0,
        tiny=False,
        **config.MEMORY,
    )
    teacher = config.teacher_of(arg, "asjax logits ATST_CLIP --data TRAIN --out FOLDER")
    c = config.new()
    c.seed = arg.seed
    c.total_steps = 2 if arg.tiny else EPOCHS * EPOCH
    c.batch_size = 4 if arg.tiny else BATCH
    c.labels = dict(name="audioset527", hlp=arg.hlp, strict=False)
    draw = f"oversample(beta={arg.beta})" if arg.beta else "shuffle"
    c.data = audioset.recipe_data(tiny=arg.tiny, draw=draw, sample_rate=16_000)
    c.frontend = dict(name="atst_frame_logmel64")
    c.augment = dict(wave="", feats="mixup(alpha=0.5)", normed="")
    c.model = dict(name="atst_frame", variant="atst_frame_base", frames=50 if arg.tiny else 250)
    if arg.tiny:
        c.model.update(width=16, heads=2, depth=1)
    c.objective = dict(name="tagging", label_smoothing=0.0)
    if teacher:
        path = json.dumps(teacher, ensure_ascii=False)
        c.data.ops = f"decode | crop | multihot | teacher(path={path})"
        c.objective = dict(name="distillation", base="tagging", weight=arg.weight)
    warmup = 1 if arg.tiny else WARMUP * EPOCH
    c.optim = dict(
        name="sgd",
        lr=arg.lr,
        layer_decay=0.75,
        schedule=f"cosine(warmup_steps={warmup})",
    )
    config.save_memory(c, arg)
    c.average = None
    c.eval = dict(
        every_steps=2 if arg.tiny else EPOCH,
        max_share=1.0,
        select="last",
        batch_size=4 if arg.tiny else 32,
        bootstrap=20 if arg.tiny else 1000,
        mappings=[],
    )
    c.log = dict(every_steps=1 if arg.tiny else 100, save_steps=2 if arg.tiny else EPOCH)
    c.mesh = ""
    weights = os.path.join(os.environ.get("ASJAX_DATA", "data"), "weights", "ATST-F_ssl.pt")
    c.init_from = f"backbone:{weights}" if arg.start and not arg.tiny else ""
    return c

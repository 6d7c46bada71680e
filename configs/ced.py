"""CED (Dinkel et al. 2024): small transformers that learn AudioSet's clips from stored teachers.

ASJAX_DATA=/data asjax train --config=configs/ced.py:teacher=runs/logits --workdir=runs/ced_tiny

Data: $ASJAX_DATA/audioset holds the records that `asjax prepare folder` wrote, splits `train` and
`eval`. `teacher` is a folder of `asjax logits MODEL... --top 20`: the authors store the 20 highest
scores of an ensemble, and the other classes count as 0. It must be given; `teacher=none` learns
from the labels alone, and so does `tiny` without it.
Recipe: 300 epochs of 6250 steps, batch 128; Adam, lr 3e-4, linear warm-up over 62,500 steps, cosine
to a tenth; BCE of the teachers' probabilities alone (weight=1). Waves: shift by up to half a clip;
features: one mask of up to 192 frames and one of up to 24 bins.
Arguments: size (tiny, mini, small, base), teacher, weight, replay, hlp, beta (> 0 replaces the
sampler), seed, tiny.
Memory: dtype, remat and accumulate as in configs/README.md. Not compiled for a device yet.
Where sources disagree or ours differs: the authors' teachers see the same random view as the
student (its seed is stored); here they see the clip as it is, unless `asjax logits --views` stored
views of random host ops. Their own files (`asjax logits import --form ced`) have
views that only their code can make again: `replay=False` takes the scores of a random view. Adam
has 32 bits, the authors' 8. The best four checkpoints are not averaged. The start from their MAE
files is not here.
Paper (not ours): mAP tiny .481, mini .490, small .496, base .500.
Result: not yet run.
"""

import json

from asjax import config
from asjax.data import audioset

EPOCH, EPOCHS, WARMUP = 6250, 300, 62_500  # steps


def get_config(arg=None):
    arg = config.parse_arg(
        arg,
        size="tiny",
        teacher="",
        weight=1.0,
        replay=True,
        hlp=False,
        beta=0.0,
        seed=0,
        tiny=False,
        **config.MEMORY,
    )
    teacher = config.teacher_of(arg, "asjax logits MODEL... --data TRAIN --top 20 --out FOLDER")
    c = config.new()
    c.seed = arg.seed
    c.total_steps = 2 if arg.tiny else EPOCHS * EPOCH
    c.batch_size = 4 if arg.tiny else 128
    c.labels = dict(name="audioset527", hlp=arg.hlp, strict=False)
    draw = f"oversample(beta={arg.beta})" if arg.beta else "shuffle"
    c.data = audioset.recipe_data(tiny=arg.tiny, draw=draw, sample_rate=16_000)
    c.frontend = dict(name="ced_logmel64")
    c.augment = dict(
        wave="roll(fraction=0.5)",
        feats="specaug(time_width=192, time_stripes=1, freq_width=24, freq_stripes=1)",
        normed="",
    )
    c.model = dict(name="ced", variant=f"ced_{arg.size}", pooling="logit")
    if arg.tiny:
        c.model.update(width=16, heads=2, depth=1)
    c.objective = dict(name="tagging", label_smoothing=0.0)
    if teacher:
        path = json.dumps(teacher, ensure_ascii=False)
        more = "" if arg.replay else ", replay=False"
        c.data.ops = f"decode | crop | multihot | teacher(path={path}{more})"
        c.objective = dict(name="distillation", base="tagging", weight=arg.weight)
    warmup = 1 if arg.tiny else WARMUP
    c.optim = dict(name="adam", lr=3e-4, schedule=f"cosine(warmup_steps={warmup}, end=0.1)")
    config.save_memory(c, arg)
    c.average = None
    c.eval = dict(
        every_steps=2 if arg.tiny else EPOCH,
        max_share=1.0,
        select="best",
        batch_size=4 if arg.tiny else 32,
        bootstrap=20 if arg.tiny else 1000,
        mappings=[],
    )
    c.log = dict(every_steps=1 if arg.tiny else 100, save_steps=2 if arg.tiny else EPOCH)
    c.mesh = ""
    c.init_from = ""
    return c

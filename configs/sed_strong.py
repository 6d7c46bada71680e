"""PretrainedSED's models (Schmid et al. 2025) without RNN: step 3 on AudioSet Strong, or step 2.

ASJAX_DATA=/data asjax train --config=configs/sed_strong.py:model=atst_frame --workdir=runs/atst
ASJAX_DATA=/data asjax train --config=configs/sed_strong.py:step=weak --workdir=runs/beats_weak

Step 2 (`step=weak`) trains the backbone on AudioSet's clip labels, step 3 (`step=strong`) on its
events. Step 3 is trained on the labels alone; its teachers' part is not here yet.
Data: $ASJAX_DATA/audioset_strong holds the records that `asjax prepare strong --labels
audioset_strong447` wrote, for step 2 $ASJAX_DATA/audioset those of `asjax prepare folder`, splits
`train` and `eval`. $ASJAX_DATA/weights holds the start: PretrainedSED's NAME_weak.pt, for step 2
NAME_ssl.pt (`start=False`: from scratch; `--config.init_from=runs/beats_weak`: your own step 2).
Recipe: step 3: 120 epochs of 100,000 clips, batch 256; Adam, lr 1e-4, linear warm-up over 5000
steps, cosine to 0; BCE of the 447 classes in 250 frames. Half of the waves are mixed with another,
lam ~ Beta(2, 2), without means. Features: shift by N(0, 1/8 of the clip), mixup Beta(.2, .2) at
rate .3 for a whole batch.
Step 2: the paper names EfficientAT's routine for fPaSST and ASiT and takes the other
authors' weights for the rest; its values for transformers are not published. Here: 30 epochs of
100,000 clips drawn by PaSST's weights, the same optimiser and mixing, no frame shift, BCE of the
527 classes, without a teacher.
Arguments: model (atst_frame, beats, fpasst, m2d, asit), step (strong, weak), sequence (none, gru,
lstm, transformer), lr, weak (weight of the clip's loss in step 3), start, seed, tiny.
Memory: dtype, remat and accumulate as in configs/README.md. Not compiled for a device yet.
Where sources disagree or ours differs: as in configs/sed_teacher.py. An epoch draws each clip once,
the authors' 100,000 of 100,911 without replacement.
Paper (not ours): PSDS1 on 407 classes without teachers, ATST-F 41.8, BEATs 44.1, fPaSST 40.7, M2D
41.1, ASiT 40.9; with them 45.8, 46.5, 45.4, 46.3, 46.2. mAP of step 2, fPaSST .484, ASiT .498.
Result: not yet run.
"""

import os

from asjax import config
from asjax.data import audioset

MODELS = {  # family: (frontend, file)
    "atst_frame": ("atst_frame_logmel64", "ATST-F"),
    "beats": ("beats_fbank128", "BEATs"),
    "fpasst": ("fpasst_mel128", "fpasst"),
    "m2d": ("m2d_logmel80", "M2D"),
    "asit": ("asit_fbank128", "ASIT"),
}
EPOCH = 391  # steps of 256 clips for 100,000
STEPS = {"strong": (120, "weak"), "weak": (30, "ssl")}  # epochs, start


def get_config(arg=None):
    arg = config.parse_arg(
        arg,
        model="beats",
        step="strong",
        sequence="none",
        lr=1e-4,
        weak=0.0,
        start=True,
        seed=0,
        tiny=False,
        **config.MEMORY,
    )
    for key, known in (("model", MODELS), ("step", STEPS)):
        if getattr(arg, key) not in known:
            raise config.unknown(key, getattr(arg, key), known)
    (frontend, file), (epochs, start) = MODELS[arg.model], STEPS[arg.step]
    strong, frames = arg.step == "strong", 50 if arg.tiny else 250
    labels = ("esc10" if arg.tiny else "audioset_strong447") if strong else "audioset527"
    c = config.new()
    c.seed = arg.seed
    c.total_steps = 2 if arg.tiny else epochs * EPOCH
    c.batch_size = 4 if arg.tiny else 256
    c.labels = dict(name=labels, hlp=False, strict=False)
    if strong:
        c.data = audioset.strong_recipe_data(tiny=arg.tiny, draw="shuffle", frames=frames)
    else:
        draw = "weighted(scheme='passt', replacement=False)"
        c.data = audioset.recipe_data(tiny=arg.tiny, draw=draw, sample_rate=16_000)
    c.frontend = dict(name=frontend)
    mixup = "mixup(alpha=0.2, rate=0.3, style='passt', per_batch=True, block=8)"
    c.augment = dict(
        wave="wavmix(alpha=2.0, rate=0.5, block=8)",
        feats=f"frame_shift(range=0.125) | {mixup}" if strong else mixup,
        normed="",
    )
    c.model = dict(
        name=arg.model,
        variant=f"{arg.model}_base",
        frames=frames,
        sequence=None if arg.sequence == "none" else arg.sequence,
    )
    if arg.tiny:
        c.model.update(width=16, heads=2, depth=1, sequence_width=4)
    c.objective = dict(name="tagging", label_smoothing=0.0)
    if strong:
        c.objective = dict(name="detection", strong_weight=1.0, weak_weight=arg.weak)
    warmup = 1 if arg.tiny else 5000
    c.optim = dict(name="adam", lr=arg.lr, schedule=f"cosine(warmup_steps={warmup})")
    config.save_memory(c, arg)
    c.average = None
    c.eval = dict(
        every_steps=2 if arg.tiny else 5 * EPOCH,
        max_share=1.0,  # the paper evaluates at fixed steps
        select="last",
        only_with_events=strong,  # as the published PSDS1
        batch_size=4 if arg.tiny else 32,
        bootstrap=20 if arg.tiny else (100 if strong else 1000),
        mappings=["audioset_strong407"] if strong and not arg.tiny else [],
    )
    c.log = dict(every_steps=1 if arg.tiny else 50, save_steps=2 if arg.tiny else EPOCH)
    c.mesh = ""
    weights = os.path.join(os.environ.get("ASJAX_DATA", "data"), "weights", f"{file}_{start}.pt")
    c.init_from = f"backbone:{weights}" if arg.start and not arg.tiny else ""
    return c

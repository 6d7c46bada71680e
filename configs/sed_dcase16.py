"""A detector on DCASE 2016 task 2 in HEAR's form: 11 office sounds, 2-minute files, onset F1.

ASJAX_DATA=/data asjax train --config=configs/sed_dcase16.py:model=beats --workdir=runs/dcase16
asjax sweep --config=configs/sed_dcase16.py:mode=frozen --lr 0.1,0.2,0.4 --out runs/frozen
asjax train --config=configs/sed_dcase16.py:tiny --workdir=runs/tiny

Data: $ASJAX_DATA/dcase2016_task2-hear2021-full is the unpacked task at 16 kHz, as HEAR gives it.
$ASJAX_DATA/weights holds the start, PretrainedSED's NAME_strong_1.pt (`start=weak`: NAME_weak.pt,
`ssl`: NAME_ssl.pt, `none`: from scratch; `--config.init_from=runs/beats`: your own).
Recipe: 12 random pieces of 10 s of every file in an epoch, on the grid of the labels; a label's
frame of 40 ms is active if its centre is inside the event. 300 epochs, batch 256; AdamW, weight
decay 1e-3, lr 1.06e-4, layer decay .95, cosine to 0; wave mixture Beta(.2, .2) and mixup at rate
.5; BCE of the frames. `mode=frozen`: 500 epochs, Adam, lr .2, only the head, no mixing.
Score: the scores of a file's 12 pieces are joined; median window 250 ms, shortest event 125 or 250
ms, as chosen on `valid`; threshold .5 of the probability; onset F1 of all events together at 50 ms,
also at 200 ms. It chooses the step on `valid`. Final numbers are those of `test`.
Arguments: model (atst_frame, beats, fpasst, m2d, asit), mode (finetune, frozen), start, lr (0: that
of the mode), epochs (0: that of the mode), threshold_on (`logits`: PretrainedSED's script compares
logits with .5), seed, tiny (the stand-in of asjax.data.standins).
Memory: dtype, remat and accumulate as in configs/README.md. Not compiled for a device yet.
Where sources disagree or ours differs: an epoch has fewer pieces than a batch, so the authors take
smaller batches; here 300 epochs are as many pieces in full batches, and so fewer steps. Their
warm-up of 4000 steps never ends; here it is a tenth of the run.
Paper (not ours): its Table II; its numbers are not in asjax.
Result: not yet run.
"""

import os

from asjax import config

MODELS = {  # family: (frontend, file)
    "atst_frame": ("atst_frame_logmel64", "ATST-F"),
    "beats": ("beats_fbank128", "BEATs"),
    "fpasst": ("fpasst_mel128", "fpasst"),
    "m2d": ("m2d_logmel80", "M2D"),
    "asit": ("asit_fbank128", "ASIT"),
}
MODES = {"finetune": (1.06e-4, 300), "frozen": (0.2, 500)}  # lr, epochs
STARTS = {"strong": "_strong_1", "weak": "_weak", "ssl": "_ssl", "none": ""}
PIECES = 216  # of the 18 files of train; only for the length of the warm-up


def get_config(arg=None):
    arg = config.parse_arg(
        arg,
        model="beats",
        mode="finetune",
        start="strong",
        lr=0.0,
        epochs=0,
        threshold_on="probabilities",
        seed=0,
        tiny=False,
        **config.MEMORY,
    )
    for key, known in (("model", MODELS), ("mode", MODES), ("start", STARTS)):
        if getattr(arg, key) not in known:
            raise config.unknown(key, getattr(arg, key), known)
    (frontend, file), (lr, epochs) = MODELS[arg.model], MODES[arg.mode]
    frozen, epochs = arg.mode == "frozen", arg.epochs or epochs
    clip_s, frames = (2.0, 50) if arg.tiny else (10.0, 250)
    root = os.environ.get("ASJAX_DATA", "data")
    path = os.path.join(root, "dcase2016_task2-hear2021-full")
    task = dict(name="hear", path="standin:dcase16" if arg.tiny else path, piece_s=clip_s)
    c = config.new()
    c.seed = arg.seed
    c.total_steps = 2 if arg.tiny else 0
    c.total_epochs = 0.0 if arg.tiny else float(epochs)
    c.batch_size = 4 if arg.tiny else 256
    c.labels = dict(name="own", hlp=False, strict=False)
    c.data = dict(
        train=dict(task, splits=["train"]),
        eval=dict(task, splits=["valid"]),
        test=dict(task, splits=["test"]),
        sample_rate=16_000,
        clip_s=clip_s,
        draw="shuffle",
        ops=f"random_piece(step_s=0.04) | decode | crop | strong(frames={frames}, rule='centre')",
        workers=0 if arg.tiny else 4,
        threads=2,
        cache=False,
        max_bad=0.0,
    )
    c.frontend = dict(name=frontend)
    c.augment = dict(wave="", feats="", normed="")
    if not frozen:
        c.augment.wave = "wavmix(alpha=0.2, rate=0.5, block=8)"
        c.augment.feats = "mixup(alpha=0.2, rate=0.5, style='passt', block=8)"
    c.model = dict(name=arg.model, variant=f"{arg.model}_base", frames=frames)
    if arg.tiny:
        c.model.update(width=16, heads=2, depth=1)
    c.objective = dict(name="detection", strong_weight=1.0, weak_weight=0.0)
    if frozen:
        c.optim = dict(name="adam", lr=arg.lr or lr, schedule="cosine", freeze="all")
    else:
        warmup = 1 if arg.tiny else max(1, epochs * PIECES // 256 // 10)
        c.optim = dict(
            name="adamw",
            lr=arg.lr or lr,
            weight_decay=1e-3,
            schedule=f"cosine(warmup_steps={warmup})",
            layer_decay=0.95,
            layer_rule="pretrained_sed",
        )
    config.save_memory(c, arg)
    c.average = None
    min_s = [0.125, 0.25]
    c.eval = dict(
        every_steps=2 if arg.tiny else 25,
        metric=f"onset_f1(median_s=0.25, min_s={min_s}, threshold_on='{arg.threshold_on}')",
        max_share=1.0,
        select="best",
        batch_size=4 if arg.tiny else 32,
        bootstrap=20 if arg.tiny else 1000,
        median_s=0.25,
        mappings=[],
    )
    c.log = dict(every_steps=1 if arg.tiny else 10, save_steps=2 if arg.tiny else 100)
    c.mesh = ""
    weights = os.path.join(root, "weights", f"{file}{STARTS[arg.start]}.pt")
    c.init_from = "" if arg.tiny or arg.start == "none" else f"backbone:{weights}"
    return c

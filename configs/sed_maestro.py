"""A detector on MAESTRO 5h in HEAR's form: 88 piano keys, 2-minute files, five folds, onset F1.

ASJAX_DATA=/data asjax train --config=configs/sed_maestro.py:model=beats,fold=0 --workdir=runs/fold0
asjax sweep --config=configs/sed_maestro.py --lr 3e-5,1e-4,3e-4 --folds 0,1,2,3,4 --out runs/maestro
asjax train --config=configs/sed_maestro.py:tiny --workdir=runs/tiny

Data: $ASJAX_DATA/maestro-v3.0.0-5h is the unpacked task at 16 kHz, as HEAR gives it, with the folds
fold00 to fold04. $ASJAX_DATA/weights holds the start, PretrainedSED's NAME_strong_1.pt
(`start=weak`: NAME_weak.pt, `ssl`: NAME_ssl.pt, `none`: from scratch; `--config.init_from=runs/x`:
your own).
Recipe: fold i tests, fold i + 1 chooses the step, the other three train. 12 random pieces of 10 s
of every file in an epoch, on the grid of the labels; a label's frame of 40 ms is active if its
centre is inside the note. 50 epochs, batch 256; AdamW, weight decay 1e-3, lr 1.06e-4, layer decay
.95, cosine to 0; wave mixture Beta(.2, .2) and mixup at rate .5; BCE of the frames. `mode=frozen`:
Adam, lr .2, only the head, no mixing.
Score: the scores of a file's 12 pieces are joined; median window 150 ms, shortest note 50 ms,
threshold .5 of the probability; onset F1 of all notes together at 50 ms, also at 200 ms. As in HEAR
the smallest loss chooses the step (`step_by=score`: the onset F1).
Arguments: model (atst_frame, beats, fpasst, m2d, asit), fold (0 to 4), mode (finetune, frozen),
start, lr (0: that of the mode), epochs, threshold_on (`logits`: PretrainedSED's script compares
logits with .5), step_by, seed, tiny (the stand-in of asjax.data.standins).
Memory: dtype, remat and accumulate as in configs/README.md. Not compiled for a device yet.
Where sources disagree or ours differs: the rates and mixtures are those published for DCASE 2016;
HEAR has no values for fine-tuning. Warm-up over a tenth of the run.
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
MODES = {"finetune": 1.06e-4, "frozen": 0.2}  # lr
FOLDS = 5
STARTS = {"strong": "_strong_1", "weak": "_weak", "ssl": "_ssl", "none": ""}
PIECES = 1350  # of three folds of 4500 s; only for the length of the warm-up


def get_config(arg=None):
    arg = config.parse_arg(
        arg,
        model="beats",
        fold=0,
        mode="finetune",
        start="strong",
        lr=0.0,
        epochs=50,
        threshold_on="probabilities",
        step_by="loss",
        seed=0,
        tiny=False,
        **config.MEMORY,
    )
    for key, known in (("model", MODELS), ("mode", MODES), ("start", STARTS)):
        if getattr(arg, key) not in known:
            raise config.unknown(key, getattr(arg, key), known)
    if not 0 <= arg.fold < FOLDS:
        raise config.AsjaxError(f"fold must be 0 to {FOLDS - 1}, got {arg.fold}")
    (frontend, file), lr, frozen = MODELS[arg.model], MODES[arg.mode], arg.mode == "frozen"
    names = [f"fold{(arg.fold + k) % FOLDS:02d}" for k in range(FOLDS)]  # test, eval, train
    clip_s, frames = (2.0, 50) if arg.tiny else (10.0, 250)
    root = os.environ.get("ASJAX_DATA", "data")
    path = os.path.join(root, "maestro-v3.0.0-5h")
    task = dict(name="hear", path="standin:maestro" if arg.tiny else path, piece_s=clip_s)
    c = config.new()
    c.seed = arg.seed
    c.total_steps = 2 if arg.tiny else 0
    c.total_epochs = 0.0 if arg.tiny else float(arg.epochs)
    c.batch_size = 4 if arg.tiny else 256
    c.labels = dict(name="own", hlp=False, strict=False)
    c.data = dict(
        train=dict(task, splits=sorted(names[2:])),
        eval=dict(task, splits=names[1:2]),
        test=dict(task, splits=names[:1]),
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
        warmup = 1 if arg.tiny else max(1, arg.epochs * PIECES // 256 // 10)
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
    how = f"threshold_on='{arg.threshold_on}', step_by='{arg.step_by}'"
    c.eval = dict(
        every_steps=2 if arg.tiny else 25,
        metric=f"onset_f1(median_s=0.15, min_s=0.05, {how})",
        max_share=1.0,
        select="best",
        batch_size=4 if arg.tiny else 32,
        bootstrap=20 if arg.tiny else 1000,
        median_s=0.15,
        mappings=[],
    )
    c.log = dict(every_steps=1 if arg.tiny else 10, save_steps=2 if arg.tiny else 100)
    c.mesh = ""
    weights = os.path.join(root, "weights", f"{file}{STARTS[arg.start]}.pt")
    c.init_from = "" if arg.tiny or arg.start == "none" else f"backbone:{weights}"
    return c

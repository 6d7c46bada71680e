"""A detector on DESED (DCASE 2023 task 4, simplified): strong and weak clips, ten household sounds.

ASJAX_DATA=/data asjax train --config=configs/sed_desed.py:model=beats --workdir=runs/desed
asjax sweep --config=configs/sed_desed.py:mode=frozen --lr 0.1,0.01 --out runs/desed_frozen
asjax train --config=configs/sed_desed.py:tiny --workdir=runs/tiny

Data: $ASJAX_DATA/desed holds records with the splits synthetic (10,000 clips with times), weak
(1578 clips with labels only), synthetic_validation and validation. One command makes them of the
lists of DESED: `asjax prepare strong --events synthetic=soundscapes.tsv synthetic_validation=... \
validation=... --weak weak=weak.tsv --labels desed10 --audio AUDIO --out desed`. The ten parts of
`weak` are made here: the last one is for evaluation. $ASJAX_DATA/weights holds the start,
PretrainedSED's NAME_strong_1.pt (`start=weak`: NAME_weak.pt, `ssl`: NAME_ssl.pt, `none`: from
scratch; `--config.init_from=runs/beats`: your own).
Recipe: batches of 128 synthetic and 128 weak clips; attention head; BCE of the frames of the
synthetic clips and of all clips' labels. 100 epochs of the weak clips; SGD with momentum .9, lr .1,
warm-up over 5 epochs, cosine to 1e-6, gradients clipped at norm 3. `mode=finetune`: all layers,
with layer decay .5. `mode=frozen`: only the head.
Score: macro F1 of the weak clips and intersection F1 of synthetic_validation choose the step. Final
numbers are those of `validation`: PSDS1 with the penalty for differences between classes
(psds1_penalised), median window 280 ms (7 frames).
Arguments: model (atst_frame, beats, fpasst, m2d, asit), mode (finetune, frozen), start, lr, epochs,
optim (sgd, adamw), seed, tiny (the stand-in of asjax.data.standins).
Memory: dtype, remat and accumulate as in configs/README.md. Not compiled for a device yet.
Where sources disagree or ours differs: audiossl's "finetune" trains only the last block and the
last norm; the paper trains all with layer decay .5 and tunes the rate for each cell. DESED's
baseline adds the two F1, which chooses the same step as their mean here. No unlabelled clips, no
mean teacher.
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
STARTS = {"strong": "_strong_1", "weak": "_weak", "ssl": "_ssl", "none": ""}
MODES, OPTIMS = ("finetune", "frozen"), ("sgd", "adamw")
HALF = 128  # synthetic and weak clips of a batch
EPOCH = 11  # steps: 1420 weak clips in full batches
PARTS = 10  # of the weak clips; the last one is for evaluation


def get_config(arg=None):
    arg = config.parse_arg(
        arg,
        model="beats",
        mode="finetune",
        start="strong",
        lr=0.1,
        epochs=100,
        optim="sgd",
        seed=0,
        tiny=False,
        **config.MEMORY,
    )
    for key, known in (
        ("model", MODELS), ("mode", MODES), ("start", STARTS), ("optim", OPTIMS),
    ):  # fmt: skip
        if getattr(arg, key) not in known:
            raise config.unknown(key, getattr(arg, key), known)
    frontend, file = MODELS[arg.model]
    half, parts = (2, 2) if arg.tiny else (HALF, PARTS)
    clip_s, frames = (2.0, 50) if arg.tiny else (10.0, 250)
    root = os.environ.get("ASJAX_DATA", "data")
    path = "standin:desed" if arg.tiny else os.path.join(root, "desed")
    clips = dict(name="records", path=path, folds=parts, of=["weak"])
    weak = [f"part{k + 1}" for k in range(parts)]
    c = config.new()
    c.seed = arg.seed
    c.total_steps = 2 if arg.tiny else arg.epochs * EPOCH
    c.batch_size = 2 * half
    c.labels = dict(name="esc10" if arg.tiny else "desed10", hlp=False, strict=False)
    c.data = dict(
        train=dict(clips, splits=["synthetic", *weak[:-1]]),
        eval=dict(clips, splits=["synthetic_validation", weak[-1]]),
        test=dict(name="records", path=path, splits=["validation"]),
        sample_rate=16_000,
        clip_s=clip_s,
        draw=f"strong_weak(strong={half}, weak={half})",
        ops=f"decode | crop | strong(frames={frames})",
        workers=0 if arg.tiny else 8,
        threads=2,
        cache=False,
        max_bad=0.05,
    )
    c.frontend = dict(name=frontend)
    c.augment = dict(wave="", feats="", normed="")
    c.model = dict(name=arg.model, variant=f"{arg.model}_base", frames=frames, head="attention")
    if arg.tiny:
        c.model.update(width=16, heads=2, depth=1)
    c.objective = dict(name="detection", strong_weight=1.0, weak_weight=1.0)
    warmup = 1 if arg.tiny else 5 * EPOCH
    schedule = f"cosine(warmup_steps={warmup}, end={1e-6 / arg.lr!r})"
    c.optim = dict(name=arg.optim, lr=arg.lr, schedule=schedule, clip_norm=3.0)
    if arg.mode == "frozen":
        c.optim.freeze = "all"
    else:
        c.optim.update(layer_decay=0.5, layer_rule="pretrained_sed")
    config.save_memory(c, arg)
    c.average = None
    c.eval = dict(
        every_steps=2 if arg.tiny else EPOCH,
        metric="weak_strong_f1",
        max_share=1.0,
        select="best",
        batch_size=4 if arg.tiny else 32,
        bootstrap=20 if arg.tiny else 1000,
        median_s=0.28,
        mappings=[],
    )
    c.log = dict(every_steps=1 if arg.tiny else 10, save_steps=2 if arg.tiny else 10 * EPOCH)
    c.mesh = ""
    weights = os.path.join(root, "weights", f"{file}{STARTS[arg.start]}.pt")
    c.init_from = "" if arg.tiny or arg.start == "none" else f"backbone:{weights}"
    return c

"""The pipeline of PretrainedSED (Schmid et al. 2025): clip labels, teachers with RNN, students.

asjax plan sed --data /data --out runs/sed > sed.sh    # all commands in order: docs/sed_pipeline.md
ASJAX_DATA=/data asjax train --config=configs/sed_pipeline.py:model=beats,teacher=runs/logits \\
    --workdir=runs/beats

Stages: `weak` is step 2, configs/sed_strong.py:step=weak. `teacher` is configs/sed_teacher.py.
`student` is configs/sed_strong.py, taught by the logits in the folder `teacher`, which `asjax
logits MODEL... --frames` wrote. It must be given; `teacher=none` learns from the labels alone, and
so does `tiny` without it. These files
say what each recipe is, which data it needs and where ours differs.
Student: weight x BCE of the teachers' probabilities in each frame + (1 - weight) x BCE of the
labels, weight .9; mixing and shifts act on both. Clips without stored logits learn from labels.
Arguments: stage, model (atst_frame, beats, fpasst, m2d, asit), teacher, weight, sequence (none,
gru, lstm, transformer; default: gru for a teacher), start (ssl, weak, none; default: ssl for step
2, else weak), lr (0: the paper's), seed, tiny.
Memory: dtype, remat and accumulate as in configs/README.md.
Paper (not ours): PSDS1 of students, ATST-F 45.8, BEATs 46.5, fPaSST 45.4, M2D 46.3, ASiT 46.2.
Result: not yet run.
"""

import json
import os

from asjax import config
from asjax.data import audioset

MODELS = {  # family: (frontend, file, width of the sequence model)
    "atst_frame": ("atst_frame_logmel64", "ATST-F", 2048),
    "beats": ("beats_fbank128", "BEATs", 2048),
    "fpasst": ("fpasst_mel128", "fpasst", 1024),
    "m2d": ("m2d_logmel80", "M2D", 2048),
    "asit": ("asit_fbank128", "ASIT", 2048),
}
STAGES = {  # epochs, lr, start, sequence model, draw
    "weak": (30, 1e-4, "ssl", "none", "weighted(scheme='passt', replacement=False)"),
    "teacher": (30, 7e-5, "weak", "gru", "importance(draws={draws}, frames={frames})"),
    "student": (120, 1e-4, "weak", "none", "shuffle"),
}
STARTS = ("", "ssl", "weak", "none")
EPOCH = 391  # steps of 256 clips for 100,000
MIXUP = "mixup(alpha=0.2, rate=0.3, style='passt', per_batch=True, block=8)"
SHIFT = "frame_shift(range=0.125)"
FOR_TEACHERS = (
    "freq_mixstyle(alpha=0.4, rate=0.3, block=8)"
    " | filter_augment(max_db=6.0, bands=(3, 5), min_width=6, rate=0.8)"
    " | freq_warp(low=0.6, rate=0.8)"
)


def get_config(arg=None):
    arg = config.parse_arg(
        arg,
        stage="student",
        model="beats",
        teacher="",
        weight=0.9,
        sequence="",
        start="",
        lr=0.0,
        seed=0,
        tiny=False,
        **config.MEMORY,
    )
    for key, known in (("stage", STAGES), ("model", MODELS), ("start", STARTS)):
        if getattr(arg, key) not in known:
            raise config.unknown(key, getattr(arg, key), known)
    if arg.teacher and arg.stage != "student":
        raise config.AsjaxError(f"teacher belongs to stage=student, and the stage is {arg.stage}")
    teacher = ""
    if arg.stage == "student":
        command = "asjax logits TEACHER... --frames --data TRAIN --out FOLDER"
        teacher = config.teacher_of(arg, command)
    frontend, file, width = MODELS[arg.model]
    epochs, lr, start, sequence, draw = STAGES[arg.stage]
    sequence, start = arg.sequence or sequence, arg.start or start
    events, frames = arg.stage != "weak", 50 if arg.tiny else 250
    c = config.new()
    c.seed = arg.seed
    c.total_steps = 2 if arg.tiny else epochs * EPOCH
    c.batch_size = 4 if arg.tiny else 256
    labels = ("esc10" if arg.tiny else "audioset_strong447") if events else "audioset527"
    c.labels = dict(name=labels, hlp=False, strict=False)
    if events:
        draw = draw.format(draws=8 if arg.tiny else 100_000, frames=frames)
        c.data = audioset.strong_recipe_data(tiny=arg.tiny, draw=draw, frames=frames)
    else:
        c.data = audioset.recipe_data(tiny=arg.tiny, draw=draw, sample_rate=16_000)
    c.frontend = dict(name=frontend)
    feats = {
        "weak": MIXUP,
        "teacher": f"{SHIFT} | {MIXUP} | {FOR_TEACHERS}",
        "student": f"{SHIFT} | {MIXUP}",
    }
    wave = f"wavmix(alpha=2.0, rate={1.0 if arg.stage == 'teacher' else 0.5}, block=8)"
    c.augment = dict(wave=wave, feats=feats[arg.stage], normed="")
    c.model = dict(
        name=arg.model,
        variant=f"{arg.model}_base",
        frames=frames,
        sequence=None if sequence == "none" else sequence,
    )
    if sequence != "none":
        c.model.sequence_width = width
    if arg.tiny:
        c.model.update(width=16, heads=2, depth=1, sequence_width=4)
    c.objective = dict(name="tagging", label_smoothing=0.0)
    if events:
        c.objective = dict(name="detection", strong_weight=1.0, weak_weight=0.0)
    if teacher:
        c.data.ops += f" | teacher(path={json.dumps(teacher, ensure_ascii=False)})"
        base = dict(base="detection", strong_weight=1.0, weak_weight=0.0)
        c.objective = dict(name="distillation", weight=arg.weight, **base)
    warmup = 1 if arg.tiny else 5000
    c.optim = dict(name="adam", lr=arg.lr or lr, schedule=f"cosine(warmup_steps={warmup})")
    config.save_memory(c, arg)
    c.average = None
    c.eval = dict(
        every_steps=2 if arg.tiny else 5 * EPOCH,
        max_share=1.0,  # the paper evaluates at fixed steps
        select="last",
        batch_size=4 if arg.tiny else 32,
        bootstrap=20 if arg.tiny else (100 if events else 1000),
        only_with_events=events,  # as the published PSDS1
        mappings=["audioset_strong407"] if events and not arg.tiny else [],
    )
    c.log = dict(every_steps=1 if arg.tiny else 50, save_steps=2 if arg.tiny else EPOCH)
    c.mesh = ""
    weights = os.path.join(os.environ.get("ASJAX_DATA", "data"), "weights", f"{file}_{start}.pt")
    c.init_from = "" if arg.tiny or start == "none" else f"backbone:{weights}"
    return c

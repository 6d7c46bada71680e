"""Sound events in time on a laptop: scenes mixed from 398 real recordings of ESC-10.

asjax train --config=configs/quickstart_sed.py --workdir=runs/sed
asjax tag recording.wav --events --model=runs/sed

The scenes of training are mixed while it runs, from the recordings of four folds. The model is
scored on scenes with recordings of the fifth. Model, steps, rate and median window were chosen with
fold 4 in its place.
Arguments: fold (the one held out), seed, steps, scenes (of the evaluation), causal (a model that
looks at no later sound, for `asjax listen --events`), tiny (two steps).
Result: configs/README.md.
"""

from asjax import config


def get_config(arg=None):
    arg = config.parse_arg(arg, fold=5, seed=0, steps=400, scenes=200, causal=False, tiny=False)
    folds = [f"fold{k}" for k in range(1, 6) if k != arg.fold]
    c = config.new()
    c.seed = arg.seed
    c.total_steps = 2 if arg.tiny else arg.steps
    c.batch_size = 4 if arg.tiny else 16
    c.labels = dict(name="esc10", hlp=False, strict=False)
    c.data = dict(
        train=dict(
            name="soundscapes", splits=folds, clips=16 if arg.tiny else 10_000, seed=arg.seed
        ),
        eval=dict(
            name="soundscapes", splits=[f"fold{arg.fold}"], clips=4 if arg.tiny else arg.scenes
        ),
        sample_rate=16_000,
        clip_s=10.0,
        draw="shuffle",
        ops="decode | crop | strong",
        workers=0,
        threads=2,
        cache=False,
        max_bad=0.05,
    )
    c.frontend = dict(name="panns_logmel", sample_rate=16_000, n_mels=64, n_fft=512, hop=320)
    c.augment = dict(wave="", feats="", normed="")
    # 500 frames of features, 125 in the network, 250 frames of 40 ms at its output
    c.model = dict(name="talnet", variant="crnn_mini", width=256, frames=250)
    if arg.causal:  # 125 frames of 80 ms
        c.data.ops = "decode | crop | strong(frame_rate=12.5)"
        c.frontend.centred = False
        c.model = dict(name="talnet", variant="crnn_causal", width=256)
    c.objective = dict(name="detection")
    c.optim = dict(
        name="adamw",
        lr=7e-3,
        weight_decay=1e-3,
        schedule=f"cosine(warmup_steps={max(1, c.total_steps // 10)})",
        clip_norm=1.0,
    )
    c.average = dict(name="ema", decay=0.99)
    c.eval = dict(
        every_steps=100,
        max_share=1.0,
        select="last",  # no step is chosen by the scores
        median_s=0.84,  # chosen on scenes of fold 4 by a model that was trained without it
        batch_size=16,
        bootstrap=1000,
        mappings=[],
    )
    c.log = dict(every_steps=10, save_steps=1000)
    c.mesh = ""
    c.init_from = ""
    return c

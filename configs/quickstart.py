"""ESC-10 on a laptop: HLP, beta-balancing and mixup on 398 real recordings.

asjax train --config=configs/quickstart.py --workdir=runs/quickstart
asjax train --config=configs/quickstart.py:beta=0.5,hlp=False,fold=3 --workdir=runs/other
asjax train --config=configs/quickstart.py:crop=2 --workdir=runs/live

Arguments: beta (oversampling exponent), hlp, fold (the one held out), model (one of MODELS), seed,
steps, crop (seconds of a clip that a step hears, for `asjax listen`; 5: all), tiny (two steps, for
tests).
Result: configs/README.md.
"""

from asjax import config

MODELS = {
    "mini": dict(name="cnn", variant="mini", block_dropout=0.0, head_dropout=0.0, head_bias=-5.0),
    "cnn6": dict(name="cnn", variant="cnn6"),
    "convnext_mini": dict(
        name="convnext",
        variant="atto",
        dims=(16, 32, 64, 128),
        depths=(1, 1, 3, 1),
        n_mels=64,
        layer_scale=0.1,
        head_bias=-5.0,
    ),
}


def get_config(arg=None):
    arg = config.parse_arg(
        arg, beta=0.5, hlp=True, fold=5, model="mini", seed=0, steps=480, crop=5.0, tiny=False
    )
    folds = [f"fold{k}" for k in range(1, 6) if k != arg.fold]
    if arg.model not in MODELS:
        raise config.unknown("model", arg.model, MODELS)
    # a recording may be half silent, so a short piece is taken where the sound is
    crop = "crop" if arg.crop == 5 else f"crop(train_s={arg.crop:g}, loud=True)"
    c = config.new()
    c.seed = arg.seed
    c.total_steps = 2 if arg.tiny else arg.steps
    c.batch_size = 8 if arg.tiny else 32
    c.labels = dict(name="audioset527", hlp=arg.hlp, strict=False)
    c.data = dict(
        train=dict(name="esc10", splits=folds),
        eval=dict(name="esc10", splits=[f"fold{arg.fold}"]),
        sample_rate=16_000,
        clip_s=5.0,
        draw=f"oversample(beta={arg.beta})",
        ops=f"decode | {crop} | multihot",
        workers=0,
        threads=2,
        cache=True,
        max_bad=0.05,
    )
    c.frontend = dict(name="panns_logmel", sample_rate=16_000, n_mels=64, n_fft=512, hop=512)
    c.augment = dict(
        wave="roll(fraction=1.0)",
        feats="",
        normed="specaug(time_width=16, freq_width=4) | mixup(alpha=0.3, style='plain', block=8)",
    )
    c.model = MODELS[arg.model]
    c.objective = dict(name="tagging", label_smoothing=0.0)
    c.optim = dict(
        name="adamw",
        lr=5e-3,
        weight_decay=1e-3,
        schedule=f"cosine(warmup_steps={c.total_steps // 10})",
        clip_norm=1.0,
    )
    c.average = dict(name="ema", decay=0.99)
    c.eval = dict(
        every_steps=20,
        max_share=1.0,
        metric="d_prime",
        select="smooth(window=7)",  # the balancing paper's rule
        batch_size=16,
        bootstrap=1000,
        mappings=["esc10"],
    )
    c.log = dict(every_steps=10, save_steps=50)
    c.mesh = ""
    c.init_from = ""
    return c

"""The six architectures of AudioTagging Done Right, small, under one procedure on ESC-10.

asjax train --config=configs/esc10_architectures.py:model=crnn,fold=5 --workdir=runs/esc10_crnn

benchmarks/architectures_esc10.py runs them all and draws the comparison. The procedure is of A4's
kind: from scratch, 64 log-mel bands, mixup of waves, SpecAugment, oversampling; AdamW with a
cosine, 480 steps.
Arguments: model (one of MODELS), fold (the one held out), steps, lr, seed, tiny.
Result: benchmarks/README.md.
"""

from asjax import config

HEAD = dict(head_bias=-5.0)
MODELS = {
    "ast": dict(
        name="ast",
        variant="tiny224",
        width=96,
        heads=4,
        depth=4,
        n_mels=64,
        frames=200,
        stride=(16, 10),
        **HEAD,
    ),
    "transformer": dict(name="transformer", variant="transformer_mini", **HEAD),
    "cnn_transformer": dict(
        name="talnet", variant="cnn_transformer_mini", transformer_dropout=0.1, **HEAD
    ),
    "conformer": dict(name="conformer", variant="conformer_mini", **HEAD),
    "resnet": dict(name="resnet_att", variant="resnet_mini", **HEAD),
    "crnn": dict(name="talnet", variant="crnn_mini", **HEAD),
}


def get_config(arg=None):
    arg = config.parse_arg(arg, model="crnn", fold=5, steps=480, lr=2e-3, seed=0, tiny=False)
    if arg.model not in MODELS:
        raise config.unknown("model", arg.model, MODELS)
    folds = [f"fold{k}" for k in range(1, 6) if k != arg.fold]
    c = config.new()
    c.seed = arg.seed
    c.total_steps = 2 if arg.tiny else arg.steps
    c.batch_size = 8 if arg.tiny else 32
    c.labels = dict(name="audioset527", hlp=True, strict=False)
    c.data = dict(
        train=dict(name="esc10", splits=folds),
        eval=dict(name="esc10", splits=[f"fold{arg.fold}"]),
        sample_rate=16_000,
        clip_s=5.0,
        draw="oversample(beta=0.5)",
        workers=0,
        threads=2,
        cache=True,
        max_bad=0.05,
    )
    c.frontend = dict(
        name="atdr_logmel64", n_fft=1024, db_multiplier=10, frames=200, mean=-20.0, std=20.0
    )
    c.augment = dict(
        wave="roll(fraction=1.0)"
        " | mixup(alpha=1.0, rate=0.3, style='plain', remove_mean=True, block=8)",
        feats="specaug(time_width=25, time_stripes=1, freq_width=8, freq_stripes=1, "
        "law='torchaudio', fill=0.5)",
        normed="",
    )
    c.model = MODELS[arg.model]
    c.objective = dict(name="tagging", label_smoothing=0.0)
    c.optim = dict(
        name="adamw",
        lr=arg.lr,
        weight_decay=1e-3,
        schedule=f"cosine(warmup_steps={c.total_steps // 10})",
        clip_norm=1.0,
    )
    c.average = dict(name="ema", decay=0.99)
    c.eval = dict(
        every_steps=max(1, c.total_steps // 4),
        max_share=1.0,
        select="last",  # no step is chosen on the reported fold
        batch_size=16,
        bootstrap=20,
        mappings=["esc10"],
    )
    c.log = dict(every_steps=10, save_steps=max(1, c.total_steps // 2))
    c.mesh = ""
    c.init_from = ""
    return c

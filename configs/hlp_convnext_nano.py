"""ConvNeXt nano of the HLP paper (Table III): the audio ConvNeXt recipe, HLP on or off.

ASJAX_DATA=/data asjax train --config=configs/hlp_convnext_nano.py --workdir=runs/nano_hlp
ASJAX_DATA=/data asjax train --config=configs/hlp_convnext_nano.py:hlp=False --workdir=runs/nano

Data: $ASJAX_DATA/audioset holds the records `asjax prepare` wrote, splits `train` and `eval`.
Recipe: as convnext_tiny.py (the repository's defaults), but no balancing, which the HLP paper rules
out ("no specific sampler"), and from scratch: the reference's "pretrained" nano loads nothing, its
names agree with no name of the file.
Arguments: hlp, beta (> 0 replaces the sampler), draw, label_smoothing, stem, drop_path, seed, tiny.
Where sources disagree: the paper prints 15.5 M parameters, its code gives 15.29 M, taken here. The
paper trains nano on 4 GPUs and names no batch; 8 x 32 mixed clips as for the others. It names label
smoothing without a value, the reference has none: 0.
Paper (not ours), base / HLP labels / HLP labels and scores / FSD50K zero-shot: trained with HLP
mAP 39.9 / 41.2 / 41.0 / 42.4, without 40.1 / 41.4 / 41.4 / 42.3.
Result: not yet run.
"""

from asjax import config


def get_config(arg=None):
    arg = config.parse_arg(
        arg,
        hlp=True,
        beta=0.0,
        draw="shuffle",
        label_smoothing=0.0,
        stem="252x56",
        drop_path=0.0,
        seed=0,
        tiny=False,
    )
    c = config.new()
    c.seed = arg.seed
    c.total_steps = 2 if arg.tiny else 75_000
    c.batch_size = 4 if arg.tiny else 512
    c.labels = dict(name="audioset527", hlp=arg.hlp, strict=False)
    c.data = config.audioset_data(
        tiny=arg.tiny, draw=f"oversample(beta={arg.beta})" if arg.beta else arg.draw
    )
    c.frontend = dict(name="panns_logmel", sample_rate=32_000, n_mels=224)
    c.augment = dict(
        wave="",
        feats="",
        normed="specaug(time_width=64, freq_width=28) | mixup(alpha=1.0, style='panns')",
    )
    c.model = dict(name="convnext", variant="nano", stem=arg.stem, drop_path_rate=arg.drop_path)
    if arg.tiny:
        c.model.update(dims=(4, 8, 16, 32), depths=(1, 1, 1, 1))
    c.objective = dict(name="tagging", label_smoothing=arg.label_smoothing)
    c.optim = dict(
        name="adam",
        lr=1e-3,
        amsgrad=True,
        schedule=f"one_cycle(pct_start={0.75 if arg.tiny else 0.3})",
    )
    c.average = None
    c.eval = dict(
        every_steps=2 if arg.tiny else 2_000,
        batch_size=4 if arg.tiny else 64,
        bootstrap=20 if arg.tiny else 1000,
        mappings=[],
    )
    c.log = dict(every_steps=1 if arg.tiny else 100, save_steps=2 if arg.tiny else 2_000)
    c.mesh = ""
    c.init_from = ""
    return c

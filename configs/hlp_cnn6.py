"""CNN6 of the HLP paper (Table III): PANNs' recipe on AudioSet, HLP on or off.

ASJAX_DATA=/data asjax train --config=configs/hlp_cnn6.py:hlp=True --workdir=runs/cnn6_hlp

Data: $ASJAX_DATA/audioset holds the records `asjax prepare` wrote, splits `train` and `eval`.
Recipe: Adam with amsgrad, lr 1e-3 constant, batch 64 drawn and mixed to 32, SpecAugment 2 x 64
frames and 2 x 8 bins, mixup Beta(1, 1), both after bn0, 600,000 steps (PANNs' report; the script
runs to 1,000,000).
Arguments: hlp, beta (> 0 replaces the sampler), draw, label_smoothing, seed, tiny.
Memory: dtype, remat and accumulate as in configs/README.md. Compiled: one H100 (80 GB) needs 1.5
GiB.
Where sources disagree: the HLP paper uses no balancing sampler, hence `draw=shuffle`; PANNs' own is
`draw=class_queue` (and gives mAP .343 for this model). It names label smoothing without a value and
the reference code has none: 0 here.
Paper (not ours), base / HLP labels / HLP labels and scores / FSD50K zero-shot: trained with HLP
mAP 30.4 / 34.2 / 34.3 / 34.3, without 30.6 / 31.1 / 32.8 / 31.3.
Result: not yet run.
"""

from asjax import config
from asjax.data import audioset


def get_config(arg=None):
    arg = config.parse_arg(
        arg,
        hlp=True,
        beta=0.0,
        draw="shuffle",
        label_smoothing=0.0,
        seed=0,
        tiny=False,
        **config.MEMORY,
    )
    c = config.new()
    c.seed = arg.seed
    c.total_steps = 2 if arg.tiny else 600_000
    c.batch_size = 4 if arg.tiny else 64
    c.labels = dict(name="audioset527", hlp=arg.hlp, strict=False)
    c.data = audioset.recipe_data(
        tiny=arg.tiny, draw=f"oversample(beta={arg.beta})" if arg.beta else arg.draw
    )
    c.frontend = dict(name="panns_logmel", sample_rate=32_000, n_mels=64)
    c.augment = dict(
        wave="",
        feats="",
        normed="specaug(time_width=64, freq_width=8) | mixup(alpha=1.0, style='panns')",
    )
    c.model = dict(name="cnn", variant="cnn6")
    if arg.tiny:
        c.model.update(channels=(4, 4, 8, 8), width=8)
    c.objective = dict(name="tagging", label_smoothing=arg.label_smoothing)
    c.optim = dict(name="adam", lr=1e-3, amsgrad=True, schedule="constant")
    config.save_memory(c, arg)
    c.average = None
    c.eval = dict(
        every_steps=2 if arg.tiny else 2_000,
        max_share=1.0,  # the paper evaluates at fixed steps
        batch_size=4 if arg.tiny else 64,
        bootstrap=20 if arg.tiny else 1000,
        mappings=[],
    )
    c.log = dict(every_steps=1 if arg.tiny else 100, save_steps=2 if arg.tiny else 2_000)
    c.mesh = ""
    c.init_from = ""
    return c

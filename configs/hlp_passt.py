"""PaSST-S (Koutini et al. 2022) by its authors' recipe, HLP on or off (Table III of the HLP paper).

ASJAX_DATA=/data asjax train --config=configs/hlp_passt.py --workdir=runs/passt_hlp
ASJAX_DATA=/data asjax train --config=configs/hlp_passt.py:hlp=False --workdir=runs/passt

Data: $ASJAX_DATA/audioset holds the records `asjax prepare` wrote, splits `train` and `eval`;
$ASJAX_DATA/weights/deit_base_distilled_patch16_384-d0272ac0.pth the ImageNet start (github.com/
facebookresearch/deit; `imagenet=False` starts from scratch).
Recipe: 130 epochs of 100,000 clips drawn by weight without replacement, batch 12; AdamW, lr 2e-5,
weight decay 1e-4 on everything; per epoch exponential warm-up over 5, flat to 50, linear to 1 %
over 50, flat; waves: gain -7..6 dB, roll +-50 samples, mixup at rate .5 with Beta(2, 2), without
means; features: filter edges drawn per batch, one mask of < 192 frames and one of < 48 bins per
batch, mixup Beta(.3, .3); structured patchout of 40 columns and 4 rows; mean of the weights at the
starts of epochs 49, 54, ..., 129 (counted from 0), which is what is evaluated from then on.
Arguments: hlp, beta (> 0 replaces the sampler), draw, stride, s_patchout_t, s_patchout_f,
u_patchout (PaSST-U: u_patchout=400,s_patchout_t=0,s_patchout_f=0), imagenet, label_smoothing, seed,
tiny. The schedule's epoch stays 100,000 clips whatever the draw.
Memory: dtype, remat and accumulate as in configs/README.md. Compiled: one H100 (80 GB) needs 7.7
GiB; 8 TPU v5e chips (2x4, 16 GB), with 16 clips, 2.9 GiB each.
Where sources disagree or ours differs: the HLP paper calls it PaSST-B, the model of 86 M is
PaSST-S; it is read as the authors' recipe with their sampler. Partners of the wave mixup come from
the same batch, the authors' from the whole list. The authors' permutation of features leaves one
clip in 12 as it is, so the rate is 11 / 12. The authors' no-decay list is never used in their code:
all decays.
Paper (not ours), base / HLP labels / HLP labels and scores / FSD50K zero-shot: trained with HLP
mAP 44.9 / 47.8 / 47.8 / 51.6, without 45.0 / 47.5 / 47.6 / 51.0; the authors' own .476 averaged.
Result: not yet run.
"""

import os

from asjax import config
from asjax.data import audioset

IMAGENET = "deit_base_distilled_patch16_384-d0272ac0.pth"
BATCH, EPOCH_CLIPS, EPOCHS = 12, 100_000, 130


def get_config(arg=None):
    arg = config.parse_arg(
        arg,
        hlp=True,
        beta=0.0,
        draw="weighted(scheme='passt', replacement=False)",
        stride=10,
        s_patchout_t=40,
        s_patchout_f=4,
        u_patchout=0,
        imagenet=True,
        label_smoothing=0.0,
        seed=0,
        tiny=False,
        **config.MEMORY,
    )
    epoch_steps = 1 if arg.tiny else -(-EPOCH_CLIPS // BATCH)
    c = config.new()
    c.seed = arg.seed
    c.total_steps = 2 if arg.tiny else EPOCHS * epoch_steps
    c.batch_size = 4 if arg.tiny else BATCH
    c.labels = dict(name="audioset527", hlp=arg.hlp, strict=False)
    c.data = audioset.recipe_data(
        tiny=arg.tiny, draw=f"oversample(beta={arg.beta})" if arg.beta else arg.draw
    )
    c.frontend = dict(name="passt_mel128")
    mixed = round((BATCH - 1) / BATCH, 4)  # of a permutation of the batch, the others stay
    c.augment = dict(
        wave="gain(low_db=-7, high_db=6) | roll(samples=50)"
        " | mixup(alpha=2.0, rate=0.5, style='passt', remove_mean=True, block=8)",
        # 0 in the authors' log domain is 0.9 after (x + 4.5) / 5
        feats="specaug(time_width=192, time_stripes=1, freq_width=48, freq_stripes=1, fill=0.9,"
        " law='torchaudio', per_batch=True)"
        f" | mixup(alpha=0.3, rate={mixed}, style='passt', block=8)",
        normed="",
    )
    c.model = dict(
        name="passt",
        variant="passt_s",
        stride=arg.stride,
        s_patchout_t=arg.s_patchout_t,
        s_patchout_f=arg.s_patchout_f,
        u_patchout=arg.u_patchout,
    )
    if arg.tiny:
        c.model.update(width=16, heads=2, depth=1, frames=100, s_patchout_t=2)
    c.objective = dict(name="tagging", label_smoothing=arg.label_smoothing)
    c.optim = dict(
        name="adamw",
        lr=2e-5,
        weight_decay=1e-4,
        decay_1d=True,
        schedule=f"passt(epoch_steps={epoch_steps})",
    )
    config.save_memory(c, arg)
    # The step that ends epoch 48 (from 0) gives the weights at the start of epoch 49.
    c.average = dict(
        name="swa",
        start_step=0 if arg.tiny else 49 * epoch_steps - 1,
        every_steps=5 * epoch_steps,
    )
    c.eval = dict(
        every_steps=2 if arg.tiny else epoch_steps,
        max_share=1.0,  # the paper evaluates at fixed steps
        select="last",  # the average of the last epochs
        batch_size=4 if arg.tiny else 20,
        bootstrap=20 if arg.tiny else 1000,
        mappings=[],
    )
    c.log = dict(every_steps=1 if arg.tiny else 100, save_steps=2 if arg.tiny else epoch_steps)
    c.mesh = ""
    weights = os.path.join(os.environ.get("ASJAX_DATA", "data"), "weights", IMAGENET)
    c.init_from = f"imagenet:{weights}" if arg.imagenet and not arg.tiny else ""
    return c

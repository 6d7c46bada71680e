"""Augmentations on device, per batch: `op(rng, batch, *, ...) -> batch`, pure and jit-able.

An op changes some of these arrays and returns all others as they are:

    wave [B, S] float                feats [B, T, F] float
    target [B, C] float              labels of a clip
    frame_target [B, T', C] float    labels of its frames
    teacher [B, T', C] float         a teacher's probabilities of the frames, and of the clip: the
    clip_teacher [B, C] float        objective takes the sigmoid of logits first, because mixed
                                     logits are other targets
    mask, has_strong, has_weak,      0: padding, no labels of frames, no labels of the clip, no
    has_teacher [B]                  teacher

An op that changes time also moves `frame_target` and `teacher`, or refuses a batch that has them.
It moves them together with the wave or the features, so it needs these in the same batch. In
`augment.normed` features and labels are apart: there it refuses labels of frames.

The random draws do not depend on which arrays the batch has. So two calls with the same `rng`, one
with the targets and one with the features, make the same choices. Arithmetic is float32 and each
array keeps its dtype. `roll` also takes an integer wave.

    augment = asjax.build.augment("specaug(time_width=64) | mixup(alpha=1.0)")
    batch = augment(rng, {"feats": feats, "target": target})

An op checks its keywords first, so a call with an empty batch only checks them.
"""

from asjax.augment.frequency import filter_augment, freq_mixstyle, freq_warp
from asjax.augment.masks import noise, specaug, time_mask
from asjax.augment.mixing import mixup, wavmix
from asjax.augment.shifts import frame_shift, roll, roll_frames
from asjax.augment.waves import gain, speed

__all__ = [
    "filter_augment",
    "frame_shift",
    "freq_mixstyle",
    "freq_warp",
    "gain",
    "mixup",
    "noise",
    "roll",
    "roll_frames",
    "specaug",
    "speed",
    "time_mask",
    "wavmix",
]

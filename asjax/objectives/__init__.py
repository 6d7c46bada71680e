"""Objectives: batch + model -> loss, scalars, new statistics. Pure, run inside the jitted step.

A batch has `wave` [B, S], `target` [B, C], `mask` [B], and all other arrays [B, ...] from the host
ops of the config. A wave may be int16, so an objective begins with `to_float`. The host op `strong`
adds `frame_target` [B, T', C], `has_strong` [B] and `has_weak` [B].

The order for targets is fixed and tested: HLP on the hard labels, then mixup (in `augment`), then
label smoothing. HLP must come before mixup, because propagating mixed labels gives other targets
than mixing propagated labels.

`tagging` has one sigmoid per class: a clip may have no, one or several labels. `classify` has one
softmax over the classes: every clip has exactly one label. `auto` stands for one of them, and
`choose` decides by the labels of the training clips. `detection` has one sigmoid per class and
frame, and one per class and clip. `distillation` is `tagging` or `detection` with a teacher: the
host op `teacher` adds `teacher` [B, T', C], `clip_teacher` [B, C] and `has_teacher` [B].
"""

from asjax.objectives.classify import auto, classify
from asjax.objectives.classify import choose as choose
from asjax.objectives.detection import detection
from asjax.objectives.distillation import distillation
from asjax.objectives.tagging import tagging

__all__ = ["auto", "classify", "detection", "distillation", "tagging"]

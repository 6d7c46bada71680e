"""Tags of clips, one sigmoid per class."""

from __future__ import annotations

from typing import Any

import numpy as np

from asjax.objectives.checks import check_share
from asjax.objectives.forward import of_clips, propagated
from asjax.objectives.losses import bce, smooth


def tagging(
    *,
    model,
    frontend,
    augment: dict[str, Any] | None = None,
    closure: np.ndarray | None = None,
    label_smoothing: float = 0.0,
    class_mask: np.ndarray | None = None,
):
    """Clip tagging with BCE (HLP paper; Dataset balancing paper; PANNs, ConvNeXt, PaSST recipes).

    Args:
      model: linen module, `feats [B, T, F] -> {"logits": [B, C], ...}`.
      frontend: `wave [B, S] -> feats [B, T, F]`.
      augment: place -> op chain `(rng, batch) -> batch`. Places: `wave`, `feats` (frontend output)
        and `normed` (after the model's input normalisation, where PANNs and ConvNeXt augment).
      closure: bool [C, C] (child, ancestor) for HLP; None: no HLP.
      class_mask: [C], 0 leaves a class out of the loss.

    Returns:
      `loss_fn(params, stats, batch, rng) -> (loss, (scalars, new_stats))`.

    Raises:
      AsjaxError: there are ops for `normed`, and the model's call takes no `augment`, or
        `label_smoothing` is not a share.
    """
    check_share("label_smoothing", label_smoothing)

    def hard(batch):
        return propagated(batch, closure, "target")

    def loss(outputs, item):
        target = smooth(item["target"], label_smoothing)
        return {"loss": bce(outputs["logits"], target, item["mask"], class_mask)}

    return of_clips(model, frontend, augment, hard, loss)

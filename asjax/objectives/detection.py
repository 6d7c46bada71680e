"""Events in time: one sigmoid per class and frame, and one per class and clip."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from asjax.config import AsjaxError
from asjax.objectives.checks import check_loss_weights, frame_logits
from asjax.objectives.forward import of_clips, propagated
from asjax.objectives.losses import bce


def detection(
    *,
    model,
    frontend,
    augment: dict[str, Any] | None = None,
    closure: np.ndarray | None = None,
    strong_weight: float = 1.0,
    weak_weight: float = 1.0,
    class_mask: np.ndarray | None = None,
):
    """Events in time: BCE of every frame plus BCE of the clip (PretrainedSED: the frames alone).

    A batch may mix three kinds of clips: with events in time (`has_strong`), with labels only
    (`has_weak`), with both. Each loss is a mean over the clips that have its labels, or 0 if no
    clip of the batch has them.

    Args:
      model: `feats -> {"frame_logits": [B, T', C], "logits": [B, C], ...}`.
      frontend, augment: as in `tagging`.
      closure: bool [C, C] for HLP, on the frames and on the clips; None: no HLP.
      strong_weight, weak_weight: weights of the two losses.
      class_mask: [C], 0 leaves a class out of the loss.

    Returns:
      `loss_fn(params, stats, batch, rng) -> (loss, (scalars, new_stats))`; the scalars also have
      strong_loss and weak_loss. `loss_fn.whole(batch)` is for `step.accumulated`.

    Raises:
      AsjaxError: a negative weight, or both are 0; as `tagging`. When traced: the batch has no
        frame_target, or the model's frame_logits have another shape.
    """
    check_loss_weights(strong_weight, weak_weight)

    def hard(batch):
        if "frame_target" not in batch:
            raise AsjaxError(
                "objective detection needs frame_target from the host op strong; set "
                '--config.data.ops="decode | crop | strong"'
            )
        return propagated(batch, closure, "target", "frame_target")

    def mean(item, kind, logits, target):
        """The mean over the clips with labels of this kind; in a part of a batch, see `whole`."""
        share = item.get(f"share_{kind}")
        rows = None if share is None else share[0] * item["mask"].sum()
        return bce(logits, target, item["mask"] * item[f"has_{kind}"], class_mask, rows)

    def loss(outputs, item):
        frames = frame_logits(model, outputs, item["frame_target"])
        strong = mean(item, "strong", frames, item["frame_target"])
        weak = mean(item, "weak", outputs["logits"], item["target"])
        value = strong_weight * strong + weak_weight * weak
        return {"loss": value, "strong_loss": strong, "weak_loss": weak}

    loss_fn = of_clips(model, frontend, augment, hard, loss)
    loss_fn.whole = _whole
    return loss_fn


def _whole(batch):
    """`batch` with the shares of its clips that have each kind of labels, [B] each.

    A part of a batch may have another share of such clips than the batch. With the shares of the
    batch, the losses of the parts add up to the loss of the batch. Mixing may change the shares: a
    mixture has a kind of labels only if both clips have it. Such mixtures then count 0 in parts.
    """
    mask = batch["mask"]
    real = jnp.maximum(mask.sum(), 1.0)
    shares = {
        f"share_{kind}": jnp.full(mask.shape, (mask * batch[f"has_{kind}"]).sum() / real)
        for kind in ("strong", "weak")
    }
    return {**batch, **shares}

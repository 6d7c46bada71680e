"""Objectives: batch + model -> loss, scalars, new statistics. Pure, run inside the jitted step.

A batch has `wave` [B, S], `target` [B, C], `mask` [B], and all other arrays [B, ...] from the host
ops of the config. A wave may be int16, so an objective begins with `to_float`.

The order for targets is fixed and tested: HLP on the hard labels, then mixup (in `augment`), then
label smoothing. HLP must come before mixup, because propagating mixed labels gives other targets
than mixing propagated labels.
"""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from asjax import hlp
from asjax.config import AsjaxError
from asjax.frontends import to_float

__all__ = ["tagging"]

AUGMENT_PLACES = ("wave", "feats", "normed")


def bce(logits, target, mask=None, class_mask=None):
    """Mean binary cross-entropy of logits [B, C], in float32, without masked rows and classes.

    Args:
      mask: [B], 0 for padding rows. class_mask: [C], 0 for classes to leave out of the loss.
    """
    loss = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), target)  # [B, C]
    weight = jnp.ones_like(loss)
    if mask is not None:
        weight = weight * mask[:, None]
    if class_mask is not None:
        weight = weight * jnp.asarray(class_mask, jnp.float32)[None, :]
    return jnp.sum(loss * weight) / jnp.maximum(jnp.sum(weight), 1.0)


def smooth(target, amount: float):
    """Label smoothing of independent binary targets: `y (1 - a) + a / 2`."""
    return target * (1.0 - amount) + 0.5 * amount if amount else target


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
      AsjaxError: there are ops for `normed`, and the model's call takes no `augment`.
    """
    chains = {place: (augment or {}).get(place) or _identity for place in AUGMENT_PLACES}
    normed = chains["normed"] is not _identity and getattr(chains["normed"], "names", True)
    if normed and "augment" not in inspect.signature(type(model).__call__).parameters:
        raise AsjaxError(
            "augment.normed needs a model whose __call__ takes augment, and "
            f"{type(model).__name__} does not; use augment.feats"
        )

    def loss_fn(params, stats, batch, rng):
        wave_rng, feats_rng, normed_rng, dropout_rng = jax.random.split(rng, 4)
        target = batch["target"]
        if closure is not None:
            target = hlp.propagate_labels(target, closure)
        # Other arrays stay in the batch, because the augmentation may reorder its rows.
        item = {**batch, "wave": to_float(batch["wave"]), "target": target}
        item = chains["wave"](wave_rng, item)
        item["feats"] = _features(frontend, item.pop("wave"), rng)
        item = chains["feats"](feats_rng, item)
        # The same key gives the same draws for features (inside the model) and for targets (here).
        feats = item.pop("feats")
        item = chains["normed"](normed_rng, item)
        inside = lambda x: chains["normed"](normed_rng, {"feats": x})["feats"]  # noqa: E731
        outputs, new_stats = model.apply(
            {"params": params, **stats},
            feats,
            train=True,
            **({"augment": inside} if normed else {}),
            mutable=list(stats),
            rngs={"dropout": dropout_rng},
        )
        loss = bce(
            outputs["logits"], smooth(item["target"], label_smoothing), item["mask"], class_mask
        )
        return loss, ({"loss": loss}, new_stats)

    return loss_fn


def _features(frontend, wave, rng):
    """Features for training. Some frontends (PaSST's) draw a random filter bank per batch."""
    if not getattr(frontend, "draws_in_training", False):
        return frontend(wave)
    return frontend(wave, rng=jax.random.fold_in(rng, 4))


def _identity(rng, batch):
    return batch

"""Losses of logits and targets in float32. Masked rows and classes have no part in the means."""

from __future__ import annotations

import jax.numpy as jnp
import optax


def bce(logits, target, mask=None, class_mask=None, rows=None):
    """Mean binary cross-entropy of logits [B, C] or [B, T, C].

    Args:
      target: as the logits, from 0 to 1. mask: [B], 0 for rows to leave out.
      class_mask: [C], 0 for classes to leave out.
      rows: divide by this number of rows; None: the sum of `mask`. Without rows the loss is 0.
    """
    loss = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), target)
    clips, classes = loss.shape[0], loss.shape[-1]
    loss = loss.reshape(clips, -1, classes)  # [B, T, C]
    mask = jnp.ones(clips) if mask is None else mask
    counted = jnp.ones(classes) if class_mask is None else jnp.asarray(class_mask, jnp.float32)
    total = jnp.sum(loss * mask[:, None, None] * counted[None, None])
    size = (mask.sum() if rows is None else rows) * loss.shape[1] * counted.sum()
    return jnp.where(size > 0, total / jnp.where(size > 0, size, 1.0), 0.0)


def bce_of_rows(logits, target, class_mask=None):
    """Mean binary cross-entropy of each row of logits [B, ..., C]: [B]."""
    loss = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), target)
    return mean_of_rows(loss, class_mask)


def mean_of_rows(values, class_mask=None):
    """Mean of [B, ..., C] over all axes but the first, without classes whose mask is 0."""
    values = values.reshape(values.shape[0], -1, values.shape[-1])
    counted = jnp.ones(values.shape[-1]) if class_mask is None else jnp.asarray(class_mask)
    return (values * counted[None, None]).sum((1, 2)) / (values.shape[1] * counted.sum())


def cross_entropy(logits, target, mask=None, class_weights=None):
    """Mean softmax cross entropy of logits [B, C]: -sum_c w_c t_c log p_c of each row.

    It is a mean over rows without the masked ones, also with weights. So parts of a batch add up.

    Args:
      target: [B, C], soft or hard, each row with sum 1. mask: [B], 0 for padding rows.
      class_weights: [C], the weight w_c of each class; None: 1.
    """
    target = target.astype(jnp.float32)
    if class_weights is not None:
        target = target * jnp.asarray(class_weights, jnp.float32)[None, :]
    loss = optax.softmax_cross_entropy(logits.astype(jnp.float32), target)  # [B]
    mask = jnp.ones_like(loss) if mask is None else mask
    return jnp.sum(loss * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def smooth(target, amount: float):
    """Label smoothing of independent binary targets: `y (1 - a) + a / 2`."""
    return target * (1.0 - amount) + 0.5 * amount if amount else target

"""What all objectives do: targets, augmentation, frontend, model, loss."""

from __future__ import annotations

import inspect

import jax

from asjax import hlp
from asjax.config import AsjaxError
from asjax.frontends import to_float

AUGMENT_PLACES = ("wave", "feats", "normed")


def propagated(batch, closure, *keys) -> dict:
    """The targets `keys` of a batch, each with the ancestors of its labels (HLP) if `closure`."""
    if closure is None:
        return {key: batch[key] for key in keys}
    return {key: hlp.propagate_labels(batch[key], closure) for key in keys}


def of_clips(model, frontend, augment, hard, loss, hear=None):
    """The `loss_fn` of an objective.

    Args:
      hard: batch -> dict of the targets before the augmentation.
      loss: (outputs of the model, augmented batch) -> scalars; the one called loss is minimised.
      hear: (batch with its augmented wave, frozen) -> batch. `frozen` is the last argument of the
        `loss_fn`: arrays that are no constants of the program, such as the weights of a teacher.
    """
    chains = {place: (augment or {}).get(place) or _identity for place in AUGMENT_PLACES}
    normed = chains["normed"] is not _identity and getattr(chains["normed"], "names", True)
    if normed and "augment" not in inspect.signature(type(model).__call__).parameters:
        raise AsjaxError(
            "augment.normed needs a model whose __call__ takes augment, and "
            f"{type(model).__name__} does not; use augment.feats"
        )

    def loss_fn(params, stats, batch, rng, frozen=None):
        wave_rng, feats_rng, normed_rng, dropout_rng = jax.random.split(rng, 4)
        # Other arrays stay in the batch, because the augmentation may reorder its rows.
        targets = hard(batch)
        if "has_teacher" in batch.keys() - targets.keys():
            raise AsjaxError(
                "data.ops has the op teacher, and this objective takes no teacher; set "
                "--config.objective.name=distillation, or leave the op out"
            )
        item = {**batch, "wave": to_float(batch["wave"]), **targets}
        item = chains["wave"](wave_rng, item)
        item = hear(item, frozen) if hear else item
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
        logits = outputs.get("logits") if isinstance(outputs, dict) else None
        if getattr(logits, "shape", None) != item["target"].shape:
            got = f"{list(logits.shape)}" if hasattr(logits, "shape") else "none"
            raise AsjaxError(
                f"model {type(model).__name__} must return a dict with logits "
                f"{list(item['target'].shape)} (clips, classes), got {got}"
            )
        scalars = loss(outputs, item)
        return scalars["loss"], (scalars, new_stats)

    return loss_fn


def _features(frontend, wave, rng):
    """Features for training. Some frontends (PaSST's) draw a random filter bank per batch."""
    if not getattr(frontend, "draws_in_training", False):
        return frontend(wave)
    return frontend(wave, rng=jax.random.fold_in(rng, 4))


def _identity(rng, batch):
    return batch

"""The forward pass over a pipeline: batches in, clip ids, logits and targets out."""

from __future__ import annotations

import sys

import numpy as np

from asjax.config import AsjaxError


def forward(model, frontend, mesh):
    """`(variables, wave [B, S]) -> logits [B, C]` as numpy, jitted, rows split over the mesh.

    With several processes all give the same wave; each computes its share and gets all rows back.
    """
    import jax

    from asjax import sharding, step

    run = jax.jit(step.make_eval_step(model=model, frontend=frontend))

    def apply(variables, wave):
        share = len(wave) // jax.process_count()
        mine = wave[jax.process_index() * share :][:share]
        return sharding.gather(run(variables, sharding.place(mesh, {"wave": mine})["wave"]))

    return apply


def scores_from_pipeline(apply_fn, batches, num_classes, progress=True, bad=None, total=None):
    """Run a model over batches; padding rows and clips that could not be decoded are left out.

    Args:
      apply_fn: wave float32 [B, S] -> logits [B, C] (jitted by the caller).
      batches: iterable of pipeline batches (dicts with wave, target, mask, id, bad).
      num_classes: C of the model; the targets may have other classes (zero-shot).
      progress: show a bar, and say on stderr what was left out.
      bad: a list to which (id, reason) of every clip left out is added.
      total: number of batches, for the bar.

    Returns: ids (list of N), logits float32 [N, C], targets uint8 [N, C or those of the data].

    Raises:
      AsjaxError: the model returns another shape than [B, C].
    """
    from tqdm import tqdm

    bad = [] if bad is None else bad
    before = len(bad)
    ids, logits, targets = [], [np.zeros((0, num_classes), np.float32)], []
    bar = tqdm(batches, desc="scoring", unit="batch", total=total, disable=not progress)
    for batch in bar:
        rows = np.flatnonzero(np.asarray(batch["mask"]) > 0)
        out = np.asarray(apply_fn(batch["wave"]), np.float32)
        want = (len(batch["mask"]), num_classes)
        if out.shape != want:
            raise AsjaxError(f"the model must return logits {want} for this batch, got {out.shape}")
        ids += [str(batch["id"][i]) for i in rows]
        logits.append(out[rows])
        targets.append(np.asarray(batch["target"])[rows] > 0.5)
        bad += list(batch.get("bad", ()))
    left_out = bad[before:]
    if progress and left_out:
        name, reason = left_out[0]
        print(f"left out {len(left_out)} clips, first {name}: {reason}", file=sys.stderr)
    targets = np.concatenate(targets or [np.zeros((0, num_classes))]).astype(np.uint8)
    return ids, np.concatenate(logits), targets

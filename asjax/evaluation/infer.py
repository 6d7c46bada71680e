"""The forward pass of a trained model over batches.

Evaluations during training, `asjax eval`, `asjax tag` and exports of frames or embeddings use it:

    forward = Forward(model, frontend, mesh, outputs=("logits", "embedding"))
    variables = forward.put(variables)
    for out, rest in forward.over(variables, batches):
        out["logits"], rest["id"]           # rows of this process, in the order of the batch
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator

import numpy as np

from asjax import hosts
from asjax.config import AsjaxError, counted, shown
from asjax.data import prefetch
from asjax.hosts import watchdog
from asjax.metrics.probability import as_scores


class Forward:
    """A jitted model on a mesh: rows are split over the devices; one program per batch size.

    Args:
      model: has `.apply(variables, feats [B, T, F], train=False)` -> dict of arrays [B, ...].
      frontend: wave [B, S] -> feats [B, T, F].
      outputs: names of the model's arrays to return, such as "logits" [B, C], "embedding" [B, D] or
        "frame_logits" [B, T', C].
    """

    def __init__(self, model, frontend, mesh, outputs=("logits",)):
        import jax

        from asjax import sharding, step

        self.mesh, self.outputs = mesh, tuple(outputs)
        run = step.make_eval_step(model=model, frontend=frontend, outputs=self.outputs)
        self._run = jax.jit(run, out_shardings=sharding.batch_sharding(mesh))

    def put(self, variables):
        """Put the weights on every device of the mesh; arrays already there are not copied."""
        import jax

        from asjax import sharding

        return jax.device_put(variables, sharding.replicated(self.mesh))

    def over(
        self, variables, batches: Iterable[dict], ahead: int = 2, stop=None
    ) -> Iterator[tuple[dict, dict]]:
        """Outputs for every batch, with the rest of the batch.

        The devices get batch k + 1 before the outputs of batch k are read, so host and devices work
        at the same time.

        Args:
          variables: placed on the mesh, replicated or sharded.
          batches: dicts with `wave` [R, S], float or int16: the rows of this process, as numbered
            by `sharding.local_rows`. The arrays must not be changed afterwards.
          ahead: batches that a thread prepares in advance; 0 prepares them in the caller's thread.
          stop: a function; as soon as it returns True, prefetch.Stopped is raised. Needs `ahead`.
            With several processes it is called once per batch, so that all ask equally often.

        Yields: ({output: numpy [R, ...]}, the entries of the batch other than `wave`).
        """
        from asjax import sharding

        def place(batch):
            return sharding.place(self.mesh, {"wave": batch["wave"]}, owned=True)

        placed = prefetch.prefetch(batches, place, ahead) if ahead else _in_turn(batches, place)
        flying = None
        with contextlib.closing(placed):
            for arrays, rest in _each(placed, stop) if stop else placed:
                out = self._run(variables, arrays["wave"])
                del arrays  # otherwise the device stores one more batch of waves
                for array in out.values():
                    array.copy_to_host_async()
                if flying is not None:
                    yield sharding.local(flying[0]), flying[1]
                flying = (out, rest)
            if flying is not None:
                yield sharding.local(flying[0]), flying[1]


def _each(placed, stop):
    while True:
        try:
            item = placed.wait(None if hosts.several() else stop)
        except StopIteration:
            return
        watchdog.beat()
        if stop():
            raise prefetch.Stopped
        yield item


def _in_turn(batches, place):
    for batch in batches:
        yield place(batch), {k: v for k, v in batch.items() if k != "wave"}


def scores(
    forward: Forward,
    variables,
    data,
    num_classes: int,
    *,
    activation="sigmoid",
    progress=True,
    bad=None,
    stop=None,
):
    """Clip scores of an evaluation set; padding and clips that cannot be decoded are left out.

    With several processes, each scores its rows of every batch. At the end all of them get all
    results.

    Args:
      forward: has the output "logits".
      data: an evaluation pipeline of asjax.build.pipeline with `rows=sharding.local_rows(...)`.
      num_classes: C of the model; the targets may have other classes (zero-shot).
      activation: "sigmoid": the scores are the logits; "softmax": they are log-probabilities.
      progress: show a progress bar, and print on stderr which clips were left out.
      bad: a list that gets (id, reason) of every clip left out.
      stop: as in `Forward.over`.

    Returns: ids (list of N), scores float32 [N, C], targets uint8 [N, classes of the data], in the
      order of the data.

    Raises:
      AsjaxError: the model's logits are not [B, C], or too many clips are left out.
    """
    from tqdm import tqdm

    ids, left_out = [], []
    mask, logits, targets = [], [], []
    with data.iterate() as batches:
        steps = forward.over(variables, batches, stop=stop)
        total = data.steps_per_epoch
        for out, rest in tqdm(steps, "scoring", total, unit="batch", disable=not progress):
            want = (len(rest["mask"]), num_classes)
            if out["logits"].shape != want:
                raise AsjaxError(
                    f"the model must return logits {want} for this batch, got {out['logits'].shape}"
                )
            ids += map(str, rest["id"])
            left_out += rest["bad"]
            mask.append(rest["mask"] > 0)
            logits.append(out["logits"])
            targets.append(rest["target"] > 0.5)
    mask, logits = np.concatenate(mask), np.concatenate(logits)
    targets = np.concatenate(targets).astype(np.uint8)
    if len(data.rows) < data.batch_size:
        (ids, left_out), (mask, logits, targets) = join(
            data, [ids, left_out], [mask, logits, targets]
        )
        data.check_bad(dict(left_out))
    if progress and left_out:
        name, reason = left_out[0]
        clips = counted(len(left_out), "clip")
        print(f"left out {clips}, first {shown(name)}: {reason}", file=sys.stderr)
    if bad is not None:
        bad += left_out
    ids = [clip for clip, real in zip(ids, mask, strict=True) if real]
    return ids, as_scores(logits[mask], activation), targets[mask]


def join(data, texts: list, arrays: list) -> tuple[list, list]:
    """Gather the results of all processes, in the order of the data.

    Args:
      texts: ids of the rows, (id, reason) pairs in any number, and perhaps more lists with one
        entry per row. arrays: one entry per row.
    """
    from jax.experimental import multihost_utils

    def gather(array):
        with hosts.waiting():
            return multihost_utils.process_allgather(array)

    steps = np.arange(data.steps_per_epoch)[:, None] * data.batch_size
    numbers = np.concatenate(gather((steps + data.rows).ravel().astype(np.int32)))
    order = np.argsort(numbers)
    packed = np.frombuffer(json.dumps(texts).encode(), np.uint8)
    sizes = gather(np.array([len(packed)], np.int32))
    packed = gather(np.pad(packed, (0, int(sizes.max()) - len(packed))))
    parts = [json.loads(bytes(text[: int(n)])) for text, (n,) in zip(packed, sizes, strict=True)]
    ids, pairs, *more = (sum(lists, []) for lists in zip(*parts, strict=True))
    joined = [np.concatenate(gather(array))[order] for array in arrays]
    pick = lambda rows: [rows[i] for i in order]  # noqa: E731
    return [pick(ids), [tuple(pair) for pair in pairs], *map(pick, more)], joined

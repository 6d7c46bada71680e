"""The models of `asjax logits`: one model or the weighted mean of an ensemble, in one pass.

All models are in memory at once, so that every clip is read and decoded once. Models with the same
sample rate and clip length are one jitted program. Others read the same clips with their own rate.
"""

from __future__ import annotations

import numpy as np

from asjax import build, config, labels, models
from asjax.config import AsjaxError, shown
from asjax.evaluation import infer, mean
from asjax.metrics.probability import as_scores
from asjax.store import model_dir
from asjax.store.scores import activation_of

_RATE = ("sample_rate", "clip_s")


class Members:
    """Stored models as one: `Members([dir, ...], weights=[1, 2])`.

    Attributes:
      label_set: of all models. activation: "sigmoid" or "softmax". cfg: config of the first model.
      groups: one (sample_rate, clip_s, forward, variables) for each kind of input.
      frames, frame_rate: frames per clip and per second; None unless they are asked for.
      record: for the manifest: path, SHA-256 and weight of each model.
    """

    def __init__(self, paths, weights=None, *, frames: bool = False, batch_size: int = 0):
        self.weights = mean.weights(weights, len(paths))
        mean.say_twice(paths)
        loaded = [model_dir.load_model(path) for path in paths]
        self.cfg, self.label_set = config.to_plain(loaded[0][0]), loaded[0][1]
        self.batch_size = batch_size or self.cfg.get("eval", {}).get("batch_size", 16)
        self.record = []
        for path, weight, (cfg, label_set, _, card) in zip(
            paths, self.weights, loaded, strict=True
        ):
            labels.check_same(self.label_set, label_set, shown(path), shown(paths[0]))
            about = {"path": str(path), "sha256": card["sha256"]["card.json"], "weight": weight}
            about |= {key: cfg["model"].get(key) for key in ("name", "variant")}
            self.record.append(about)
        kinds = {activation_of(cfg) for cfg, *_ in loaded}
        if len(kinds) > 1:
            raise AsjaxError(
                "models with one label per clip (softmax) and with several (sigmoid) have no "
                "common logits; give models of one kind"
            )
        self.activation = kinds.pop()
        self._group(paths, loaded, frames)

    def _group(self, paths, loaded, frames: bool) -> None:
        from asjax import devices, sharding

        devices.setup()
        self.mesh = sharding.make_mesh(batch_sizes=(self.batch_size,))
        self.outputs = ("logits", "frame_logits") if frames else ("logits",)
        by_input, counts = {}, {}
        for path, weight, (cfg, _, variables, _) in zip(paths, self.weights, loaded, strict=True):
            frontend = build.make("frontend", cfg["frontend"])
            model = build.make("model", {**cfg["model"], "num_classes": len(self.label_set)})
            key = tuple(cfg["data"][name] for name in _RATE)
            by_input.setdefault(key, []).append((model, frontend, weight, variables))
            if frames:
                rate = _frames(model, frontend, variables, key, path) / key[1]
                counts.setdefault(rate, path)
        if len(counts) > 1:
            (rate, path), (other, second) = list(counts.items())[:2]
            raise AsjaxError(
                f"the models of an ensemble must have the same frame rate: {shown(path)} has "
                f"{rate:g} and {shown(second)} {other:g} frames per second"
            )
        seconds = {clip_s for _, clip_s in by_input}
        if len(seconds) > 1:
            raise AsjaxError(
                f"the models of an ensemble must hear clips of the same length, got "
                f"{', '.join(f'{s:g} s' for s in sorted(seconds))}"
            )
        self.clip_s = seconds.pop()
        self.frame_rate = next(iter(counts), None)
        self.frames = round(self.frame_rate * self.clip_s) if frames else None
        self.groups = []
        for (sample_rate, _), members in by_input.items():
            parts = [member[:3] for member in members]
            joined = mean.Mean(parts, self.outputs, self.activation == "softmax")
            forward = infer.Forward(joined, lambda wave: wave, self.mesh, self.outputs)
            variables = forward.put({str(k): one[3] for k, one in enumerate(members)})
            self.groups.append((sample_rate, forward, variables))

    def over(self, streams):
        """The mean logits of the clips of all models.

        Args: streams: batches for each of `groups`, of the same clips.

        Yields: (clip float32 [B, C], frames float32 [B, T', C] or None, the batches without waves).
        """
        runs = [
            forward.over(variables, batches)
            for (_, forward, variables), batches in zip(self.groups, streams, strict=True)
        ]
        for results in zip(*runs, strict=True):
            outs, rests = [out for out, _ in results], [rest for _, rest in results]
            means = []
            for name in self.outputs:
                total = sum(out[name] for out in outs)
                means.append(total / np.float32(sum(self.weights)))
            shape = (self.batch_size, len(self.label_set))
            if means[0].shape != shape:
                raise AsjaxError(f"the model must return logits {shape}, got {means[0].shape}")
            clip = as_scores(means[0], self.activation)
            yield clip, means[1] if len(means) > 1 else None, rests


def _frames(model, frontend, variables, key, path) -> int:
    """Frames that a model gives for a clip. AsjaxError: it gives none."""
    import jax

    wave = jax.ShapeDtypeStruct((1, round(key[0] * key[1])), np.float32)
    out = jax.eval_shape(lambda v, w: models.apply(model, v, frontend(w)), variables, wave)
    found = out.get("frame_logits")
    if found is None or found.ndim != 3:
        raise AsjaxError(f"{shown(path)} gives no frame logits; leave out --frames")
    return found.shape[1]

"""Teachers in the training step: frozen models that hear the waves of the student.

Their weights are an argument of the step. So they are no constants in the compiled program, are not
in the state or in checkpoints, and get no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from asjax import build, config, labels, models
from asjax.config import AsjaxError, shown
from asjax.evaluation.mean import Mean
from asjax.store import logits, model_dir
from asjax.store.scores import activation_of


@dataclass(frozen=True, eq=False)
class Online:
    """Models as one: the mean of their logits.

    Attributes:
      variables: of the models. mean: as `asjax.evaluation.mean.Mean`.
      outputs: "logits", and "frame_logits" if it is wanted and all models give it.
      identity: SHA-256 of all models. notes: lines for people.
    """

    variables: dict
    mean: Mean
    outputs: tuple[str, ...]
    identity: str
    notes: tuple[str, ...]

    def apply(self, variables, wave) -> dict:
        """The mean logits of waves [B, S] at the student's rate: {output: float32 [B, ..., C]}."""
        return self.mean.apply(variables, wave)


OUTPUTS = ("logits", "frame_logits")


def load(paths, wanted=OUTPUTS, *, cfg, label_set) -> Online:
    """The models in `paths` as teacher of the student with config `cfg`.

    Args: wanted: the outputs that the student learns from. If frames are not among them, the models
      may have different frame rates.

    Raises:
      AsjaxError: no model there; another sample rate, clip length or label set than the student's;
        a softmax; or models whose frames differ.
    """
    members, variables, hashes, found = [], {}, [], {}
    for k, path in enumerate(paths):
        where = f"teacher {shown(path)}"
        if logits.is_folder(path):
            raise AsjaxError(
                f"{where} is no model, it holds stored logits; leave out objective.teacher, and "
                f"add teacher(path='{shown(path)}') to data.ops"
            )
        theirs, classes, weights, card = model_dir.load_model(path)
        labels.check_same(label_set, classes, where, "the student")
        for key in ("sample_rate", "clip_s"):
            if theirs["data"][key] != cfg["data"][key]:
                raise AsjaxError(
                    f"{where} needs data.{key}={theirs['data'][key]:g}, and the student's is "
                    f"{cfg['data'][key]:g}; a teacher in the training step hears the student's "
                    "wave. Store its logits with asjax logits instead, and use the host op teacher"
                )
        if activation_of(theirs) != "sigmoid":
            raise AsjaxError(
                f"{where} has one softmax over the classes, and a student has one sigmoid per "
                "class; take a teacher of objective tagging or detection"
            )
        frontend = build.make("frontend", theirs["frontend"])
        if getattr(frontend, "top_db_scope", None) == "batch":  # a clip must not depend on others
            frontend = replace(frontend, top_db_scope="clip")
        model = build.make("model", {**theirs["model"], "num_classes": len(label_set)})
        members.append((model, frontend, 1.0 / len(paths)))
        variables[str(k)] = weights
        hashes.append(card["sha256"]["card.json"])
        shapes = _shapes(model, frontend, weights, cfg, where, len(label_set))
        found[path] = {name: shapes[name] for name in shapes if name in ("logits", *wanted)}
    outputs = _common(found)
    mean = Mean(members, outputs, softmax=False)
    notes = _notes(found, variables, outputs)
    return Online(variables, mean, outputs, config.fingerprint(hashes), notes)


def _shapes(model, frontend, weights, cfg, where: str, classes: int) -> dict:
    """Output -> its shape for one clip."""
    import jax

    wave = jax.ShapeDtypeStruct(
        (1, round(cfg["data"]["clip_s"] * cfg["data"]["sample_rate"])), "f4"
    )
    out = jax.eval_shape(lambda v, w: models.apply(model, v, frontend(w)), weights, wave)
    wanted = {"logits": 2, "frame_logits": 3}
    shapes = {k: out[k].shape[1:] for k in wanted if getattr(out.get(k), "ndim", 0) == wanted[k]}
    if shapes.get("logits") != (classes,):
        raise AsjaxError(f"{where} must give logits [B, {classes}], got {shapes.get('logits')}")
    return shapes


def _common(found: dict) -> tuple[str, ...]:
    frames = {path: shapes["frame_logits"] for path, shapes in found.items() if len(shapes) > 1}
    if len(set(frames.values())) > 1:
        (one, first), (other, second) = next(
            (a, b) for a in frames.items() for b in frames.items() if a[1] != b[1]
        )
        raise AsjaxError(
            f"the models of a teacher must have the same frame rate: {shown(one)} has "
            f"{first[0]} frames per clip and {shown(other)} {second[0]}"
        )
    return OUTPUTS if len(frames) == len(found) else OUTPUTS[:1]


def _notes(found: dict, variables, outputs) -> tuple[str, ...]:
    import jax

    lines = []
    what = "clips"
    if "frame_logits" in outputs:
        what += f" and frames ({next(iter(found.values()))['frame_logits'][0]} per clip)"
    for k, path in enumerate(found):
        size = sum(np.size(x) for x in jax.tree.leaves(variables[str(k)]))
        lines.append(f"teacher {path}: {size:,} numbers, frozen, in every step; logits of {what}")
    if len(lines) > 1:
        lines.append(f"teacher: the mean of the logits of {len(lines)} models")
    return tuple(lines)

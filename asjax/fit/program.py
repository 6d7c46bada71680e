"""The training step of a config: compiled, and its memory by kind."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from asjax import build, hlp, nn, sharding, step
from asjax.evaluation import tasks
from asjax.optim import groups

_KINDS = {  # part of the state -> how it is shown
    "params": "parameters",
    "opt": "optimiser",
    "average": "weight average",
    "stats": "statistics",
}


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
      parts: bytes of the arguments by kind: parameters, optimiser, ..., batch.
      temporaries: activations, gradients and the compiler's working memory. None: the compiler
        refused the program.
      outputs: results that do not take the place of an argument.
      refused: the bytes that the program would need, if the compiler refused it (0: not said).
      reason: the compiler's words, if it refused.
    """

    parts: dict[str, int]
    temporaries: int | None
    outputs: int = 0
    refused: int = 0
    reason: str = ""

    @property
    def total(self) -> int:
        if self.temporaries is None:
            return self.refused
        return sum(self.parts.values()) + self.temporaries + self.outputs

    def fits(self, limit: int | None) -> bool:
        return self.temporaries is not None and (limit is None or self.total <= limit)


def train_step(cfg, mesh):
    """(jitted step of a config, shapes of its arguments with their shardings).

    The batch has the arrays of `tagging` or `detection`, without those of stored teachers.
    """
    label_set = build.label_set(cfg)
    frontend = build.make("frontend", cfg.frontend)
    model = build.make("model", cfg.model, num_classes=len(label_set))
    freeze = build.read(cfg, "optim.freeze")
    objective = "classify" if cfg.objective.name == "auto" else cfg.objective
    objective = build.make(
        "objective",
        objective,
        model=groups.still(model, freeze),
        frontend=frontend,
        augment={place: build.augment(text) for place, text in cfg.augment.items()},
        closure=hlp.closure_if_known(label_set, strict=False) if cfg.labels.hlp else None,
    )
    tx, _ = build.make("optim", cfg.optim, total_steps=cfg.total_steps, steps_per_epoch=1000)
    layers = {key: build.read(cfg, f"optim.{key}") for key in ("layer_decay", "layer_rule")}
    tx = groups.grouped(tx, model, freeze=freeze, **layers)
    average = build.make("average", cfg.average) if cfg.average else None
    rows, size = cfg.batch_size, round(cfg.data.clip_s * cfg.data.sample_rate)
    create = partial(
        step.init_state,
        model=model,
        frontend=frontend,
        tx=tx,
        wave_shape=(rows, size),
        average=average is not None,
    )
    shapes = jax.eval_shape(create, jax.random.key(0))
    state = sharding.with_sharding(shapes, sharding.state_sharding(mesh, shapes))
    shape = partial(jax.ShapeDtypeStruct, sharding=sharding.batch_sharding(mesh))
    batch = {
        "wave": shape((rows, size), jnp.float32),
        "target": shape((rows, len(label_set)), jnp.float32),
        "mask": shape((rows,), jnp.float32),
    }
    if tasks.is_detection(cfg):
        batch["frame_target"] = shape((rows, model.frames, len(label_set)), jnp.float32)
        batch |= dict.fromkeys(("has_strong", "has_weak"), batch["mask"])
    run = step.make_train_step(
        objective=objective,
        tx=tx,
        average=average,
        accumulate=build.read(cfg, "optim.accumulate_steps"),
    )
    out = jax.tree.map(lambda s: s.sharding, state), sharding.replicated(mesh)
    return jax.jit(run, out_shardings=out, donate_argnums=0), (state, batch)


def forms(mesh, accelerator: bool = False):
    """The context in which the step is traced for the devices of a mesh.

    `accelerator`: on CPUs, the forms for accelerators.
    """
    platform = mesh.devices.flat[0].platform
    kinds = {"tpu": "tpu", "cpu": "accelerator" if accelerator else "cpu"}
    return nn.forms(kinds.get(platform, "gpu"))


def measure(cfg, mesh, accelerator: bool = False) -> Memory:
    """Compile the step of a config for a mesh; its memory on one device."""
    run, args = train_step(cfg, mesh)
    with forms(mesh, accelerator):
        lowered = run.lower(*args)
    state, batch = args
    parts = {name: _bytes(getattr(state, key)) for key, name in _KINDS.items()}
    parts = {name: size for name, size in parts.items() if size} | {"batch": _bytes(batch)}
    try:
        compiled = lowered.compile()
    except Exception as error:
        text = " ".join(str(error).split())
        if not out_of_memory(text):
            raise
        return Memory(parts, None, refused=_asked(text), reason=text[:200])
    found = compiled.memory_analysis()
    new = max(0, found.output_size_in_bytes - found.alias_size_in_bytes)
    return Memory(parts, found.temp_size_in_bytes, new)


def out_of_memory(text: str) -> bool:
    """Whether an error of the compiler or of a device says that memory is used up."""
    words = ("RESOURCE_EXHAUSTED", "Ran out of memory", "Out of memory", "out of memory")
    return any(word in text for word in words)


def _asked(text: str) -> int:
    """The bytes that a refused program would need, from the compiler's words; 0: not said."""
    found = re.search(r"Used ([\d.]+)([KMGT]) of", text)
    return int(float(found[1]) * 1024 ** ("KMGT".index(found[2]) + 1)) if found else 0


def _bytes(tree) -> int:
    """Bytes of shapes with shardings on one device."""

    def of(leaf) -> int:
        shape = leaf.sharding.shard_shape(leaf.shape)
        return int(np.prod(shape, dtype=np.int64)) * np.dtype(leaf.dtype).itemsize

    leaves = [x for x in jax.tree.leaves(tree) if not jnp.issubdtype(x.dtype, jax.dtypes.extended)]
    return sum(map(of, leaves))

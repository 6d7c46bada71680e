"""Model families: every public file here is one family with `VARIANTS` and `model`.

asjax.models.build("cnn", variant="cnn6", num_classes=200)
asjax.models.build("convnext", variant="femto", stem="56")
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from math import prod

from asjax import config
from asjax.config import AsjaxError, unknown

_PLACE = "asjax.models.{name}:model"


def families() -> list[str]:
    """Names of the families: the public files of this folder."""
    return config.names(_PLACE)


def family(name: str):
    """The Python module of a family; AsjaxError lists the known ones."""
    if name not in families():
        raise unknown("model family", name, families())
    return import_module(f"asjax.models.{name}")


def build(name: str, variant: str | None = None, **fields):
    """The linen module of family `name`; unknown families, variants and fields are errors."""
    file = family(name)
    if variant is None:
        known = ", ".join(sorted(file.VARIANTS))
        raise AsjaxError(f"model {name!r} must have a variant: one of {known}")
    return file.model(variant, **fields)


def apply(module, variables, feats) -> dict:
    """Run a model in evaluation mode on features [B, T, F].

    Raises:
      AsjaxError: the weights or the features do not fit the module, for example because the config
        belongs to other weights.
    """
    try:
        return module.apply(variables, feats, train=False)
    except AsjaxError:
        raise
    except Exception as error:  # flax and jax raise many kinds of errors for a misfit
        reason = " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
        raise AsjaxError(
            f"{type(module).__name__} does not fit its weights, or features of shape "
            f"{list(feats.shape)}: {reason[:300]}"
        ) from error


def abstract(module):
    """Shapes and dtypes of a module's variables, without computation."""
    import jax
    import jax.numpy as jnp

    feats = jax.ShapeDtypeStruct((1, *module.example_shape), jnp.float32)
    return jax.eval_shape(lambda x: module.init(jax.random.key(0), x), feats)


def class_axes(module, own: dict, classes: int) -> dict[tuple, int]:
    """Path -> class axis, for every array of a module that has one entry per class: its head.

    We find them by adding one class: the axis that grows by one is the class axis. A user's module
    without `num_classes` and `example_shape` counts every last axis of this length.

    Args:
      own: path -> array of the module's variables. classes: their number.
    """
    from flax.traverse_util import flatten_dict

    if not all(hasattr(module, name) for name in ("num_classes", "example_shape")):
        return {path: -1 for path, leaf in own.items() if leaf.shape[-1:] == (classes,)}
    one_more = dataclasses.replace(module, num_classes=module.num_classes + 1)
    shapes, wider = (flatten_dict(abstract(m)) for m in (module, one_more))
    axes = {}
    for path, leaf in shapes.items():
        grown = [i for i, n in enumerate(leaf.shape) if wider[path].shape[i] == n + 1]
        if grown and leaf.shape[grown[0]] == module.num_classes:
            axes[path] = grown[0]
        elif wider[path].shape != leaf.shape:  # several entries per class, in an unknown order
            axes[path] = 0
    return axes


def parameters(module) -> int:
    """Number of trainable parameters."""
    import jax

    return sum(prod(leaf.shape) for leaf in jax.tree.leaves(abstract(module)["params"]))


def list_models(names: list[str] | None = None):
    """Yield one dict per variant: family, variant, parameters, frontend, n_mels, fields.

    The parameters are counted for 527 classes. `names`: only these families.
    """
    for name in names or families():
        file = family(name)
        for variant in file.VARIANTS:
            module = file.model(variant)
            yield dict(
                family=name,
                variant=variant,
                parameters=parameters(module),
                frontend=dict(file.FRONTENDS[variant]),
                n_mels=module.n_mels,
                fields=dict(file.VARIANTS[variant]),
            )

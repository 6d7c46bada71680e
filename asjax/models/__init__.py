"""Model families, one per file. A file is a family when it offers `VARIANTS` and `model`.

    asjax.models.build("cnn", variant="cnn6", num_classes=200)
    asjax.models.build("convnext", variant="femto", stem="56")

There is no registry: a file added here is found by its name.
"""

from __future__ import annotations

from ast import Assign, Name, parse  # `ast` here is the family of that name
from functools import cache
from importlib import import_module
from math import prod
from pathlib import Path

from asjax.config import AsjaxError, unknown


@cache
def families() -> tuple[str, ...]:
    """Names of the families: the files here that assign `VARIANTS` (read, not imported)."""
    return tuple(sorted(p.stem for p in Path(__file__).parent.glob("*.py") if _is_family(p)))


def _is_family(path: Path) -> bool:
    tree = parse(path.read_text(encoding="utf-8"))
    targets = [t for node in tree.body if isinstance(node, Assign) for t in node.targets]
    return any(isinstance(t, Name) and t.id == "VARIANTS" for t in targets)


def family(name: str):
    """The module of a family; AsjaxError listing the known ones."""
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


def abstract(module):
    """Shapes and dtypes of a module's variables, without computing anything."""
    import jax
    import jax.numpy as jnp

    feats = jax.ShapeDtypeStruct((1, *module.example_shape), jnp.float32)
    return jax.eval_shape(lambda x: module.init(jax.random.key(0), x), feats)


def parameters(module) -> int:
    """Number of trainable parameters."""
    import jax

    return sum(prod(leaf.shape) for leaf in jax.tree.leaves(abstract(module)["params"]))


def list_models(names: list[str] | None = None):
    """Rows of the zoo, one per variant, as they are computed: family, variant, parameters (at 527
    classes), frontend, n_mels, fields. `names`: these families only."""
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

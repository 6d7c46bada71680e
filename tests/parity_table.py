"""Every parity case against its reference: `python -m tests.parity_table [FOLDER...]`.

FOLDER (default tests/golden) holds cases: a manifest NAME.json, whose weights and inputs are made
by rule.py, and the reference's outputs NAME.npz. What a case means to a model family is told by
the file of that family in tests/parity:

    FAMILY                                      name in asjax.models
    spec(case, manifest)                        (variant, fields) or None: not a case of this family
    features(manifest)                          optional: [B, T, F], default the one input array
    outputs(out, inner, feats)                  {reference name: array in the reference's layout}
    run(case, manifest, module, variables)      optional, instead of the two: the same dict
                                                (manifest["stored"]: the arrays of the npz)
    TOLERANCE                                   optional: {output name: relative L2}

`out` is the model's dict, `inner` the outputs of its submodules by path ("block1/conv2"); names of
`out` that are the reference's too need not be repeated. The Markdown table it prints is the one in
asjax/models/README.md.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import jax
import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "golden"), str(HERE)]

import rule  # noqa: E402

from asjax import (  # noqa: E402
    frontends,
    models,
)
from asjax.weights import (  # noqa: E402
    port,
)

TOLERANCE = 3e-6
GOLDEN = HERE / "golden"


@cache
def adapters() -> list:
    """The files of tests/parity."""
    names = sorted(p.stem for p in (HERE / "parity").glob("[!_]*.py"))
    return [import_module(f"parity.{name}") for name in names]


def load(case: str, folder: Path = GOLDEN):
    """(manifest, expected outputs) of a case."""
    manifest = json.loads((folder / f"{case}.json").read_text())
    return manifest, dict(np.load(folder / f"{case}.npz"))


@cache
def spec(case: str, folder: Path = GOLDEN):
    """(adapter, variant, fields) of a case, None when no family knows it."""
    manifest = json.loads((folder / f"{case}.json").read_text())
    if not isinstance(manifest, dict) or not manifest.get("state_dict"):
        return None
    for adapter in adapters():
        found = adapter.spec(case, manifest)
        if found:
            return adapter, *found
    return None


def cases(folder: Path = GOLDEN) -> list[str]:
    """Names of the cases whose model family is here, sorted."""
    return sorted(p.stem for p in folder.glob("*.json") if spec(p.stem, folder) is not None)


def ported(case: str, manifest: dict, folder: Path = GOLDEN):
    """(module, variables) from the weights that the rule gives the reference."""
    adapter, variant, fields = spec(case, folder)
    weights = rule.state_dict(manifest)
    for alias, name in {**manifest.get("aliases", {}), **manifest.get("tied", {})}.items():
        weights[alias] = weights[name]
    return port.from_torch(adapter.FAMILY, variant, weights, **fields)


def features(case: str, manifest: dict, folder: Path = GOLDEN):
    """[B, T, F] features: the case's own, or its waveforms through the model's frontend."""
    adapter, variant, _ = spec(case, folder)
    if hasattr(adapter, "features"):
        return adapter.features(manifest)
    given, salt = manifest["input"], manifest["salt"]
    if given["kind"] == "array":
        x = rule.array(given["name"], given["shape"], salt=salt, scale=given.get("scale", 1.0))
        return x[:, 0] if x.ndim == 4 else x  # (B, 1, T, F)
    waves = [
        rule.waveform(name, given["seconds"], given["sample_rate"], salt=salt)
        for name in given["names"]
    ]
    return frontends.build(**models.family(adapter.FAMILY).FRONTENDS[variant])(np.stack(waves))


def errors(case: str, folder: Path = GOLDEN) -> dict[str, float]:
    """Relative L2 error of every output of a case, in float32 at the highest precision."""
    manifest, expected = load(case, folder)
    adapter = spec(case, folder)[0]
    module, variables = ported(case, manifest, folder)
    with jax.default_matmul_precision("highest"):
        if hasattr(adapter, "run"):
            ours = adapter.run(case, {**manifest, "stored": expected}, module, variables)
        else:
            feats = features(case, manifest, folder)
            run = jax.jit(lambda v, x: module.apply(v, x, capture_intermediates=True))
            out, state = run(variables, feats)
            out = {k: np.asarray(v) for k, v in out.items()}
            inner = captured(state["intermediates"])
            out["clipwise"] = 1 / (1 + np.exp(-out["logits"].astype(np.float64)))
            ours = {**out, **adapter.outputs(out, inner, np.asarray(feats))}
    missing = sorted(set(expected) - set(ours))
    assert not missing, f"{case}: tests/parity/{adapter.FAMILY}.py gives no {missing}"
    return {
        name: relative(sample(np.asarray(ours[name]), name, manifest["outputs"], array), array)
        for name, array in expected.items()
    }


def captured(tree) -> dict[str, np.ndarray]:
    """Outputs of the submodules by path; stacked over the layers where these run in a scan."""
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        names = [k.key for k in path if hasattr(k, "key")]
        if names[-1] == "__call__":
            found.setdefault("/".join(names[:-1]), np.asarray(leaf))
    return found


def sample(x: np.ndarray, name: str, outputs: dict, want: np.ndarray) -> np.ndarray:
    """`x` sub-sampled as the manifest says the reference's output was stored.

    The three ways of saying it: a `stride` or `stored_step` list, or "[::5, :, ::7]" in a text; a
    text without it means the same steps as another output of that shape.
    """
    entry = outputs.get(name)
    if isinstance(entry, dict):
        full = entry.get("full_shape") or entry.get("shape")
        steps = entry.get("stride") or entry.get("stored_step") or [1] * x.ndim
        if x.shape != want.shape or list(x.shape) == list(full):
            assert list(x.shape) == list(full), (x.shape, full)
            x = x[tuple(slice(None, None, s) for s in steps)]
    elif x.shape != want.shape:
        texts = [str(entry), *(str(t) for t in outputs.values() if f"{list(want.shape)}" in str(t))]
        cuts = [m[1] for t in texts if (m := re.search(r"\[((?:\s*:[:\d]*\s*,?)+)\]", t))]
        if cuts:
            steps = [int(part.strip().replace(":", "") or 1) for part in cuts[0].split(",")]
            x = x[tuple(slice(None, None, s) for s in steps)]
    assert x.shape == want.shape, (name, x.shape, want.shape)
    return x


def relative(x, reference) -> float:
    """||x - reference|| / ||reference|| in float64."""
    x, reference = np.asarray(x, np.float64), reference.astype(np.float64)
    return float(np.linalg.norm(x - reference) / np.linalg.norm(reference))


def allowed(case: str, output: str, folder: Path = GOLDEN) -> float:
    """The relative L2 an output may be off by."""
    return getattr(spec(case, folder)[0], "TOLERANCE", {}).get(output, TOLERANCE)


def main(argv: list[str]) -> int:
    print("| case | model | parameters | worst output | relative L2 | reference's own | within |")
    print("|---|---|---|---|---|---|---|")
    failed = 0
    for folder in [Path(a) for a in argv] or [GOLDEN]:
        for case in cases(folder):
            failed += _row(case, folder)
    return 1 if failed else 0


def _row(case: str, folder: Path) -> int:
    manifest, _ = load(case, folder)
    found = errors(case, folder)
    worst = max(found, key=lambda k: found[k] / allowed(case, k, folder))
    over = [k for k, v in found.items() if not v <= allowed(case, k, folder)]
    adapter, variant, fields = spec(case, folder)
    count = models.parameters(models.build(adapter.FAMILY, variant, **fields))
    own = manifest.get("float32_error", {}).get(worst)
    print(
        f"| {case} | {adapter.FAMILY} {variant} | {count:,} | {worst} | {found[worst]:.1e} | "
        f"{'-' if own is None else f'{own:.1e}'} | {'NO: ' + ', '.join(over) if over else 'yes'} |",
        flush=True,
    )
    return bool(over)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Every parity case against its reference: `python -m tests.parity_table [FOLDER...]`.

FOLDER (default tests/golden) contains cases. A case is a manifest NAME.json and the reference's
outputs NAME.npz; rule.py makes its weights and inputs from the manifest. The file of a model family
in tests/parity maps a case to the family:

    FAMILY                                      name in asjax.models
    spec(case, manifest)                        (variant, fields), or None if it is not a case of
                                                this family. If variant is None, it is found from
                                                names and shapes.
    features(manifest)                          optional: [B, T, F], default: the only input array
    outputs(out, inner, feats)                  {reference name: array in the reference's layout}
    run(case, manifest, module, variables)      optional, replaces the two above: the same dict
                                                (manifest["stored"]: the arrays of the npz)
    TOLERANCE                                   optional: {output name: relative L2}

`out` is the model's dict. `inner` has the outputs of its submodules by path ("block1/conv2"). An
entry of `out` with the reference's name need not be repeated. asjax/models/README.md has the
printed Markdown table.

The number of classes is one of the reference's arguments (CLASSES) or follows from the shapes, as
do the other fields that `asjax.weights.detect` finds. A case that cannot be compared gives a row
with
the reason: a damaged file, weights that do not match, a missing output or one with another shape.
"""

from __future__ import annotations

import argparse
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

from asjax import frontends, models  # noqa: E402
from asjax.config import AsjaxError  # noqa: E402
from asjax.store import files  # noqa: E402
from asjax.weights import detect, port  # noqa: E402

TOLERANCE = 3e-6
GOLDEN = HERE / "golden"
# The authors' names for the number of classes.
CLASSES = ("num_classes", "classes_num", "n_classes", "n_class", "label_dim", "num_labels")


@cache
def adapters() -> list:
    """The files of tests/parity."""
    names = sorted(p.stem for p in (HERE / "parity").glob("[!_]*.py"))
    return [import_module(f"parity.{name}") for name in names]


def load(case: str, folder: Path = GOLDEN):
    """(manifest, expected outputs) of a case.

    Raises:
      AsjaxError: an output of the manifest is not in the npz.
    """
    manifest = json.loads((folder / f"{case}.json").read_text())
    with np.load(folder / f"{case}.npz", allow_pickle=False) as file:
        expected = {name: file[name] for name in file.files}
    absent = sorted(set(manifest.get("outputs", ())) - set(expected))
    if absent or not expected:
        raise AsjaxError(f"{case}.npz lacks {', '.join(absent) or 'every output'}")
    return manifest, expected


@cache
def claimed(case: str, folder: Path = GOLDEN):
    """(adapter, variant or None, fields) from the adapters; None if no family has the case."""
    manifest = json.loads((folder / f"{case}.json").read_text())
    if not isinstance(manifest, dict) or not manifest.get("state_dict"):
        return None
    reference = manifest.get("reference")
    manifest["reference"] = reference = reference if isinstance(reference, dict) else {}
    for adapter in adapters():
        found = adapter.spec(case, manifest)
        if found:
            given = reference.get("args") if isinstance(reference.get("args"), dict) else {}
            counts = [("num_classes", given[key]) for key in CLASSES if key in given]
            return adapter, found[0], {**dict(counts[:1]), **found[1]}
    return None


@cache
def spec(case: str, folder: Path = GOLDEN):
    """(adapter, variant, fields) of a case; None if no family has it.

    Raises:
      AsjaxError: the weights match no model of the family.
    """
    found = claimed(case, folder)
    if found is None:
        return None
    adapter, variant, fields = found
    shapes = _named(
        json.loads((folder / f"{case}.json").read_text()),
        lambda shape: np.broadcast_to(np.float32(0), shape),
    )
    if variant is not None:
        try:
            port.match(adapter.FAMILY, variant, shapes, **fields)
            return found
        except AsjaxError:  # the shapes may show what the arguments do not
            pass
    model = detect.detect(shapes, adapter.FAMILY, variant, **fields)
    return adapter, model.variant, {**fields, **model.fields}


def _named(manifest: dict, make=None) -> dict:
    """The reference's state dict: the rule's values, or `make(shape)` of each entry."""
    if make is None:
        weights = rule.state_dict(manifest)
    else:
        fixed = manifest.get("buffers", ())
        weights = {n: make(shape) for n, shape, _ in manifest["state_dict"] if n not in fixed}
    for alias, name in {**manifest.get("aliases", {}), **manifest.get("tied", {})}.items():
        weights[alias] = weights[name]
    return weights


def cases(folder: Path = GOLDEN) -> list[str]:
    """Sorted names of the cases that belong to one of our model families."""
    return [p.stem for p in sorted(folder.glob("*.json")) if claimed(p.stem, folder) is not None]


def ported(case: str, manifest: dict, folder: Path = GOLDEN):
    """(module, variables) from the weights that the rule makes for the reference."""
    adapter, variant, fields = spec(case, folder)
    return port.from_torch(adapter.FAMILY, variant, _named(manifest), **fields)


def features(case: str, manifest: dict, folder: Path = GOLDEN):
    """[B, T, F] features: from the case, or from its waveforms and the model's frontend."""
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
    if missing:
        raise AsjaxError(f"tests/parity/{adapter.FAMILY}.py gives no {', '.join(missing)}")
    return {
        name: relative(sample(np.asarray(ours[name]), name, manifest["outputs"], array), array)
        for name, array in expected.items()
    }


def captured(tree) -> dict[str, np.ndarray]:
    """Outputs of the submodules by path; stacked over the layers if these run in a scan."""
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        names = [k.key for k in path if hasattr(k, "key")]
        if names[-1] == "__call__":
            found.setdefault("/".join(names[:-1]), np.asarray(leaf))
    return found


def sample(x: np.ndarray, name: str, outputs: dict, want: np.ndarray) -> np.ndarray:
    """`x` sub-sampled like the stored output of the reference.

    The manifest has the steps as a list `stride` or `stored_step`, or as "[::5, :, ::7]" in a text.
    A text without steps means the same steps as another output of this shape.
    """
    entry = outputs.get(name)
    if isinstance(entry, dict):
        full = entry.get("full_shape") or entry.get("shape")
        steps = entry.get("stride") or entry.get("stored_step") or [1] * x.ndim
        if x.shape != want.shape or list(x.shape) == list(full):
            if list(x.shape) != list(full):
                raise AsjaxError(f"{name} is {list(x.shape)} here, {list(full)} in the reference")
            x = x[tuple(slice(None, None, s) for s in steps)]
    elif x.shape != want.shape:
        texts = [str(entry), *(str(t) for t in outputs.values() if f"{list(want.shape)}" in str(t))]
        cuts = [m[1] for t in texts if (m := re.search(r"\[((?:\s*:[:\d]*\s*,?)+)\]", t))]
        if cuts:
            steps = [int(part.strip().replace(":", "") or 1) for part in cuts[0].split(",")]
            x = x[tuple(slice(None, None, s) for s in steps)]
    if x.shape != want.shape:
        raise AsjaxError(f"{name} is {list(x.shape)} here, {list(want.shape)} in the npz")
    return x


def relative(x, reference) -> float:
    """||x - reference|| / ||reference|| in float64."""
    x, reference = np.asarray(x, np.float64), reference.astype(np.float64)
    off = np.linalg.norm(x - reference)
    return float(off / np.linalg.norm(reference)) if off else 0.0


def allowed(case: str, output: str, folder: Path = GOLDEN) -> float:
    """The allowed relative L2 error of an output."""
    return getattr(spec(case, folder)[0], "TOLERANCE", {}).get(output, TOLERANCE)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity_table")
    parser.add_argument("folder", nargs="*", type=Path, default=[GOLDEN])
    folders = parser.parse_args(argv).folder
    print("| case | model | parameters | worst output | relative L2 | reference's own | within |")
    print("|---|---|---|---|---|---|---|")
    good = bad = 0
    strange = []
    for folder in folders:
        for path in sorted(folder.glob("*.json")):
            state, row = _row(path.stem, folder)
            if row:
                print(row, flush=True)
            elif state:
                strange.append(path.stem)
            good, bad = good + (state == "yes"), bad + (state == "no")
    if strange:
        print(f"\nof no model family here: {', '.join(strange)}")
    if not good + bad:
        print(f"no case to compare in {', '.join(map(str, folders))}", file=sys.stderr)
    return 0 if good and not bad else 1


def _row(case: str, folder: Path) -> tuple[str, str]:
    """(verdict, line of the table or ""); verdict "yes", "no", "strange", or "" without weights."""
    model, count = "-", "-"
    try:
        manifest = json.loads((folder / f"{case}.json").read_text())
        if not isinstance(manifest, dict) or not manifest.get("state_dict"):
            return "", ""
        found = claimed(case, folder)
        if found is None:
            return "strange", ""
        model = f"{found[0].FAMILY} {found[1] or ''}".strip()
        adapter, variant, fields = spec(case, folder)
        model = f"{adapter.FAMILY} {variant}"
        count = f"{models.parameters(models.build(adapter.FAMILY, variant, **fields)):,}"
        off = errors(case, folder)
        worst = max(off, key=lambda k: off[k] / allowed(case, k, folder))
        over = [k for k, v in off.items() if not v <= allowed(case, k, folder)]
        own = manifest.get("float32_error", {}).get(worst)
        own = "-" if own is None else f"{own:.1e}"
        line = f"{worst} | {off[worst]:.1e} | {own} | {'NO: ' + ', '.join(over) if over else 'yes'}"
        state = "no" if over else "yes"
    except Exception as error:  # an error in one case must not stop the others
        line, state = f"- | - | - | NO: {_why(error)}", "no"
    return state, f"| {case} | {model} | {count} | {line} |"


def _why(error: Exception) -> str:
    """A text as one short line for a table cell."""
    kind = "" if isinstance(error, AsjaxError) else f"{type(error).__name__}: "
    text = f"{kind}{files.reason(error)}".replace("|", "/")
    return text if len(text) <= 240 else f"{text[:237]}..."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

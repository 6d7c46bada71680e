"""Every parity case of a model against its reference: `python -m tests.parity_table [FOLDER]`.

FOLDER (default tests/golden) holds the cases; the Markdown table it prints, one row per case with
the largest relative L2 over all outputs, is the one in asjax/models/README.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "golden"))

import rule  # noqa: E402

from asjax import models, port  # noqa: E402

TOLERANCE = 1e-5


def cases(folder: Path = HERE / "golden") -> list[str]:
    """Names of the cases whose model family is here, sorted."""
    return sorted(p.stem for p in folder.glob("*_*.json") if spec(p.stem) is not None)


def spec(case: str) -> tuple[str, str] | None:
    """(family, variant) of a case by its name, `cnn6_mel` or `convnext_femto_stem56_mel`."""
    words = case.split("_")
    if words[-1] not in ("mel", "wave"):
        return None
    for name in models.families():
        variants = models.family(name).VARIANTS
        if words[0] in variants:
            return name, words[0]
        if words[0] == name and words[1] in variants:
            return name, words[1]
    return None


def load(case: str, folder: Path = HERE / "golden"):
    """(manifest, expected outputs) of a case."""
    manifest = json.loads((folder / f"{case}.json").read_text())
    return manifest, dict(np.load(folder / f"{case}.npz"))


def ported(case: str, manifest: dict):
    """(module, variables) from the weights that the rule gives the reference."""
    family, variant = spec(case)
    fields = {}
    if "stem" in manifest["reference"]:
        fields["stem"] = manifest["reference"]["stem"]["after_stem_dim"]
    return port.from_torch(family, variant, rule.state_dict(manifest), **fields)


def features(case: str, manifest: dict):
    """[B, T, F] features: the case's own, or its waveform through the model's frontend."""
    given, salt = manifest["input"], manifest["salt"]
    if given["kind"] == "array":
        x = rule.array(given["name"], given["shape"], salt=salt, scale=given["scale"])
        return x[:, 0]  # (B, 1, T, F)
    from asjax import frontends

    waves = [
        rule.waveform(name, given["seconds"], given["sample_rate"], salt=salt)
        for name in given["names"]
    ]
    family, variant = spec(case)
    return frontends.build(**models.family(family).FRONTENDS[variant])(np.stack(waves))


def errors(case: str, folder: Path = HERE / "golden") -> dict[str, float]:
    """Relative L2 error of every output of a case, in float32 at the highest precision."""
    manifest, expected = load(case, folder)
    module, variables = ported(case, manifest)
    with jax.default_matmul_precision("highest"):
        feats = features(case, manifest)
        run = jax.jit(lambda v, x: module.apply(v, x, capture_intermediates=True))
        out, state = run(variables, feats)
    ours = {
        **{k: np.asarray(v) for k, v in out.items()},
        **_captured(module, state["intermediates"]),
    }
    ours["logmel"] = np.asarray(feats)[:, None]
    ours["clipwise"] = 1 / (1 + np.exp(-ours["logits"].astype(np.float64)))
    return {
        name: _relative(_sample(_in_layout(name, ours), manifest["outputs"][name]), array)
        for name, array in expected.items()
    }


def _captured(module, tree) -> dict:
    """Outputs of the submodules by path, `stage0_block1/pwconv2`, and `stage0` for its last."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    found = {}
    for path, leaf in flat:
        *parents, last = [k.key for k in path if hasattr(k, "key")]
        if last == "__call__":
            found["/".join(parents)] = np.asarray(leaf)
    for stage, depth in enumerate(getattr(module, "depths", ())):
        found[f"stage{stage}"] = found[f"stage{stage}_block{depth - 1}"]
    return found


_NAMES = {
    "frame_embeddings": "stage3",
    "branch0": "stage0_block1/pwconv2",
    "branch2": "stage2_block0/pwconv2",
}


def _in_layout(name: str, ours: dict):
    """Our array under the reference's name and in its layout, (B, C, T, F) for feature maps."""
    x = ours[_NAMES.get(name, name.removeprefix("conv_"))]
    if name == "bn0":  # (B, T, F) -> (B, F, T, 1)
        return x.transpose(0, 2, 1)[..., None]
    if x.ndim == 4 and name not in ("logmel", "branch0", "branch2"):
        return x.transpose(0, 3, 1, 2)
    return x


def _sample(x, entry: dict):
    assert list(x.shape) == entry["full_shape"], (x.shape, entry["full_shape"])
    return x[tuple(slice(None, None, s) for s in entry["stride"] or [1] * x.ndim)]


def _relative(x, reference) -> float:
    x, reference = x.astype(np.float64), reference.astype(np.float64)
    return float(np.linalg.norm(x - reference) / np.linalg.norm(reference))


def main(argv: list[str]) -> int:
    folder = Path(argv[0]) if argv else HERE / "golden"
    print("| case | family | variant | worst output | relative L2 | logits | within 1e-5 |")
    print("|---|---|---|---|---|---|---|")
    failed = 0
    for case in cases(folder):
        found = errors(case, folder)
        worst = max(found, key=found.get)
        failed += found[worst] > TOLERANCE
        verdict = "yes" if found[worst] <= TOLERANCE else "NO"
        print(
            f"| {case} | {' | '.join(spec(case))} | {worst} | {found[worst]:.1e} | "
            f"{found['logits']:.1e} | {verdict} |",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Six architectures under one procedure: a small Table 2 on the embedded ESC-10 recordings.

python benchmarks/architectures_esc10.py [--folds 5] [--minutes 30] [--steps 480] [--out OUT]

Trains the models of configs/esc10_architectures.py on four folds and scores the fifth. The held-out
logits of the finished folds are pooled (bootstrap over clips). Folds that do not start within the
minutes are left out; the table shows the number of folds. Finished runs are reused. Then it counts
parameters and FLOPs of one 5 s clip (matrix products and convolutions of the forward pass), times
training and inference steps of all models in turn, and draws mean AP against cost in
OUT/architectures.png.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from asjax import build, devices

ROOT = Path(__file__).resolve().parent.parent
CONFIG = "configs/esc10_architectures.py"
BATCH = 32
NAMES = {
    "ast": "AST",
    "transformer": "Transformer",
    "cnn_transformer": "CNN + Transformer",
    "conformer": "Conformer",
    "resnet": "ResNet",
    "crnn": "CRNN",
}


def recipe(model: str):
    """The resolved config of a model."""
    spec = importlib.util.spec_from_file_location("recipe", ROOT / CONFIG)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(f"model={model}"), module.MODELS


def train(model: str, fold: int, args) -> Path:
    workdir = Path(args.workdir) / f"{model}-{args.steps}-fold{fold}"
    if not (workdir / "model" / "card.json").exists():
        config = f"{CONFIG}:model={model},fold={fold},steps={args.steps}"
        command = [sys.executable, "-m", "asjax", "train", f"--config={config}"]
        subprocess.run([*command, f"--workdir={workdir}"], check=True, stdout=subprocess.DEVNULL)
    return workdir


def pooled(workdirs, n_bootstrap: int) -> dict:
    """Metrics of the held-out logits of all folds."""
    from asjax import labels
    from asjax.evaluation import evaluate

    label_set = labels.get("audioset527")
    parts = [evaluate.load_scores(w / "eval" / "scores.npz", label_set) for w in workdirs]
    scores, targets = (np.concatenate([p[key] for p in parts]) for key in ("scores", "targets"))
    found = evaluate.views(scores, targets, label_set, None, ["esc10"])
    single = [
        evaluate.summarise(evaluate.views(p["scores"], p["targets"], label_set, None, ["esc10"]), 0)
        for p in parts
    ]
    view = evaluate.summarise({"esc10": found["esc10"]}, n_bootstrap)["esc10"]
    return {**view, "folds": [100 * s["esc10"]["mean_ap"] for s in single]}


def costs(models, rounds: int) -> dict:
    """model -> parameters, FLOPs of a clip, clips/s; the models take turns after each step."""
    import jax

    from asjax import models as zoo
    from asjax import sharding, step
    from asjax.nn import flops

    mesh = sharding.make_mesh("", batch_sizes=(BATCH,))
    place = sharding.batch_sharding(mesh)
    rng = np.random.default_rng(0)
    batch = dict(
        wave=rng.normal(0, 0.1, (BATCH, 80_000)).astype(np.float32),
        target=(rng.random((BATCH, 527)) < 0.005).astype(np.float32),
        mask=np.ones(BATCH, np.float32),
    )
    batch = {k: jax.device_put(v, place) for k, v in batch.items()}
    found, steps = {}, {}
    for name in models:
        cfg, _ = recipe(name)
        model = build.make("model", cfg.model.to_dict())
        frontend = build.make("frontend", cfg.frontend.to_dict())
        tx, _ = build.make("optim", cfg.optim.to_dict(), total_steps=100, steps_per_epoch=10)
        objective = build.make(
            "objective", cfg.objective.to_dict(), model=model, frontend=frontend, augment=None
        )
        make = lambda key, m=model, f=frontend, t=tx: step.init_state(  # noqa: E731
            key, model=m, frontend=f, tx=t, wave_shape=(BATCH, 80_000), average=False
        )
        state = jax.jit(make, out_shardings=sharding.replicated(mesh))(jax.random.key(0))
        run = jax.jit(step.make_train_step(objective=objective, tx=tx), donate_argnums=0)
        score = jax.jit(step.make_eval_step(model=model, frontend=frontend))
        one = lambda v, x, m=model: m.apply(v, x, train=False)["logits"]  # noqa: E731
        work = flops.count(one, step.weights(state), frontend(batch["wave"][:1]))
        found[name] = dict(parameters=zoo.parameters(model), gflops=work / 1e9)
        steps[name] = dict(state=state, train=run, eval=score)
    times = {(name, phase): [] for name in models for phase in ("train", "eval")}
    for turn in range(-1, rounds):
        for name, s in steps.items():
            begin = time.perf_counter()
            s["state"], scalars = s["train"](s["state"], batch)
            jax.block_until_ready(scalars)
            middle = time.perf_counter()
            jax.block_until_ready(s["eval"](step.weights(s["state"]), batch["wave"]))
            if turn >= 0:
                times[name, "train"].append(middle - begin)
                times[name, "eval"].append(time.perf_counter() - middle)
    for (name, phase), seconds in times.items():
        found[name][phase] = BATCH / statistics.median(seconds)
    return found


def picture(rows: dict, path: Path):
    """Draw mean AP with its interval against GFLOP per clip and against training speed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), sharey=True, layout="constrained")
    for axis, key, scale, side, label in (
        (axes[0], "gflops", 1e3, 1, "MFLOP per 5 s clip, forward"),
        (axes[1], "train", 1, -1, "training, clips/s on 2 cores"),
    ):
        for i, (name, row) in enumerate(rows.items()):
            low, high = row["ci"]["mean_ap"]
            x, y = scale * row[key], 100 * row["mean_ap"]
            bars = [[y - 100 * low], [100 * high - y]]
            axis.errorbar([x], [y], yerr=bars, fmt="o", color=f"C{i}", capsize=3, ms=7)
            axis.annotate(
                NAMES[name],
                (x, y),
                xytext=(8 * side, 5),
                textcoords="offset points",
                ha="left" if side > 0 else "right",
                fontsize=9,
                color=f"C{i}",
                bbox=dict(fc="white", ec="none", alpha=0.8, pad=0.5),
            )
        axis.set_xlim(0, 1.25 * scale * max(row[key] for row in rows.values()))
        axis.set_xlabel(label)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("mean AP, ten classes (%), 95 % interval")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=int, default=5, help="number of folds, from fold 5 down")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--steps", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--workdir", default="runs/architectures_esc10")
    parser.add_argument("--out", default="runs/architectures_esc10")
    args = parser.parse_args()
    begin = time.time()
    _, models = recipe("crnn")
    finished: dict = {name: [] for name in models}
    for fold in range(5, 5 - args.folds, -1):
        if time.time() - begin > 60 * args.minutes:
            print(f"time is up before fold {fold}", file=sys.stderr)
            break
        for name in models:
            print(f"{name} fold {fold}, {time.time() - begin:.0f} s", file=sys.stderr)
            finished[name].append(train(name, fold, args))

    devices.setup()
    cost = costs(models, args.rounds)
    rows = {name: {**pooled(done, args.bootstrap), **cost[name]} for name, done in finished.items()}
    print(
        "| model | parameters | GFLOP | training clips/s | inference clips/s | folds | clips "
        "| mean AP of the ten classes | single folds |\n|" + "---|" * 9
    )
    for name, r in rows.items():
        low, high = r["ci"]["mean_ap"]
        single = ", ".join(f"{x:.1f}" for x in r["folds"])
        print(
            f"| {name} | {r['parameters']:,} | {r['gflops']:.3f} | {r['train']:.0f} | "
            f"{r['eval']:.0f} | {len(r['folds'])} | {r['n_clips']} | {100 * r['mean_ap']:.1f} "
            f"[{100 * low:.1f}, {100 * high:.1f}] | {single} |"
        )
    Path(args.out).mkdir(parents=True, exist_ok=True)
    picture(rows, Path(args.out) / "architectures.png")
    print(f"\n{(time.time() - begin) / 60:.1f} minutes, {args.steps} steps of {BATCH} clips")


if __name__ == "__main__":
    main()

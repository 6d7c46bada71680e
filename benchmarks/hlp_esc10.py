"""Does HLP in training help? A small Table III on the embedded ESC-10 recordings.

python benchmarks/hlp_esc10.py [--folds 5] [--minutes 30] [--steps 300] [--workdir runs/hlp_esc10]

Trains a small CNN6-like and a small ConvNeXt-like model with and without HLP on four folds and
scores the fifth. The held-out logits of all folds are pooled, so every clip is scored once by a
model that was not trained on it. Metrics and 95 % intervals (bootstrap over clips) use the pooled
scores. Folds that do not start within the minutes are left out; the table shows the number of
folds. Finished runs are reused.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

MODELS = {"mini": "CNN6-like (mini)", "convnext_mini": "ConvNeXt-like (mini)"}


def train(model: str, hlp: bool, fold: int, args) -> Path:
    name = f"{model}-{'hlp' if hlp else 'base'}-{args.steps}-fold{fold}"
    workdir = Path(args.workdir) / name
    if not (workdir / "model" / "card.json").exists():
        config = f"configs/quickstart.py:model={model},hlp={hlp},fold={fold},steps={args.steps}"
        command = [sys.executable, "-m", "asjax", "train", f"--config={config}"]
        overrides = [f"--workdir={workdir}", "--config.eval.bootstrap=1"]
        subprocess.run([*command, *overrides], check=True, stdout=subprocess.DEVNULL)
    return workdir


def summary(workdirs, n_bootstrap):
    """Metrics of the held-out logits of all folds."""
    from asjax import hlp, labels
    from asjax.evaluation import evaluate

    label_set = labels.get("audioset527")
    parts = [evaluate.load_scores(w / "eval" / "scores.npz", label_set) for w in workdirs]
    scores, targets = (np.concatenate([p[key] for p in parts]) for key in ("scores", "targets"))
    found = evaluate.views(scores, targets, label_set, hlp.closure(label_set), ["esc10"])
    return evaluate.summarise(found, n_bootstrap)


def row(name, trained, workdirs, n_bootstrap):
    views = summary(workdirs, n_bootstrap)
    cells = []
    for view in views.values():
        low, high = view["ci"]["mean_ap"]
        cells.append(f"{100 * view['mean_ap']:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
    card = json.loads((workdirs[0] / "model" / "card.json").read_text())
    clips = next(iter(views.values()))["n_clips"]
    head = [name, trained, f"{card['parameters']:,}", str(len(workdirs)), str(clips)]
    return "| " + " | ".join([*head, *cells]) + " |", [v["title"] for v in views.values()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--workdir", default="runs/hlp_esc10")
    args = parser.parse_args()
    begin, finished = time.time(), {}
    for fold in range(1, args.folds + 1):
        if time.time() - begin > 60 * args.minutes:
            print(f"time is up before fold {fold}", file=sys.stderr)
            break
        for model in MODELS:
            for hlp in (False, True):
                print(f"{model} hlp={hlp} fold {fold}", file=sys.stderr)
                finished.setdefault((model, hlp), []).append(train(model, hlp, fold, args))
    rows = []
    for (model, hlp), workdirs in finished.items():
        trained = "HLP labels" if hlp else "base labels"
        text, views = row(MODELS[model], trained, workdirs, args.bootstrap)
        rows.append(text)
    heads = ["model", "trained on", "parameters", "folds", "clips", *views]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    print("\n".join(rows))
    print(f"\n{(time.time() - begin) / 60:.1f} minutes; mAP in %, 95 % interval in brackets")


if __name__ == "__main__":
    main()

"""Time of the metrics and of their confidence intervals at AudioSet's size.

python benchmarks/metrics.py [--clips 20371] [--resamples 1000]

The scores are synthetic: normally distributed, shifted for positives. The class priors are those of
AudioSet's evaluation list (tests/golden/audioset_counts.json). scikit-learn, if installed, computes
the same AP in the same run. `tagging` also computes AUC, d', micro AP and LRAP.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from asjax import metrics

COUNTS = Path(__file__).parent.parent / "tests" / "golden" / "audioset_counts.json"


def data(clips: int):
    found = json.loads(COUNTS.read_text())["splits"]["eval"]
    rng = np.random.default_rng(0)
    prior = np.asarray(found["counts"]) / found["clips"]
    targets = rng.random((clips, len(prior))) < prior
    targets[np.arange(len(prior)) % clips, np.arange(len(prior))] = True  # no class is empty
    scores = rng.normal(size=targets.shape).astype(np.float32) + 1.5 * targets
    return scores, targets


def timed(name, work):
    start = time.perf_counter()
    result = work()
    print(f"| {name} | {time.perf_counter() - start:.1f} |")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=20_371)
    parser.add_argument("--resamples", type=int, default=1000)
    args = parser.parse_args()
    scores, targets = data(args.clips)
    print(f"{args.clips:,} clips, {targets.shape[1]} classes, {targets.sum():,} positives\n")
    print("| what | seconds |\n|---|---|")
    ours = timed("metrics.tagging", lambda: metrics.tagging(scores=scores, targets=targets))
    n = args.resamples
    timed(f"metrics.bootstrap, {n:,} resamples",
          lambda: metrics.bootstrap(scores=scores, targets=targets, n=n))  # fmt: skip
    try:
        from sklearn.metrics import average_precision_score
    except ImportError:
        return
    theirs = timed(
        "scikit-learn, average_precision_score alone",
        lambda: average_precision_score(targets, scores, average=None),
    )
    gap = np.nanmax(np.abs(theirs - ours["per_class_ap"]))
    print(f"\nlargest difference of a class's AP: {gap:.1e}")


if __name__ == "__main__":
    main()

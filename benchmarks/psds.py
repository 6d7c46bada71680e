"""Time and memory of PSDS at the size of AudioSet Strong, and the ratio to sed_scores_eval.

python benchmarks/psds.py [--clips 16935] [--classes 407] [--threads 2] [--resamples 100]
    [--reference PYTHON]

The scores are synthetic float16 logits [clips, 250, classes] at 25 frames per second. They have a
level per class and clip plus slow noise, and are raised during events (8 per clip). A median filter
of 9 frames follows. `--reference` is the Python of an environment with sed_scores_eval 0.0.4 and
pandas < 3. It computes PSDS1 of a slice of 200 clips and 60 classes in the same run, without the
median filter.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from asjax import metrics

FRAMES, RATE = 250, 25.0
SLICE = (200, 60)
_REFERENCE = """
import json, sys, time
import numpy as np
from sed_scores_eval.base_modules.scores import create_score_dataframe
from sed_scores_eval.intersection_based import psds

folder = sys.argv[1]
scores = np.load(folder + "/scores.npy").astype(np.float64)
events = json.load(open(folder + "/events.json"))
names = [f"class{c}" for c in range(scores.shape[2])]
edges = np.round(np.arange(scores.shape[1] + 1) / 25, 10)
frames = {str(i): create_score_dataframe(s, edges, names) for i, s in enumerate(scores)}
truth = {str(i): [(a, b, names[c]) for a, b, c in e] for i, e in enumerate(events)}
start = time.process_time()
value, classes, *_ = psds(frames, truth, {k: 10.0 for k in frames}, dtc_threshold=0.7,
                          gtc_threshold=0.7, alpha_st=1.0)
seconds = time.process_time() - start
print(json.dumps({"psds": value, "macro": float(np.mean(list(classes.values()))), "s": seconds}))
"""


def data(clips: int, classes: int, seed: int = 0):
    """Scores float16 [clips, FRAMES, classes] and lists of events."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=4_000_003).astype(np.float32)
    noise = 0.6 * np.convolve(noise, np.ones(5, np.float32) / 5**0.5, "same") + 0.6 * noise[::-1]
    prior = np.exp(rng.normal(0, 1.5, classes))
    prior /= prior.sum()
    scores, events = np.empty((clips, FRAMES, classes), np.float16), []
    for i in range(clips):
        at = rng.integers(0, len(noise) - FRAMES * classes)
        part = noise[at : at + FRAMES * classes].reshape(classes, FRAMES).T
        part = part + np.log(prior) + rng.normal(0, 1, classes)
        labels = rng.choice(classes, size=4, p=prior).tolist() + [i % classes]
        end, found = dict.fromkeys(labels, -1.0), []
        for onset in np.sort(rng.uniform(0, 9.5, rng.poisson(8) + 1)).round(3).tolist():
            label = int(rng.choice(labels))
            offset = round(min(10.0, onset + 0.1 + rng.exponential(1.2)), 3)
            if onset <= end[label]:
                continue
            end[label] = offset
            found.append((onset, offset, label))
            part[int(onset * RATE) : int(offset * RATE) + 1, label] += rng.uniform(1, 6)
        if not any(c == i % classes for *_, c in found):  # no class is empty
            found.append((1.0, 2.5, i % classes))
        scores[i] = part
        events.append(found)
    return scores, events


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def timed(name, before, work):
    start, cpu = time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"| {name} | {wall:.1f} | {cpu:.1f} | {peak_gb() - before:.2f} |", flush=True)
    return result, cpu


def compare(python: str, scores, events):
    """Compute the slice with both; print the ratio of CPU seconds and the differences."""
    clips, classes = SLICE
    part = np.ascontiguousarray(scores[:clips, :, :classes])
    lists = [[e for e in found if e[2] < classes] for found in events[:clips]]
    missing = sorted(set(range(classes)) - {e[2] for found in lists for e in found})
    for c in missing:
        lists[c].append((1.0, 2.5, c))
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "scores.npy", part)
        (Path(folder) / "events.json").write_text(json.dumps(lists))
        done = subprocess.run(
            [python, "-c", _REFERENCE, folder], capture_output=True, text=True, check=False
        )
    if done.returncode:
        sys.exit(f"{python} failed: {done.stderr.strip().splitlines()[-1]}")
    theirs = json.loads(done.stdout.splitlines()[-1])
    print(f"sed_scores_eval: psds {theirs['psds']:.6f}, macro {theirs['macro']:.6f}")
    start = time.process_time()
    ours = metrics.psds(scores=part, events=lists, durations_s=np.full(clips, 10.0), threads=1)
    seconds = time.process_time() - start
    print(
        f"{clips} clips x {classes} classes: sed_scores_eval {theirs['s']:.1f} CPU-s, asjax "
        f"{seconds:.2f}, ratio {theirs['s'] / seconds:.1f}; differences: psds "
        f"{abs(ours['psds'] - theirs['psds']):.1e}, "
        f"macro {abs(ours['macro'] - theirs['macro']):.1e}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=16_935)
    parser.add_argument("--classes", type=int, default=407)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--psds2", action="store_true", help="PSDS2 as well")
    parser.add_argument("--reference", metavar="PYTHON", help="with sed_scores_eval 0.0.4")
    args = parser.parse_args()
    scores, events = data(args.clips, args.classes)
    if args.reference:
        compare(args.reference, scores, events)
    before = peak_gb()
    print(
        f"{args.clips} clips x {args.classes} classes x {FRAMES}: {scores.nbytes / 2**30:.2f} GiB"
    )
    print("| what | s | CPU-s | peak beyond the scores, GiB |\n|---|---|---|---|")
    common = {
        "scores": scores,
        "events": events,
        "durations_s": np.full(args.clips, 10.0),
        "median": 9,
        "threads": args.threads,
    }
    found, _ = timed("PSDS1", before, lambda: metrics.psds(**common, **metrics.PSDS1))
    print(f"  macro {found['macro']:.6f}, with penalty {found['psds']:.6f}")
    if args.psds2:
        found, _ = timed("PSDS2", before, lambda: metrics.psds(**common, **metrics.PSDS2))
        print(f"  macro {found['macro']:.6f}, with penalty {found['psds']:.6f}")
    if args.resamples:
        name = f"PSDS1, {args.resamples} resamples"
        work = lambda: metrics.psds_bootstrap(**common, **metrics.PSDS1, n=args.resamples)  # noqa: E731
        found, _ = timed(name, before, work)
        print(f"  macro {found['macro']}")


if __name__ == "__main__":
    main()

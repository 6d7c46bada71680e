"""A long run of the data pipeline: does memory, the number of open files or the speed drift?

python benchmarks/soak.py [--draws 1_000_000] [--limit-mb 1.0] [--limit-fds 4]

A small set of short clips (WAV, FLAC, Ogg, one of them damaged) is drawn many times without a
cache, so every draw is decoded. One half of the draws uses threads, the other half worker
processes. Of the main process and of every worker, the table shows the resident memory (RSS) at
start and end, its slope (least squares, in MB per 100,000 draws of the run, without the first
tenth) and the open file descriptors. The last columns are the clips per second in the first and in
the last tenth.

Exit code 1: a slope is above --limit-mb, or a process has more than --limit-fds further descriptors
at the end. Linux only, because the figures are read from /proc.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from asjax import build, labels
from asjax.data import prefetch

RATE, CLIP_S, BATCH = 16000, 0.5, 64
PARTS = [  # title, workers, threads
    ("threads", 0, 2),
    ("workers", 2, 1),
]
SAMPLES = 200  # measurements of memory in a part
CLASSES = labels.LabelSet("soak", ("a", "b"), ("a", "b"))


def small_set(folder: Path):
    """Twenty clips of 0.3 to 0.7 s in three formats; the last one is damaged."""
    rng, rows = np.random.default_rng(0), ["filename,labels"]
    for i in range(20):
        name = f"{i}.{('wav', 'flac', 'ogg')[i % 3]}"
        wave = rng.normal(0, 0.1, int(RATE * (0.3 + 0.02 * i)))
        soundfile.write(folder / name, wave, RATE)
        rows.append(f"{name},{'ab'[i % 2]}")
    (folder / "19.flac").write_bytes(b"fLaC damaged")
    rows[-1] = "19.flac,b"
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return build.source({"name": "folder", "csv": str(folder / "clips.csv")}, CLASSES)


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def slope(draws, megabytes) -> float:
    """MB per 100,000 draws, least squares without the first tenth."""
    first = len(draws) // 10
    return float(np.polyfit(draws[first:], megabytes[first:], 1)[0] * 1e5)


def run(source, workers: int, threads: int, draws: int) -> dict:
    """Take `draws` clips. Returns the figures of every process and the clips per second."""
    pipe = build.pipeline(
        source, num_classes=2, batch_size=BATCH, sample_rate=RATE, clip_s=CLIP_S,
        workers=workers, threads=threads, cache=False,
    )  # fmt: skip
    steps = max(10, draws // BATCH)
    every, tenth = max(1, steps // SAMPLES), max(1, steps // 10)
    at, memory, times = [], [], {}
    with prefetch.prefetch(pipe.iterate(), lambda batch: batch) as batches:
        next(batches)  # the start of the processes is not measured
        for step in range(steps + 1):
            if step in (0, tenth, steps - tenth, steps):
                times[step] = time.perf_counter()
            if step == tenth // 2:  # everything is loaded
                pids = [os.getpid(), *sorted(p.pid for p in multiprocessing.active_children())]
                files = [descriptors(pid) for pid in pids]
            if step >= tenth // 2 and step % every == 0:
                at.append(step * BATCH)
                memory.append([resident_mb(pid) for pid in pids])
            next(batches)
        files = list(zip(files, map(descriptors, pids), strict=True))
    memory = np.array(memory)
    speed = [tenth * BATCH / (times[b] - times[a]) for a, b in ((0, tenth), (steps - tenth, steps))]
    names = ["main", *(f"worker {i}" for i in range(1, len(pids)))]
    rows = [
        {"process": name, "first": m[0], "last": m[-1], "slope": slope(at, m), "fds": fds}
        for name, m, fds in zip(names, memory.T, files, strict=True)
    ]
    return {
        "draws": steps * BATCH,
        "rows": rows,
        "speed": speed,
        "seconds": times[steps] - times[0],
    }


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1_000_000)
    parser.add_argument("--limit-mb", type=float, default=1.0, help="MB per 100,000 draws")
    parser.add_argument("--limit-fds", type=int, default=4, help="descriptors more than at start")
    args = parser.parse_args(argv)
    if not Path("/proc/self/statm").exists():
        print("soak.py needs Linux: it reads /proc", file=sys.stderr)
        return 2
    if args.draws < 1:
        print(f"--draws must be at least 1, got {args.draws}", file=sys.stderr)
        return 2
    found = []
    with tempfile.TemporaryDirectory() as folder:
        source = small_set(Path(folder))
        for title, workers, threads in PARTS:
            part = run(source, workers, threads, args.draws // len(PARTS))
            found.append((f"{title}, {part['draws']:,} draws in {part['seconds']:.0f} s", part))
    print("| part | process | RSS MB first | last | slope MB/100k | fds first | last |", end="")
    print(" clips/s first tenth | last tenth |\n|---|---|---|---|---|---|---|---|---|")
    faults = []
    for title, part in found:
        for row in part["rows"]:
            first, last = row["fds"]
            print(
                f"| {title} | {row['process']} | {row['first']:.1f} | {row['last']:.1f} | "
                f"{row['slope']:+.2f} | {first} | {last} | {part['speed'][0]:,.0f} | "
                f"{part['speed'][1]:,.0f} |"
            )
            if row["slope"] > args.limit_mb:
                faults.append(f"{title}, {row['process']}: {row['slope']:+.2f} MB per 100k draws")
            if last > first + args.limit_fds:
                faults.append(f"{title}, {row['process']}: {first} -> {last} descriptors")
    for fault in faults:
        print(f"too much growth: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

"""Samplers at AudioSet's size, decoding against raw soundfile, and workers, as Markdown tables.

python benchmarks/data.py [--lists DIR] [--rounds 10] [--only samplers|decode|scale|workers]

`--lists` is a folder with AudioSet's {balanced,unbalanced}_train_segments.csv[.gz]. Without it the
labels are synthetic: the number of clips and of positives per class are those of the published
training lists, but the classes are drawn independently. Each sampler is built in a separate
process. Decoding is timed in CPU seconds of one thread. The pipeline and soundfile take turns on
the same clips.
"""

import argparse
import io
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from asjax import build

COUNTS = Path(__file__).parent.parent / "tests" / "golden" / "audioset_counts.json"
SAMPLERS = [
    "sequential",
    "shuffle",
    "oversample(beta=0.5)",
    "oversample(beta=1.0)",
    "expected(beta=0.5)",
    "weighted(scheme='passt')",
    "weighted(scheme='passt', replacement=False)",
    "weighted(scheme='ast')",
    "class_queue",
]
SAMPLER_COLUMNS = [
    "draw",
    "draws/epoch",
    "build s",
    "kept MiB",
    "peak MiB",
    "first draw ms",
    "draws/s, single",
    "draws/s, array",
]


# -------------------------------------------------------------------------------------- labels


def official_labels(folder: Path):
    from scipy import sparse

    from asjax.data.audioset import read_segments

    parts = []
    for split in ("balanced_train", "unbalanced_train"):
        found = sorted(folder.glob(f"{split}_segments.csv*"))
        if not found:
            raise SystemExit(f"--lists {folder} must contain {split}_segments.csv[.gz]")
        parts.append(read_segments(found[0], "audioset527", progress=False))
    return sparse.vstack(parts, format="csr"), "AudioSet's official training lists"


def synthetic_labels(seed: int = 0):
    """Labels with exact N and N_k of the published training lists, on random clips."""
    from scipy import sparse

    splits = json.loads(COUNTS.read_text())["splits"]
    parts = [splits["balanced_train"], splits["unbalanced_train"]]
    n, counts = splits["train"]["clips"], np.sum([part["counts"] for part in parts], axis=0)
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.choice(n, k, replace=False) for k in counts])
    columns = np.repeat(np.arange(len(counts)), counts)
    ones = np.ones(len(rows), np.int8)
    return sparse.csr_matrix((ones, (rows, columns)), (n, len(counts))), (
        "synthetic: N and N_k of the published training lists, independent classes"
    )


# ------------------------------------------------------------------------------------ samplers


def memory_mib(key: str = "VmRSS") -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    return float("nan")


def measure_sampler(labels_file: str, spec: str) -> list[str]:
    """A table row; runs in a new process."""
    import grain
    from scipy import sparse

    from asjax import build

    labels = sparse.load_npz(labels_file)
    build.make("draw", "shuffle", labels=labels[:10], seed=0)(0)  # imports and caches
    before = memory_mib()
    start = time.perf_counter()
    drawn = build.make("draw", spec, labels=labels, seed=0)
    built = time.perf_counter() - start
    after = memory_mib()
    start = time.perf_counter()
    drawn(0)
    first = time.perf_counter() - start
    dataset = grain.MapDataset.range(drawn.draws_per_epoch).map(drawn)
    anywhere = np.random.default_rng(0).integers(drawn.draws_per_epoch, size=20_000).tolist()
    [dataset[n] for n in anywhere[:500]]
    start = time.perf_counter()
    for n in anywhere:
        dataset[n]
    single = len(anywhere) / (time.perf_counter() - start)
    many = np.arange(min(drawn.draws_per_epoch, 50_000 if spec == "class_queue" else 1_000_000))
    start = time.perf_counter()
    drawn(many)
    vector = len(many) / (time.perf_counter() - start)
    cells = [f"`{spec}`", f"{drawn.draws_per_epoch:,}", f"{built:.2f}", f"{after - before:.0f}"]
    peak = memory_mib("VmHWM") - before
    return [*cells, f"{peak:.0f}", f"{first * 1e3:.1f}", f"{single:,.0f}", f"{vector:,.0f}"]


def samplers(lists):
    from scipy import sparse

    labels, which = official_labels(Path(lists)) if lists else synthetic_labels()
    print(f"\n## Samplers, N = {labels.shape[0]:,} clips, {labels.nnz:,} positives ({which})\n")
    table(SAMPLER_COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "labels.npz")
        sparse.save_npz(file, labels, compressed=False)
        for spec in SAMPLERS:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                row(pool.submit(measure_sampler, file, spec).result())


# -------------------------------------------------------------------------------------- decode


def esc10():
    from asjax import labels

    return build.source("esc10", labels.get("audioset527"))


def piped(source, sample_rate, **kwargs):
    return build.pipeline(
        source,
        batch_size=32,
        sample_rate=sample_rate,
        clip_s=5.0,
        num_classes=527,
        cache=False,
        **kwargs,
    )


def decode(rounds: int):
    """Batches of the pipeline in this thread and soundfile.read of the same clips, in turn."""
    import soundfile

    from asjax.data import audio

    source = esc10()
    own = audio.info(source[0]["audio"]).rate
    clips = [source[i]["audio"] for i in range(len(source))]
    order = build.make("draw", "shuffle", labels=source.labels, seed=0)
    rates = [own, 16000, 44100]
    pipes = {rate: piped(source, rate, threads=0).iterate() for rate in rates}
    ratios, raw_rates = {rate: [] for rate in rates}, []

    def raw(number):
        start = time.thread_time()
        for j in range(32):
            soundfile.read(io.BytesIO(clips[order(number * 32 + j)]), dtype="float32")
        return time.thread_time() - start

    def ours(rate):
        start = time.thread_time()
        next(pipes[rate])
        return time.thread_time() - start

    for number in range(rounds + 1):
        for rate in rates:
            if number % 2:  # the order alternates
                theirs, own_time = raw(number), ours(rate)
            else:
                own_time, theirs = ours(rate), raw(number)
            if number:  # the first round warms up
                ratios[rate].append(theirs / own_time)
                raw_rates.append(32 / theirs)
    print(f"\n## Decoding, {len(source)} embedded clips of 5 s at {own} Hz, one thread, no cache\n")
    print(f"soundfile.read alone: {statistics.median(raw_rates):.0f} clips per CPU second.\n")
    table(["pipeline to", "clips/CPU s : soundfile's", "lowest", "highest"])
    for rate in rates:
        pipes[rate].close()
        found = ratios[rate]
        name = f"{rate} Hz" + (" (no resampling)" if rate == own else "")
        row([name, f"{statistics.median(found):.2f}", f"{min(found):.2f}", f"{max(found):.2f}"])


def scale(rounds: int):
    """Wall-clock clips per second. Settings take turns, so other load affects all of them."""
    source = esc10()
    settings = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
    open_now = {(w, t): piped(source, 32000, workers=w, threads=t) for w, t in settings}
    rates = {setting: [] for setting in settings}
    for turn in range(2):
        for setting in settings:
            with open_now[setting].iterate(turn * 100) as batches:
                for _ in range(5):  # start-up and prefetched batches
                    next(batches)
                start = time.perf_counter()
                for _ in range(rounds * 2):
                    next(batches)
                rates[setting].append(rounds * 64 / (time.perf_counter() - start))
    base = max(rates[0, 0])
    load = os.getloadavg()[0]
    print(f"\n## Scaling, {os.cpu_count()} cores, load average {load:.1f}, 32 kHz, no cache\n")
    table(["workers", "threads each", "clips/s", "ratio to this process alone"])
    for (workers, threads), found in rates.items():
        row([workers, threads, f"{max(found):.0f}", f"{max(found) / base:.2f}"])


# -------------------------------------------------------------------------------------- workers


def workers():
    """Costs of worker processes, of the list of bad clips and of the transfer to the device."""
    print("\n## Workers and transfer to the device\n")
    table(["what", "cost"])
    pipe = piped(esc10(), 32000, workers=2, threads=1, train=False)
    with pipe:
        for number in range(3):
            start = time.perf_counter()
            with pipe.iterate() as batches:
                next(batches)
                first = time.perf_counter() - start
                for _ in batches:
                    pass
            row([f"evaluation {number + 1}, 2 workers: time to first batch", f"{first:.2f} s"])
    sent_to_a_worker()
    quarantined()
    placed()


def sent_to_a_worker(clips: int = 2_000_000):
    """The pickle of a pipeline with as many clips as AudioSet, and its cost for a worker."""
    import cloudpickle
    from scipy import sparse

    from asjax.data import records, sources

    rng = np.random.default_rng(0)
    columns = np.sort(rng.integers(0, 527, (clips, 2)), axis=1).ravel()
    ends = np.arange(0, 2 * clips + 1, 2)
    ones = np.ones(2 * clips, np.int8)
    matrix = sparse.csr_matrix((ones, columns, ends), (clips, 527))
    ids = [f"{i:011d}_{i % 600}" for i in range(clips)]
    reader = records.Reader([(f"shard{k}", clips // 200) for k in range(200)])
    rows = np.arange(clips)
    source = sources.Source("many", ids, ["train"] * clips, matrix, "", reader, rows)
    pipe = piped(source, 32000, draw="oversample(beta=0.5)")
    start = time.perf_counter()
    data = cloudpickle.dumps(pipe.steps[0:])
    row([f"{clips:,} clips: pickled once for all workers", f"{time.perf_counter() - start:.1f} s"])
    row([f"{clips:,} clips: bytes sent to a worker", f"{len(data):,}"])
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        seconds, mib = pool.submit(_unpacked, data).result()
    row([f"{clips:,} clips: unpickled by a worker in", f"{seconds:.2f} s"])
    row([f"{clips:,} clips: private memory of a worker", f"{mib:.0f} MiB"])


def _unpacked(data):
    import cloudpickle

    import asjax.data.pipeline  # noqa: F401 (already imported in a real worker)

    before, start = memory_mib("RssAnon"), time.perf_counter()
    kept = cloudpickle.loads(data)
    return time.perf_counter() - start, memory_mib("RssAnon") - before + 0 * len(kept)


def quarantined(clips: int = 50_000):
    from asjax.data.quarantine import Quarantine

    with tempfile.TemporaryDirectory() as folder:
        bad = Quarantine(Path(folder) / "quarantine.csv", 10**7)
        bad.add([(f"clip{i}", f"clip{i} is cut short") for i in range(clips)])
        times = []
        for i in range(100):
            start = time.perf_counter()
            bad.add([(f"new{i}", "empty")])
            times.append(time.perf_counter() - start)
    row([f"recording one more bad clip after {clips:,}", _ms(times)])


def placed():
    import jax

    from asjax import sharding
    from asjax.data.batch import owned as own  # the pipeline makes its batches with this

    mesh, rng = sharding.make_mesh(), np.random.default_rng(0)
    floats = rng.normal(size=(64, 320_000)).astype(np.float32)
    for wave, owned in ((floats, False), (floats, True), ((floats * 3000).astype(np.int16), True)):
        times = []
        for _ in range(9):
            batch = {"wave": own(wave)}
            start = time.perf_counter()
            jax.block_until_ready(sharding.place(mesh, batch, owned=owned))
            times.append(time.perf_counter() - start)
        name = f"64 x 10 s at 32 kHz, {wave.dtype}, {'taken over' if owned else 'copied'}"
        row([f"{name}, on {mesh.size} {jax.default_backend()} devices", _ms(times)])


def _ms(times) -> str:
    return f"{statistics.median(times) * 1e3:.2f} ms"


# --------------------------------------------------------------------------------------- output


def table(header):
    row(header)
    row(["---"] * len(header))


def row(cells):
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lists", help="folder with AudioSet's training segment lists")
    parser.add_argument("--rounds", type=int, default=10, help="batches of 32 per measurement")
    parser.add_argument("--only", choices=["samplers", "decode", "scale", "workers"])
    args = parser.parse_args()
    if args.only in (None, "samplers"):
        samplers(args.lists)
    if args.only in (None, "decode"):
        decode(args.rounds)
    if args.only in (None, "scale"):
        scale(args.rounds)
    if args.only in (None, "workers"):
        workers()


if __name__ == "__main__":
    main()

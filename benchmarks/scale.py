"""How costs grow: records from 10^4 to 10^7, costs of a clip, a checkpoint of a gigabyte.

    python benchmarks/scale.py [--part records|reading|costs|checkpoint] [--most 2000000]
        [--folder DIR]

Rates are per CPU second of one process, so that other work on the machine matters little. Every
number is measured in a process of its own. Tables are Markdown.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SHARD = 2000  # records in a shard, as for AudioSet in 1 GB shards of 10 s at 32 kHz
READS = 20_000


def mib(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    return float("nan")


def table(header):
    row(header)
    row(["---"] * len(header))


def row(cells):
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def alone(part: str, *args) -> dict:
    """The result of `part` in a new process."""
    code = [sys.executable, __file__, "--one", part, *map(str, args)]
    done = subprocess.run(code, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{part}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


# ------------------------------------------------------------------------------------- records


def make(folder: Path, records: int, shard: int = SHARD) -> None:
    """A record set as asjax prepare writes it, with tiny clips and `shard` records in a shard."""
    from array_record.python import array_record_module

    from asjax import labels
    from asjax.data import example
    from asjax.data import records as form
    from asjax.store import files

    label_set, rng = labels.get("audioset527"), np.random.default_rng(0)
    classes = np.minimum(rng.zipf(1.5, (records, 2)) - 1, len(label_set) - 1)
    count, shards, done = -(-records // shard), [], 0
    folder.mkdir(parents=True)
    for k in range(count):
        name, size = form.shard_name("many", "train", k, count), min(shard, records - done)
        writer = array_record_module.ArrayRecordWriter(str(folder / name), "group_size:1")
        for i in range(done, done + size):
            fields = {"id": f"{i:011d}_30000", "audio": b"x" * 40, "sample_rate": 32000}
            writer.write(example.encode({**fields, "samples": 20, "labels": [], "category": ""}))
        writer.close()
        bytes_ = (folder / name).stat().st_size
        shards.append({"file": name, "records": size, "bytes": bytes_, "sha256": ""})
        done += size
    with open(folder / "manifest.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(form.COLUMNS)
        for i in range(records):
            cell = ";".join(label_set.ids[c] for c in sorted({*classes[i].tolist()}))
            digest = hashlib.sha256(str(i).encode()).hexdigest()
            out.writerow([f"{i:011d}_30000", "train", cell, "", 320000, 32000, digest])
    lengths = [str(s["records"]) for s in shards]
    splits = [{"name": "train", "shardLengths": lengths}]
    (folder / "dataset_info.json").write_text(json.dumps({"name": "many", "splits": splits}))
    (folder / "features.json").write_text("{}")
    manifest = {
        "format": form.FORMAT,
        "name": "many",
        "splits": {"train": records},
        "shards": shards,
        "manifest_sha256": files.digest(folder / "manifest.csv"),
        "label_set": {"name": label_set.name, "hash": label_set.hash},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def opened(folder: str) -> dict:
    """Cost of opening a record set, of draws and of random reads."""
    import array_record.python.array_record_module  # noqa: F401 (imports are not counted)
    import pyarrow.csv  # noqa: F401
    import scipy.sparse  # noqa: F401

    from asjax import build, labels
    from asjax.data import sources

    label_set = labels.get("audioset527")
    before, begin = mib("VmRSS"), time.process_time()
    source = sources.records(label_set, path=folder)
    found = {"open_s": time.process_time() - begin, "kept_mib": mib("VmRSS") - before}
    found |= drawn(source.labels)
    rows = random.Random(0).choices(range(len(source)), k=2 * READS)
    for r in rows[:READS]:  # opens the shards
        source.audio[r]
    begin = time.process_time()
    for r in rows[READS:]:
        source.audio[r]
    found["reads"] = READS / (time.process_time() - begin)
    build.make("draw", "shuffle", labels=source.labels, seed=0)
    return found


def drawn(labels) -> dict:
    """Seconds to build a draw, and draws per second."""
    from asjax import build

    found = {}
    for name in ("oversample(beta=0.5)", "shuffle"):
        begin = time.process_time()
        draw = build.make("draw", name, labels=labels, seed=0)
        draw(0)
        key = name.partition("(")[0]
        found[f"{key}_build_s"] = time.process_time() - begin
        begin = time.process_time()
        for n in range(READS):
            draw(n)
        found[f"{key}_draws"] = READS / (time.process_time() - begin)
    return found


def drawn_alone(records: str) -> dict:
    """`drawn` on labels without a record set."""
    return drawn(random_labels(int(records)))


def random_labels(n: int):
    """Two classes for each of n clips, by Zipf's law."""
    from scipy import sparse

    rng = np.random.default_rng(0)
    columns = np.sort(np.minimum(rng.zipf(1.5, (n, 2)) - 1, 526), axis=1).astype(np.int32)
    ends = np.arange(0, 2 * n + 1, 2)
    return sparse.csr_matrix((np.ones(2 * n, np.int8), columns.ravel(), ends), (n, 527))


def records(most: int, folder: Path) -> None:
    print("\n## Records: per CPU second\n")
    header = ["records", "shards", "open s", "kept MiB", "random reads", "beta .5: build s"]
    table([*header, "beta .5: draws", "shuffle: draws"])
    for n in (10_000, 100_000, 1_000_000, 2_000_000, 10_000_000):
        if n <= most:
            place = folder / str(n)
            if not place.exists():
                make(place, n)
            found, shards = alone("opened", place), -(-n // SHARD)
            cells = [f"{found['open_s']:.2f}", f"{found['kept_mib']:.0f}", f"{found['reads']:,.0f}"]
        else:
            found, shards, cells = alone("drawn_alone", n), "-", ["-", "-", "-"]
        draws = [f"{found[k]:,.0f}" for k in ("oversample_draws", "shuffle_draws")]
        row([f"{n:,}", shards, *cells, f"{found['oversample_build_s']:.2f}", *draws])


# ------------------------------------------------------------------------------------- reading


def prepared(folder: Path, clips: int = 64, seconds: float = 10.0, rate: int = 32_000) -> dict:
    """Encoding -> a record set that `asjax prepare` makes of noisy tones."""
    import soundfile

    wavs, rng = folder / "wavs", np.random.default_rng(0)
    wavs.mkdir(parents=True)
    t, lines = np.arange(round(seconds * rate)) / rate, ["filename,labels"]
    for i in range(clips):
        tone = 8000 * np.sin(2 * np.pi * (200 + 50 * i) * t)
        soundfile.write(wavs / f"{i}.wav", (tone + rng.normal(0, 500, len(t))).astype("i2"), rate)
        lines.append(f"{i}.wav,/m/09x0r")
    (wavs / "list.csv").write_text("\n".join(lines) + "\n")
    for encoding in ("pcm16", "flac"):
        command = [sys.executable, "-m", "asjax", "prepare", "folder", "--audio", str(wavs)]
        command += ["--csv", str(wavs / "list.csv"), "--encode", encoding, "--workers", "1"]
        command += ["--sample-rate", str(rate), "--out", str(folder / encoding)]
        subprocess.run(command, check=True, capture_output=True)
    return {encoding: folder / encoding for encoding in ("pcm16", "flac")}


def reading(folder: Path) -> None:
    """Clips through the whole pipeline, from records of each encoding."""
    print("\n## Records of 10 s at 32000 Hz through the pipeline, one thread, no cache\n")
    table(["encoding", "batches", "clips per CPU second"])
    for encoding, place in prepared(folder).items():
        found = alone("piped", place)
        row([encoding, found["dtype"], f"{found['rate']:,.0f}"])


def piped(folder: str, records: str = "0") -> dict:
    """Clips of 10 s per CPU second through the pipeline, and CPU seconds to place one clip.

    `records`: so many clips of the same recordings; 0: those of the set.
    """
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    from asjax import build, labels, sharding

    source = build.source(f"records(path={folder!r})", labels.get("audioset527"))
    if n := int(records):
        source = repeated(source, n)
    size = dict(sample_rate=32_000, clip_s=10.0, num_classes=527, batch_size=64)
    batches = build.pipeline(source, cache=False, threads=0, **size).iterate()
    for _ in range(3):
        batch = next(batches)
    begin, clips = time.process_time(), 0
    while time.process_time() - begin < 4:
        batch = next(batches)
        clips += len(batch["id"])
    found = {"rate": clips / (time.process_time() - begin), "dtype": str(batch["wave"].dtype)}
    mesh = sharding.make_mesh()
    assert mesh.size == 8
    for turn in range(21):
        begin = begin if turn > 1 else time.process_time()  # the first is not counted
        jax.block_until_ready(sharding.place(mesh, batch, owned=True))
    return {**found, "place_s": (time.process_time() - begin) / 20 / len(batch["id"])}


def repeated(source, n: int):
    """A source of n clips with the recordings of `source` in turn."""
    from dataclasses import replace

    row = source.row[np.arange(n) % len(source)]
    ids = [f"{i:011d}_30000" for i in range(n)]
    return replace(source, ids=ids, split=["train"] * n, row=row, labels=random_labels(n))


def costs(most: int, folder: Path) -> None:
    """Microseconds of CPU that one clip costs, in sets of 10^4 to 10^7 clips."""
    print("\n## Microseconds of CPU per clip\n")
    places = prepared(folder / "clips")
    table(["clips", "shards", "draw, beta .5", "draw, shuffle", "read", *places, "place"])
    for n in (10_000, 100_000, 1_000_000, 10_000_000):
        place, shards = folder / str(n), -(-n // SHARD)
        make(place, *((n,) if n <= most else (8 * shards, 8)))
        found, drawn_ = alone("opened", place), alone("drawn_alone", n)
        through = [alone("piped", p, n) for p in places.values()]
        rates = [drawn_["oversample_draws"], drawn_["shuffle_draws"], found["reads"]]
        cells = [f"{1e6 / rate:,.1f}" for rate in (*rates, *(x["rate"] for x in through))]
        row([f"{n:,}", shards, *cells, f"{1e6 * through[0]['place_s']:,.1f}"])


# ---------------------------------------------------------------------------------- checkpoint


def state_of(gigabytes: float):
    import jax
    import jax.numpy as jnp

    size = int(gigabytes * 2**30 / 16 / 4)
    keys = jax.random.split(jax.random.key(0), 16)
    return {f"p{i:02d}": jax.random.normal(keys[i], (size,), jnp.float32) for i in range(16)}


def blocked(folder: str, gigabytes: str) -> dict:
    """Seconds that a save blocks, and until it is on disk; the median of three saves."""
    import jax

    from asjax.store import checkpoint

    state = jax.block_until_ready(state_of(float(gigabytes)))
    times = []
    with checkpoint.Checkpoints(folder) as checkpoints:
        for step in range(4):
            begin, cpu = time.perf_counter(), time.process_time()
            if not checkpoints.save(step, state, metrics={"mean_ap": step / 10}):
                raise SystemExit(checkpoints.last_error)
            held, held_cpu = time.perf_counter() - begin, time.process_time() - cpu
            if not checkpoints.wait():
                raise SystemExit(checkpoints.last_error)
            whole = time.perf_counter() - begin
            times.append((held, whole, held_cpu, time.process_time() - cpu))
    middle = np.median(np.array(times[1:]), axis=0)
    return dict(zip(("blocked_s", "whole_s", "blocked_cpu", "whole_cpu"), middle, strict=True))


def save_for_ever(folder: str, gigabytes: str) -> dict:
    import jax

    from asjax.store import checkpoint

    state = jax.block_until_ready(state_of(float(gigabytes)))
    with checkpoint.Checkpoints(folder) as checkpoints:
        step = (checkpoints.latest_step() or 0) + 1
        print("ready", flush=True)
        while True:
            checkpoints.save(step, state, metrics={"mean_ap": step})
            checkpoints.wait()
            print(step, flush=True)
            step += 1


def killed(folder: Path, gigabytes: float, times: int) -> tuple[int, int]:
    """(kills after which the newest step was sound and none was lost, kills)."""
    from asjax.store import checkpoint

    rng, good = random.Random(0), 0
    for _ in range(times):
        command = [sys.executable, __file__, "--one", "save_for_ever", str(folder), str(gigabytes)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        saved, deadline = 0, None
        os.set_blocking(child.stdout.fileno(), False)
        while deadline is None or time.monotonic() < deadline:
            line = child.stdout.readline().strip()
            if line == "ready":
                deadline = time.monotonic() + rng.uniform(0.2, 6.0)
            elif line:
                saved = int(line)
            else:
                time.sleep(0.01)
            if child.poll() is not None:
                raise SystemExit("the saving process ended by itself")
        child.send_signal(signal.SIGKILL)
        child.wait()
        saved = max([saved, *(int(x) for x in child.stdout.read().split() if x.isdigit())])
        left = checkpoint.Checkpoints(folder)  # cleans up, as a resumed run does
        newest = left.latest_step() or 0
        good += newest >= saved and (newest == 0 or not left.problems(newest))
    return good, times


def checkpoint_part(folder: Path, gigabytes: float, kills: int) -> None:
    print(f"\n## A checkpoint of {gigabytes:g} GB, 16 arrays\n")
    found = alone("blocked", folder / "blocked", gigabytes)
    table(["what", "value"])
    row(["save() blocks", f"{found['blocked_s']:.2f} s, {found['blocked_cpu']:.2f} CPU s"])
    row(["until it is on disk", f"{found['whole_s']:.2f} s, {found['whole_cpu']:.2f} CPU s"])
    row(["share that blocks", f"{found['blocked_s'] / found['whole_s']:.1%}"])
    good, times = killed(folder / "killed", gigabytes, kills)
    row(["kill -9 at random times: newest step sound, none lost", f"{good} of {times}"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("records", "reading", "costs", "checkpoint"))
    parser.add_argument("--most", type=int, default=2_000_000, help="records that are written")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of the checkpoint")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", help="where to write (default: a temporary folder)")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        name, *rest = args.one
        parts = dict(opened=opened, drawn_alone=drawn_alone, blocked=blocked, piped=piped)
        print(json.dumps({**parts, "save_for_ever": save_for_ever}[name](*rest)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(args.folder or temporary)
        if args.part in (None, "records"):
            records(args.most, folder)
        if args.part in (None, "reading"):
            reading(Path(temporary) / "reading")
        if args.part in (None, "costs"):
            costs(args.most, Path(temporary) / "costs")
        if args.part in (None, "checkpoint"):
            checkpoint_part(Path(temporary), args.gigabytes, args.kills)


if __name__ == "__main__":
    main()

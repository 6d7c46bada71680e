"""Recordings per CPU second of `asjax tag --from` and of a loop of `asjax tag FILE`, as Markdown.

python benchmarks/tagging.py [--files 256] [--loop 6] [--rounds 2] [--beam]

A small untrained model (CNN, 64 mel bins, 16 kHz, 10 s) tags recordings of noise; every eighth has
25 s, the others 10 s. Each row is a process of its own, or in the loop one per recording. CPU
seconds are those of the process and its children: start, compilation, decoding, model, writing.
With --beam also Beam's DirectRunner with two processes. The programs take turns in each round; the
table has the best of the rounds.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from asjax import build, labels
from asjax.store import model_dir

RATE, CLIP_S = 16_000, 10


def model(folder: Path) -> None:
    import jax

    label_set = labels.get("audioset527")
    cfg = {
        "labels": {"name": label_set.name, "hlp": False, "strict": False},
        "data": {"sample_rate": RATE, "clip_s": CLIP_S, "workers": 0, "threads": 1},
        "frontend": {"name": "panns_logmel", "sample_rate": RATE, "n_mels": 64, "hop": 160,
                     "n_fft": 512},
        "model": {"name": "cnn", "variant": "mini", "n_mels": 64},
        "eval": {"batch_size": 16},
    }  # fmt: skip
    frontend = build.make("frontend", cfg["frontend"])
    net = build.make("model", cfg["model"], num_classes=len(label_set))
    feats = frontend(np.zeros((1, RATE * CLIP_S), np.float32))
    variables = jax.jit(partial(net.init, train=False))(jax.random.key(0), feats)
    model_dir.save_model(folder, config=cfg, label_set=label_set, variables=variables, record={})


def recordings(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    rng, paths = np.random.default_rng(0), []
    for i in range(count):
        wave = rng.normal(0, 0.1, RATE * (CLIP_S if i % 8 else 25))
        paths.append(folder / f"{i:05d}.wav")
        soundfile.write(paths[-1], wave, RATE)
    return paths


def timed(*commands) -> tuple[float, float]:
    """Wall and CPU seconds of commands, one after the other."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    for words in commands:
        subprocess.run(
            [sys.executable, "-m", "asjax", "tag", *map(str, words)], check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=256)
    parser.add_argument("--loop", type=int, default=6, help="recordings of the loop")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--beam", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        os.environ["ASJAX_CACHE"] = str(root / "cache")  # all start with no compiled program
        model(root / "model")
        paths = recordings(root / "lake", args.files)
        how = [f"--model={root / 'model'}", "--top", 5]
        alone = [(path, "--tsv", *how) for path in paths[: args.loop]]
        timed(alone[0])
        rows: dict[str, list] = {}
        for number in range(args.rounds):
            bulk = ["--from", root / "lake", *how, "--unit-size", 32, "--to"]
            programs = {
                "`asjax tag --from`": [(*bulk, root / f"bulk{number}")],
                "`asjax tag FILES`": [(*paths, "--tsv", "--out", root / f"{number}.tsv", *how)],
                "loop of `asjax tag FILE`": alone,
            }
            if args.beam:
                runner = ["--runner=DirectRunner", "--runner-options=--direct_num_workers=2 "
                          "--direct_running_mode=multi_processing"]  # fmt: skip
                programs["on Beam, 2 processes"] = [(*bulk, root / f"beam{number}", *runner)]
            for name, commands in programs.items():
                count = args.loop if commands is alone else len(paths)
                wall, cpu = timed(*commands)
                rows.setdefault(name, []).append((count / cpu, count / wall))
    best = {name: np.max(values, axis=0) for name, values in rows.items()}
    base = best["loop of `asjax tag FILE`"][0]
    print("| program | recordings per CPU s | per s | ratio of CPU to the loop |")
    print("|---|---|---|---|")
    for name, (cpu, wall) in best.items():
        print(f"| {name} | {cpu:.1f} | {wall:.1f} | {cpu / base:.0f} |")


if __name__ == "__main__":
    main()

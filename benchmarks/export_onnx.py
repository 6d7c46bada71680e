"""Exported ONNX files: error, size, and time of onnxruntime against jax, for every model family.

    python benchmarks/export_onnx.py [--models FAMILY:VARIANT[:FIELD=N] ...] [--out FILE]
    python benchmarks/export_onnx.py --table results.jsonl
    python benchmarks/export_onnx.py --first runs/quickstart/model tagger.onnx

Weights are random (tests/small_programs.py), the input is one clip of ten seconds. onnxruntime runs
with two threads, jax as it does for `asjax tag`. They take turns, and a time is the median of CPU
seconds of the process, all threads together, because a loaded machine changes wall time. One JSON
line per model; `--table` prints lines as Markdown. `--first` measures CPU seconds until the first
answer of a new process, imports included, for a folder and a file of the same model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

MODELS = (  # a small variant of each family; twelve equal blocks are measured as three
    "cnn:mini", "cnn:cnn6", "cnn:cnn14", "mobilenet:mn04", "convnext:femto",
    "efficientnet:effnet_b0", "frame_mn:frame_mn06", "resnet:resnet22",
    "wavegram:wavegram_logmel_cnn14",
    "resnet_att:resnet50_64x400", "talnet:crnn", "talnet:cnn_transformer",
    "transformer:transformer_64x400", "conformer:conformer_mini", "ced:ced_tiny", "ast:tiny224",
    "asit:asit_base:depth=3", "atst_clip:atst_clip_small", "atst_frame:atst_frame_small:depth=3",
    "beats:beats_base:depth=3", "m2d:m2d_base:depth=3", "fpasst:fpasst_base:depth=3",
    "passt:passt_s:depth=3",
)  # fmt: skip


def measured(name: str, rounds: int) -> dict:
    import jax
    import numpy as np
    import onnxruntime
    import small_programs

    from asjax.export import check, onnx_file, program

    family, variant, *fields = name.split(":")
    fields = {k: int(v) for k, v in (field.split("=") for field in fields)}
    made = small_programs.small(family, variant, 10.0, **fields)
    traced = program.trace(made)
    model = onnx_file.build(made, traced)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "m.onnx"
        path.write_bytes(model.SerializeToString())
        errors = check.compare(check.onnx_run(path), made, traced, float("inf"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    wave = check.waves(made.samples, made.sample_rate)[:1]
    variables, run = jax.device_put(made.variables), jax.jit(made.__call__)
    ways = {
        "onnxruntime": lambda: session.run(None, {"wave": wave}),
        "jax": lambda: jax.block_until_ready(run(variables, wave)),
    }
    times = {way: [] for way in ways}
    for turn in range(rounds + 1):  # the first one compiles
        for way, call in ways.items():
            start = time.process_time()
            call()
            if turn:
                times[way].append(1e3 * (time.process_time() - start))
    medians = {way: statistics.median(found) for way, found in times.items()}
    least, most = traced.least, traced.most
    length = "any" if most is None else "clip" if least == most else "up to clip"
    checked = [n for n in check.GATED if n in errors]
    return {
        "model": name, "mb": model.ByteSize() / 1e6, "nodes": len(model.graph.node),
        "length": length, "max_abs": max(errors[n][0] for n in checked),
        "rel_l2": max(errors[n][1] for n in checked), **medians,
        "ratio": float(np.divide(medians["onnxruntime"], medians["jax"])),
    }  # fmt: skip


def table(lines: list[dict]) -> str:
    rows = [
        "| model | MB | nodes | length | max abs | relative L2 | onnxruntime ms | jax ms | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {x['model'].split(':', 1)[1].replace(':', ', ')} | {x['mb']:.1f} | {x['nodes']} "
        f"| {x['length']} | {x['max_abs']:.0e} | {x['rel_l2']:.0e} | {x['onnxruntime']:.0f} "
        f"| {x['jax']:.0f} | {x['ratio']:.2f} |"
        for x in lines
    ]
    return "\n".join(rows)


_FIRST = """
import sys, time
import numpy as np, asjax
tagger = asjax.load(sys.argv[1])
wave = 0.1 * np.random.default_rng(0).standard_normal(round(tagger.clip_s * tagger.sample_rate))
tagger((wave.astype(np.float32), tagger.sample_rate))
print(time.process_time())
"""


def first(paths, rounds: int) -> None:
    found = {path: [] for path in paths}
    for _ in range(rounds):
        for path in paths:
            done = subprocess.run(
                [sys.executable, "-c", _FIRST, path], capture_output=True, text=True, check=True,
                cwd=ROOT,
            )  # fmt: skip
            found[path].append(float(done.stdout))
    for path, times in found.items():
        print(f"{statistics.median(times):6.2f} CPU s  {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--first", nargs=2, metavar=("FOLDER", "FILE"))
    args = parser.parse_args()
    if args.table:
        print(table([json.loads(line) for line in args.table.read_text().splitlines()]))
        return
    if args.first:
        first([str(Path(path).absolute()) for path in args.first], args.rounds)
        return
    for name in args.models:
        line = json.dumps(measured(name, args.rounds))
        print(line, flush=True)
        if args.out:
            with args.out.open("a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()

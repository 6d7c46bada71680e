"""Compile the training steps of recipes for TPUs and GPUs, on a machine that has none.

    pip install 'libtpu==0.0.42.*'      # TPUs: what jax[tpu] of jax 0.10.2 names
    pip install --no-deps jax-cuda13-plugin==0.10.2 jax-cuda13-pjrt==0.10.2 nvidia-cuda-nvcc \\
        nvidia-nvvm                     # GPUs: 0.7 GB of the 3 GB that jax[cuda13] brings
    python benchmarks/compile.py --topology v5e:2x4 [--configs FILE[:ARGS] ...] [--batch N]
        [--set model.attention=xla ...] [--meshes data data,fsdp] [--out results.jsonl]
    python benchmarks/compile.py --topology h100:8 ...
    python benchmarks/compile.py --topology cpu:512 --rows 8 --meshes data ...     # simulated
    python benchmarks/compile.py --table results.jsonl

One JSON line per recipe and mesh: seconds of compilation (of time, of CPU), bytes of HBM per device
(arguments, temporaries), FLOPs per device, bytes moved to and from memory (only of programs without
loops), the compiler's estimate of a step's seconds, and the collectives by kind with the bytes of
their results on one device. FLOPs (flops.py) and collectives (hlo.py) count a loop as often as it
turns. The compiler counts a loop once, so its estimate is left out where its FLOPs are not ours
within a factor of two. A recipe that the compiler refuses gives its reason.
`--table` prints lines as Markdown.

"cpu:N" are N simulated devices of this machine, for the growth of the collectives with N at equal
rows per device: `--rows`. The programs are the forms for CPUs, or with `--accelerator` those for
accelerators; XLA's machine code is not optimised, which changes no collective.

A mesh is an asjax mesh without sizes: "data", or "data,fsdp" with all devices on the latter.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import hlo

from asjax.fit import topology

ROOT = Path(__file__).resolve().parent.parent
MIB = 2**20


def make_mesh(devices, axes: str):
    """ "data" or "data,fsdp": all devices on the last axis."""
    import numpy as np
    from jax.sharding import AxisType, Mesh

    names = axes.split(",")
    shape = (1,) * (len(names) - 1) + (len(devices),)
    return Mesh(np.array(devices).reshape(shape), names, axis_types=(AxisType.Auto,) * len(names))


def measure(config: str, mesh, batch: int = 0, fields=None, rows=0, accelerator=False) -> dict:
    """One line of results; "refused" says why the compiler would not.

    A batch that the devices do not divide is rounded up: "batch" says to what.
    """
    from asjax import build
    from asjax.fit import program
    from asjax.nn import flops  # imports jax, which reads its environment then

    path, colon, arg = config.partition(":")
    cfg = build.load(f"{ROOT / path}{colon}{arg}", fields)
    with cfg.unlocked():
        cfg.batch_size = rows * mesh.size or batch or cfg.batch_size
        if cfg.batch_size % (
            mesh.size * build.read(cfg, "optim.accumulate_steps")
        ):  # e.g. 12 rows on 8 devices
            whole = mesh.size * build.read(cfg, "optim.accumulate_steps")
            cfg.batch_size = -(-cfg.batch_size // whole) * whole
    shown = " ".join([config, *(f"{key}={value}" for key, value in (fields or {}).items())])
    row = dict(config=shown, devices=mesh.size, mesh=",".join(mesh.axis_names))
    row["batch"] = cfg.batch_size
    begin = time.time()
    step, args = program.train_step(cfg, mesh)
    with program.forms(mesh, accelerator):
        lowered = step.lower(*args)
    counted = flops.count(step, *args) / mesh.size
    row["trace_s"] = round(time.time() - begin, 1)
    begin, cpu = time.time(), time.process_time()
    try:
        compiled = lowered.compile()
    except Exception as error:
        return {**row, "compile_s": round(time.time() - begin, 1), "refused": _reason(error)}
    cpu = time.process_time() - cpu
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    text = compiled.as_text()
    seconds = cost.get("optimal_seconds", -1)  # XLA gives negative numbers at times
    plausible = seconds > 0 and 0.5 < cost.get("flops", 0) / counted < 2
    return {
        **row,
        "compile_s": round(time.time() - begin, 1),
        "compile_cpu_s": round(cpu, 1),
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "flops": counted,
        "accessed": cost.get("bytes accessed") if " while(" not in text else None,
        "optimal_s": seconds if plausible else None,
        "collectives": hlo.collectives(text),
    }


def _reason(error) -> str:
    text = " ".join(str(error).split())
    for start in ("Ran out of memory", "RESOURCE_EXHAUSTED"):
        if start in text:
            return text[text.index(start) :][:200]
    return text[:200]


def table(lines) -> str:
    """Results as a Markdown table."""
    out = [
        "| recipe | devices | mesh | batch | compile s | arguments MiB | temporaries MiB "
        "| GFLOP a device | estimate ms | collectives: number, MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in lines:
        head = f"| `{r['config'].removeprefix('configs/')}` | {r['topology']} | {r['mesh']} "
        head += f"| {r['batch']} | {r['compile_s']:.0f} "
        if "refused" in r:
            out.append(f"{head}| {r['refused']} | | | | |")
            continue
        kinds = "; ".join(
            f"{kind} {c['count']}, {_number(c['bytes'] / 1e6)}"
            for kind, c in r["collectives"].items()
        )
        estimate = _number(1e3 * r["optimal_s"]) if r["optimal_s"] else "-"
        out.append(
            f"{head}| {_number(r['arguments'] / MIB)} | {_number(r['temporaries'] / MIB)} "
            f"| {_number(r['flops'] / 1e9)} | {estimate} | {kinds or '-'} |"
        )
    return "\n".join(out)


def _number(x: float) -> str:
    """Two digits, or all those before the point."""
    return f"{x:,.0f}" if x >= 10 else f"{x:.2g}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="v5e:2x4")
    parser.add_argument("--configs", nargs="+", help="FILE.py[:ARGS]; default: all, each :tiny")
    parser.add_argument("--batch", type=int, default=0, help="instead of the recipe's")
    parser.add_argument("--rows", type=int, default=0, help="rows per device, instead of --batch")
    parser.add_argument("--accelerator", action="store_true", help="cpu:N: forms of accelerators")
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="config fields")
    parser.add_argument("--meshes", nargs="+", default=["data", "data,fsdp"])
    parser.add_argument("--out", help="file to which the JSON lines are appended")
    parser.add_argument("--table", help="only print the lines of this file as Markdown")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(line) for line in Path(args.table).read_text().splitlines()))
        return
    devices = topology.devices(args.topology)
    configs = args.configs or [
        f"configs/{p.name}:tiny" for p in sorted((ROOT / "configs").glob("*.py"))
    ]
    fields = dict(item.split("=", 1) for item in args.set)
    for config in configs:
        for axes in args.meshes:
            mesh, how = make_mesh(devices, axes), (args.rows, args.accelerator)
            row = measure(config, mesh, args.batch, fields, *how)
            text = json.dumps({"topology": args.topology, **row})
            print(text, flush=True)
            if args.out:
                with open(args.out, "a") as file:
                    file.write(text + "\n")


if __name__ == "__main__":
    main()

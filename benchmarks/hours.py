"""Predicted hours of the papers' trainings, from compiled steps and measured shares of the peak.

    python benchmarks/compile.py --topology v5e:4x4 --meshes data --out new.jsonl --configs \\
        configs/hlp_passt.py:dtype=bfloat16
    python benchmarks/hours.py --add new.jsonl  # counts a clip's FLOPs, appends to hours.jsonl
    python benchmarks/hours.py                  # prints the table

Every number of hours is a prediction. Nothing ran. A step's seconds are, at best, the largest of

- FLOPs of the matrix products and convolutions on one device (without what `remat` repeats) / (peak
  x the highest share of the peak in SHARES),
- bytes moved to and from memory / its bandwidth: what XLA says of a program without loops,
  else twice the arguments (the state is read and written),
- bytes that a device sends / bandwidth of all its links,

and at worst the first at the lowest share plus the last with a quarter of the links. Hours are
those of training steps: scoring the evaluation set comes on top, and so does waiting for input.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINES = Path(__file__).with_name("hours.jsonl")

# Published per chip: FLOP/s (bf16, dense), memory B/s, B/s that its links send. TPU v5e:
# docs.cloud.google.com/tpu/docs/v5e (197 TFLOPs, 819 GBps, 400 GBps in both directions together).
# NVIDIA's data sheets of the H100 SXM and H200 SXM: 989 TFLOP/s; memory of the H100, the slower.
DEVICES = {
    "v5e": dict(peak=197e12, memory=819e9, links=200e9),
    "h100": dict(peak=989e12, memory=3350e9, links=0),
}
# Lowest and highest share of the peak. Transformers: measured on one H200 with XLA's and cuDNN's
# attention, AST with remat at batch 128, PaSST with patchout at batch 256 (README, Accelerators).
# Convolutions were never measured: the numbers for cnn and resnet_att are assumed.
SHARES = {"ast": (0.128, 0.305), "passt": (0.182, 0.211)}
ASSUMED = (0.03, 0.12)
FEW = 16  # with fewer clips on a device, half of the lowest share is the lowest: also assumed
RUNS = {"balancing_ast": 7}  # the paper's values of beta
CPU_S = {"pcm16": 1 / 2867, "flac": 1 / 225}  # to read one clip of 10 s at 32 kHz (README, Scale)


def shares(family: str, clips: float) -> tuple[float, float, bool]:
    """(lowest, highest, measured) share of the peak of a model family, `clips` on a device."""
    low, high = SHARES.get(family, ASSUMED)
    return (low if clips >= FEW else low / 2), high, family in SHARES


def sent(collectives: dict, devices: int) -> float:
    """Bytes that one of n devices sends in a step, from the bytes of the results.

    A ring sends 2 (n - 1) / n of an all-reduce, (n - 1) / n of an all-gather or all-to-all, n - 1
    times the piece of a reduce-scatter, and what is permuted once.
    """
    part = (devices - 1) / devices
    times = {"all-reduce": 2 * part, "reduce-scatter": devices - 1, "collective-permute": 1}
    return sum(times.get(kind, part) * c["bytes"] for kind, c in collectives.items())


def predict(line: dict, clips: int, family: str) -> dict:
    """Hours to train on so many clips, from a line of compile.py that has "plain".

    Args:
      line: "plain" are the FLOPs of a training step per clip, without what remat repeats.
      clips: steps x batch of the recipe. A batch that was rounded up takes fewer steps.

    Returns:
      low and high (hours), step_ms (of both), shares, measured (or assumed), clips_s (at best).
    """
    device, own = DEVICES[line["topology"].partition(":")[0]], line["batch"] / line["devices"]
    low, high, measured = shares(family, own)
    seconds = own * line["plain"] / device["peak"]  # at the peak
    traffic = sent(line["collectives"], line["devices"])
    links = traffic / device["links"] if traffic else 0.0
    moved = line["accessed"] or 2 * line["arguments"]
    best = max(seconds / high, moved / device["memory"], links)
    worst = seconds / low + 4 * links
    steps = clips / line["batch"]
    return {
        "low": steps * best / 3600,
        "high": steps * worst / 3600,
        "step_ms": (1e3 * best, 1e3 * worst),
        "shares": (low, high),
        "measured": measured,
        "clips_s": line["batch"] / best,
    }


def read_config(text: str):
    from asjax import build

    return build.load(f"{ROOT}/{text}")


def plain_flops(text: str) -> float:
    """FLOPs per clip of a training step without remat; attention stores its scores."""
    import jax

    from asjax import sharding
    from asjax.fit import program
    from asjax.nn import flops

    cfg = read_config(text)
    with cfg.unlocked():
        cfg.batch_size, cfg.optim.accumulate_steps, cfg.model.remat = 8, 1, False
        if cfg.model.name in SHARES:
            cfg.model.attention = "xla"
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    step, args = program.train_step(cfg, mesh)
    return flops.count(step, *args) / cfg.batch_size


def table(lines) -> str:
    """Predictions as a Markdown table."""
    header = ["recipe", "devices", "batch", "clips, M", "GFLOP a clip", "memory GiB", "MB sent"]
    header += ["share of the peak, %", "prediction: step, ms", "prediction: hours"]
    header += ["prediction: cores that read pcm16, FLAC"]
    out = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for line in lines:
        cfg = read_config(line["config"])
        clips = cfg.total_steps * cfg.batch_size
        name, batch = line["config"].removeprefix("configs/"), f"{line['batch']:,}"
        if line["batch"] != cfg.batch_size:
            batch += f" for {cfg.batch_size}"
        head = f"| `{name}` | {line['topology']} | {batch} | {clips / 1e6:,.1f} "
        if "refused" in line:
            out.append(f"{head}| {line['refused']} | | | | | | |")
            continue
        p = predict(line, clips, cfg.model.name)
        memory = (line["arguments"] + line["temporaries"]) / 2**30
        traffic = sent(line["collectives"], line["devices"]) / 1e6
        share = " to ".join(f"{100 * x:.3g}" for x in p["shares"])
        share += "" if p["measured"] else ", assumed"
        step = " to ".join(f"{x:,.0f}" if x >= 100 else f"{x:.3g}" for x in p["step_ms"])
        cores = ", ".join(f"{p['clips_s'] * s:,.1f}" for s in CPU_S.values())
        hours = f"{p['low']:,.1f} to {p['high']:,.1f}"
        if runs := RUNS.get(Path(name.partition(":")[0]).stem):
            hours += f"; {runs} runs: {runs * p['low']:,.0f} to {runs * p['high']:,.0f}"
        out.append(
            f"{head}| {line['plain'] / 1e9:,.0f} | {memory:.1f} | {traffic:,.0f} | {share} "
            f"| {step} | {hours} | {cores} |"
        )
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--add", help="lines of compile.py that are counted and kept")
    args = parser.parse_args()
    if args.add:
        for line in map(json.loads, Path(args.add).read_text().splitlines()):
            line["plain"] = plain_flops(line["config"])
            with LINES.open("a") as file:
                file.write(json.dumps(line) + "\n")
    print(table(map(json.loads, LINES.read_text().splitlines())))


if __name__ == "__main__":
    main()

"""Conversion of a checkpoint: seconds and peak memory of `asjax port`, as ratios to the file.

    python benchmarks/port.py [--families passt ast cnn] [--rounds 2]

`tests/torch_writer.py` writes random weights of each family's largest published size in the format
of torch.save. A separate process converts the file: once with family and variant given, once with
both found from the file. Peak memory is that of the whole process, Python and jax included. The
last column is the memory of a process that only imports jax and the model. The aim is 86 M
parameters in under 10 s and under 3 times the file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

VARIANTS = {
    "passt": "passt_s",
    "ast": "base384",
    "cnn": "cnn14",
    "convnext": "tiny",
    **{name: f"{name}_base" for name in ("atst_frame", "beats", "fpasst", "m2d", "asit")},
}
# VmHWM counts only this program. ru_maxrss would include the process that it was forked from.
_PEAK = """
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        print("peak", line.split()[1])
"""
RUN = "import sys; from asjax.__main__ import main; assert main(sys.argv[1:]) == 0" + _PEAK
IDLE = (
    "import sys; from asjax import models; from asjax.weights import convert, port\n"
    "models.abstract(models.build(*sys.argv[1:]))" + _PEAK
)


def checkpoint(family: str, path: Path) -> int:
    """Write random weights of a family's largest model; returns the file size in bytes."""
    import jax
    import torch_writer

    from asjax import models
    from asjax.weights import port

    rng = np.random.default_rng(0)
    shapes = models.abstract(models.build(family, VARIANTS[family]))
    drawn = jax.tree.map(lambda s: rng.standard_normal(s.shape, np.float32), shapes)
    torch_writer.save(port.to_torch(family, drawn), path)
    return path.stat().st_size


def measured(code: str, *args: str) -> tuple[float, float]:
    """(seconds, peak MB) of a process."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return time.perf_counter() - begin, int(done.stdout.rpartition("peak ")[2]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", default=["passt", "ast"], choices=VARIANTS)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    print("| checkpoint | MB | how | seconds | peak MB | ratio to the file | jax alone MB |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for family in args.families:
            file, variant = Path(folder) / f"{family}.pth", VARIANTS[family]
            size = checkpoint(family, file) / 2**20
            idle = measured(IDLE, family, variant)[1]
            given = [f"--family={family}", f"--variant={variant}"]
            for how, more in (("given", given), ("found", [])):
                if family == "cnn" and how == "found":
                    continue  # several variants have these shapes, so the variant must be given
                runs = []
                for _ in range(args.rounds):
                    to = f"{folder}/{family}"
                    command = ["port", str(file), f"--to={to}", "--overwrite", *more]
                    runs.append(measured(RUN, *command))
                seconds, peak = min(runs)
                print(
                    f"| {family} {variant} | {size:.0f} | {how} | {seconds:.1f} | {peak:.0f} | "
                    f"{peak / size:.2f} | {idle:.0f} |",
                    flush=True,
                )
            file.unlink()


if __name__ == "__main__":
    main()

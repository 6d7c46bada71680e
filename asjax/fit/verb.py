"""`asjax fit`: will a recipe's training step fit into a device, and what would make it fit?"""

from __future__ import annotations

import argparse
import math

from asjax.config import AsjaxError

_EXAMPLE = """example:
  asjax fit --config=configs/hlp_passt.py --topology v5e:2x4 --config.batch_size=16
  asjax fit --config=configs/ast.py:dtype=bfloat16 --memory 24 --config.batch_size=32

The step is compiled and never run; neither data nor weights are needed. Without --topology it is
compiled for the devices of this machine. On a CPU the compiler makes another program than for an
accelerator, so its numbers are only a hint there. Compiling a large model takes minutes, and the
search compiles several times. Teachers that a student reads are not counted.

exit codes: 0 the batch fits; 1 it does not; 2 an error."""


def add_arguments(parser):
    parser.epilog = _EXAMPLE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--config", required=True, help="a recipe with its arguments, as for asjax train")
    add("--topology", help="other devices: v5e:4x4, v5p:2x2x1, h100:8, cpu:8")
    add(
        "--memory", type=float, metavar="GIB", help="memory of one device (default: as it is known)"
    )
    add("--quick", action="store_true", help="only this batch: no largest batch, no remedies")
    parser.add_argument_group(
        "config fields", "options such as --config.batch_size=64 override any field of the config"
    )


def main(args) -> int:
    from asjax.fit import topology

    if args.memory is not None and not 0 < args.memory < 1e6:
        raise AsjaxError(f"--memory must be GiB above 0, got {args.memory:g}")
    if args.topology is not None:
        devices = topology.devices(args.topology)
    else:
        import jax

        from asjax import devices as own

        own.setup()
        devices = jax.devices()
    known = topology.memory(devices[0])
    limit = int(args.memory * topology.GIB) if args.memory else known
    return Fit(args.config, args.overrides, devices, limit, args.topology).report(args.quick)


class Fit:
    """A recipe, devices and a limit; `report` prints and returns the exit code."""

    def __init__(self, recipe, overrides, devices, limit, topology):
        self.recipe, self.overrides, self.topology = recipe, dict(overrides), topology
        self.devices, self.limit = devices, limit

    def config(self, fields=None, batch: int = 0):
        from asjax import build

        more = {"batch_size": str(batch)} if batch else {}
        return build.load(self.recipe, {**self.overrides, **(fields or {}), **more})

    def measure(self, fields=None, batch: int = 0):
        """Memory of the step with other fields or another batch; one line says what came out."""
        import time

        from asjax import build, sharding, step
        from asjax.fit import program

        cfg = self.config(fields, batch)
        accumulate = build.read(cfg, "optim.accumulate_steps")
        rows = (cfg.batch_size // accumulate,)
        mesh = sharding.make_mesh(cfg.mesh, batch_sizes=rows, devices=self.devices)
        sharding.local_rows(mesh, cfg.batch_size, "batch_size")
        step.check_parts(cfg.batch_size, accumulate, mesh.size)
        parts = mesh.size * accumulate
        self.mesh_size, self.unit = mesh.size, parts * math.gcd(8, cfg.batch_size // parts)
        begin = time.monotonic()
        found = program.measure(cfg, mesh)
        shown = " ".join(f"--config.{k}={v}" for k, v in (fields or {}).items())
        seconds = time.monotonic() - begin
        print(
            f"  batch {cfg.batch_size:<6}{_gib(found):>12}  {seconds:4.0f} s  {shown}", flush=True
        )
        return cfg, found

    def report(self, quick: bool) -> int:
        self.config()  # a wrong config is told before anything else
        kind = getattr(self.devices[0], "device_kind", self.devices[0].platform)
        where = f"{len(self.devices)} x {kind}" + (f" ({self.topology})" if self.topology else "")
        has = f", {self.limit / 2**30:.1f} GiB each" if self.limit else ""
        print(f"{self.recipe} on {where}{has}\ncompiling (memory of one device):")
        cfg, found = self.measure()
        print(_table(found, self.limit))
        if self.limit is None:
            print("memory of the device: not known; give --memory GIB to ask what fits")
            return 0
        good = found.fits(self.limit)
        if not quick:
            self._largest(cfg, found)
            if not good:
                self._remedy(cfg)
        return 0 if good else 1

    def _largest(self, cfg, found):
        from asjax.fit import search

        def total(batch):
            memory = self.measure(batch=batch)[1]
            return None if memory.temporaries is None else memory.total

        known = {cfg.batch_size: found.total or self.limit + 1}
        most = search.largest(total, self.limit, unit=self.unit, known=known)
        text = f"{most} (to within {search.CLOSE:.0%})" if most else "none"
        print(f"largest batch that fits: {text}")

    def _remedy(self, cfg):
        from asjax.fit import search

        batch, n = cfg.batch_size, self.mesh_size
        for fields, cost in search.remedies(lambda f: self.config(f), batch, n):
            if self.measure(fields)[1].fits(self.limit):
                options = " ".join(f"--config.{k}={v}" for k, v in fields.items())
                print(f"cheapest way to fit batch {batch}: {options} ({cost})")
                return
        print(f"nothing here makes batch {batch} fit; take a smaller batch or more devices")


def _gib(memory) -> str:
    if memory.temporaries is None:
        return f">{memory.refused / 2**30:.2f} GiB" if memory.refused else "refused"
    return f"{memory.total / 2**30:.2f} GiB"


def _table(memory, limit) -> str:
    rows = list(memory.parts.items())
    if memory.temporaries is None:
        rows.append(("refused by the compiler", memory.refused))
    else:
        rows += [("activations and workspace", memory.temporaries), ("results", memory.outputs)]
        rows.append(("total", memory.total))
    lines = [f"  {name:<26}{size / 2**20:>12,.1f} MiB" for name, size in rows]
    if limit is not None:
        share = f" ({memory.total / limit:.0%} of the memory)" if memory.total else ""
        lines.append(f"  {'fits' if memory.fits(limit) else 'DOES NOT FIT'}{share}")
    return "\n".join(lines)

"""Step times of the models in jax and in PyTorch, in turn in one run on the CPU.

    python benchmarks/train_step.py [--batch 8] [--rounds 5] [--threads 2] [--models cnn6,femto]

torch_models.py and torch_detectors.py have the PyTorch models.

Each side is a separate process. They take turns, one step at a time, so that other load on the
machine affects both. jax runs one virtual device per thread, and the batch is sharded over the mesh
axis "data". "Forward" is evaluation mode. A training step is forward in training mode, BCE,
backward and Adam. The input has the published size (10 s). PaSST with patchout trains on 474 of its
1190 tokens. Prints a Markdown table of medians (ms) and the ratio jax / torch (below 1: jax is
faster).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from asjax import devices

CLASSES = 527
PATCHOUT = dict(s_patchout_t=40, s_patchout_f=4)
# name -> family, variant, fields, frames, bins
MODELS = {
    "cnn6": ("cnn", "cnn6", {}, 1001, 64),
    "cnn14": ("cnn", "cnn14", {}, 1001, 64),
    "femto": ("convnext", "femto", {}, 1001, 224),
    "passt_s": ("passt", "passt_s", dict(s_patchout_t=0, s_patchout_f=0), 998, 128),
    "passt_s_patchout": ("passt", "passt_s", PATCHOUT, 998, 128),
    "ast": ("ast", "base384", {}, 1024, 128),
    "transformer": ("transformer", "transformer", {}, 1024, 128),
    "cnn_transformer": ("talnet", "cnn_transformer", {}, 400, 64),
    "conformer": ("conformer", "conformer", {}, 400, 64),
    "resnet50": ("resnet_att", "resnet50", {}, 1024, 128),
    "crnn": ("talnet", "crnn", {}, 400, 64),
}
# event detectors, with two linear heads of 447 classes; the loss is of frames and of clips
DETECTORS = {
    name: (family, variant, dict(num_classes=447), frames, bins)
    for name, family, variant, frames, bins in (
        ("atst_frame", "atst_frame", "atst_frame_base", 1001, 64),
        ("beats", "beats", "beats_base", 998, 128),
        ("fpasst", "fpasst", "fpasst_base", 1000, 128),
        ("m2d", "m2d", "m2d_base", 1001, 80),
        ("asit", "asit", "asit_base", 998, 128),
        ("frame_mn06", "frame_mn", "frame_mn06", 1000, 128),
        ("frame_mn10", "frame_mn", "frame_mn10", 1000, 128),
    )
}
MODELS |= DETECTORS
# models without feature maps
TOKENS = ("passt_s", "passt_s_patchout", "ast", "transformer", "conformer", "atst_frame", "beats",
          "m2d", "asit")  # fmt: skip


def inputs(name: str, batch: int):
    """(feats [B, T, F] float32, targets [B, C] float32), the same for both sides.

    A detector has targets of frames, [B, 250, C].
    """
    import numpy as np

    rng = np.random.default_rng(0)
    *_, fields, frames, bins = MODELS[name]
    feats = rng.normal(0, 1, (batch, frames, bins)).astype(np.float32)
    shape = (batch, 250, fields["num_classes"]) if name in DETECTORS else (batch, CLASSES)
    return feats, (rng.random(shape) < 0.005).astype(np.float32)


# ------------------------------------------------------------------------------------- jax side


def jax_steps(name: str, batch: int, threads: int):
    """{"forward": f, "train": f}; f() runs one step and waits for its end."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    import numpy as np
    import optax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from asjax import models

    devices.setup(cpu_devices=threads)  # as `asjax train` does
    family, variant, fields, *_ = MODELS[name]
    module = models.build(family, variant=variant, **fields)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    rows = NamedSharding(mesh, PartitionSpec("data"))
    feats, targets = (jax.device_put(x, rows) for x in inputs(name, batch))
    init = jax.jit(module.init, out_shardings=everywhere)
    variables = init(jax.random.key(0), feats[:1])
    tx = optax.adam(1e-3)

    @jax.jit
    def forward(variables, feats):
        return module.apply(variables, feats, train=False)["logits"]

    def step(state, feats, targets):
        variables, opt, rng = state
        rng, dropout = jax.random.split(rng)

        def loss(params):
            out, stats = module.apply(
                {**variables, "params": params},
                feats,
                train=True,
                rngs={"dropout": dropout},
                mutable=["batch_stats"] if "batch_stats" in variables else [],
            )
            bce = lambda x, y: optax.sigmoid_binary_cross_entropy(x, y).mean()  # noqa: E731
            if name in DETECTORS:
                return bce(out["logits"], targets.max(1)) + bce(out["frame_logits"], targets), stats
            return bce(out["logits"], targets), stats

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, opt = tx.update(grads, opt, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return ({"params": params, **stats}, opt, rng), value

    step = jax.jit(step, donate_argnums=0, out_shardings=(everywhere, everywhere))
    # The training state is donated, so it needs buffers of its own.
    mine = jax.tree.map(lambda x: x.copy(), variables)
    holder = [jax.device_put((mine, tx.init(mine["params"]), jax.random.key(1)), everywhere)]

    def train():
        holder[0], value = step(holder[0], feats, targets)
        value.block_until_ready()

    return {"forward": lambda: forward(variables, feats).block_until_ready(), "train": train}


# ----------------------------------------------------------------------------------- torch side


def torch_steps(name: str, batch: int, threads: int, channels_last: bool):
    """The same as `jax_steps` in PyTorch."""
    try:
        import torch
    except ImportError:
        raise SystemExit("this comparison needs PyTorch: pip install torch") from None

    torch.set_num_threads(threads)
    import torch_detectors
    import torch_models

    module = {**torch_models.NETS, **torch_detectors.NETS}[name]()
    if channels_last:
        module = module.to(memory_format=torch.channels_last)
    feats, targets = map(torch.from_numpy, inputs(name, batch))
    adam = torch.optim.Adam(module.parameters(), 1e-3)
    bce = torch.nn.BCEWithLogitsLoss()

    def forward():
        module.eval()
        with torch.inference_mode():
            module(feats)

    def train():
        module.train()
        adam.zero_grad(set_to_none=True)
        if name in DETECTORS:
            logits, frame_logits = module(feats)
            loss = bce(logits, targets.amax(1)) + bce(frame_logits, targets)
        else:
            loss = bce(module(feats), targets)
        loss.backward()
        adam.step()

    return {"forward": forward, "train": train}


# --------------------------------------------------------------------------------- measurement


def serve(side: str, name: str, batch: int, threads: int, clock=time.perf_counter):
    """Child process: run the step named on each input line and print its milliseconds."""
    if side == "jax":
        steps = jax_steps(name, batch, threads)
    else:
        steps = torch_steps(name, batch, threads, side == "torch channels_last")
    for line in sys.stdin:
        start = clock()
        steps[line.strip()]()
        print(f"{1e3 * (clock() - start):.3f}", flush=True)


def race(name: str, sides: list[str], batch: int, rounds: int, threads: int, more=()) -> dict:
    """{(side, phase): median ms}; the sides take turns after one unmeasured step each."""
    command = [sys.executable, str(Path(__file__).resolve()), "--serve"]
    options = ["--batch", str(batch), "--threads", str(threads), "--models", name, *more]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    children = {s: subprocess.Popen([*command, s, *options], **pipes) for s in sides}
    times: dict = {}
    try:
        for phase in ("forward", "train"):
            for turn in range(-1, rounds):
                for side, child in children.items():
                    child.stdin.write(f"{phase}\n")
                    child.stdin.flush()
                    line = child.stdout.readline()
                    if not line:
                        raise SystemExit(f"the {side} process of {name} ended early; see above")
                    if turn >= 0:
                        times.setdefault((side, phase), []).append(float(line))
    finally:
        for child in children.values():
            child.stdin.close()
            child.wait()
    return {key: statistics.median(values) for key, values in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", default="cnn6,femto")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="CPU time instead; with --threads 1, for busy machines",
    )
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        clock = time.process_time if args.cpu_time else time.perf_counter
        return serve(args.serve, args.models, args.batch, args.threads, clock)
    print(f"batch {args.batch}, {args.threads} threads, median of {args.rounds}\n")
    print("| model | phase | jax ms | torch ms | torch channels_last ms | ratio | ratio to best |")
    print("|---|---|---|---|---|---|---|")
    for name in args.models.split(","):
        sides = ["jax", "torch", *["torch channels_last"] * (name not in TOKENS)]
        more = ["--cpu-time"] * args.cpu_time
        found = race(name, sides, args.batch, args.rounds, args.threads, more)
        for phase in ("forward", "train"):
            ours, torch, *last = times = [found[side, phase] for side in sides]
            print(
                f"| {name} | {phase} | {ours:.0f} | {torch:.0f} | "
                f"{f'{last[0]:.0f}' if last else '-'} | "
                f"{ours / torch:.2f} | {ours / min(times[1:]):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

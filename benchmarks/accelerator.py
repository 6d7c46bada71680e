"""Training speed and memory on an accelerator: bf16 clips/s, TFLOP/s, share of the chip's peak.

    python benchmarks/accelerator.py [--models passt_s_patchout,ast] [--peak TFLOPS] [--dtype D]
    python benchmarks/accelerator.py --check    # is it as exact as the CPU; forms of attention

Each model runs with XLA and cuDNN attention, with and without remat. The batch size doubles until
the memory is full. A step is forward, BCE, backward and Adam on features on the device. FLOPs are
counted
from the shapes: three times the matrix products and convolutions of the forward jaxpr. So the count
includes custom kernels and does not include recomputation by remat. The peak is known for a few
chips; give --peak for others. Prints Markdown; the row of a failed setting shows the error.
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from train_step import CLASSES, MODELS

from asjax import frontends, models
from asjax.nn import attention
from asjax.nn.flops import count

# Dense bf16 TFLOP/s from the data sheets.
PEAKS = {"H200": 989, "H100": 989, "A100": 312, "V100": 125, "TPU v4": 275, "TPU v5": 459}

FRONTENDS = (
    "panns_logmel64", "kaldi_fbank128", "passt_mel128", "atst_frame_logmel64", "convnext_logmel224",
)  # fmt: skip
NETWORKS = (("cnn", "cnn6"), ("passt", "passt_s"), ("convnext", "femto"))


def measure(name, batch, dtype, rounds, **fields) -> dict:
    """clips/s, FLOP/s and peak bytes of one setting."""
    family, variant, given, *shape = MODELS[name]
    build = lambda **more: models.build(family, variant=variant, dtype=dtype, **given, **more)  # noqa: E731
    module, plain = build(**fields), build(attention="xla", **_loop(fields))
    rng = np.random.default_rng(0)
    feats = jnp.asarray(rng.normal(size=(batch, *shape)), jnp.float32)
    target = jnp.asarray(rng.random((batch, CLASSES)) < 0.005, jnp.float32)
    variables = jax.jit(module.init)(jax.random.key(0), feats[:1])
    tx = optax.adam(1e-4)
    rngs = {"dropout": jax.random.key(1)}
    forward = lambda v: plain.apply(v, feats, train=True, rngs=rngs, mutable=[])[0]  # noqa: E731
    flops = 3 * count(forward, variables)

    def step(state, key):
        params, opt = state

        def loss(params):
            out = module.apply({"params": params}, feats, train=True, rngs={"dropout": key})
            return optax.sigmoid_binary_cross_entropy(out["logits"], target).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt = tx.update(grads, opt, params)
        return (optax.apply_updates(params, updates), opt), value

    run = jax.jit(step, donate_argnums=0)
    state = (variables["params"], tx.init(variables["params"]))
    seconds = []
    for i in range(rounds + 2):
        begin = time.perf_counter()
        state, value = run(state, jax.random.key(i))
        value.block_until_ready()
        seconds.append(time.perf_counter() - begin)
    stats = jax.local_devices()[0].memory_stats() or {}
    return dict(
        clips=batch / statistics.median(seconds[2:]),
        flops=flops / statistics.median(seconds[2:]),
        memory=stats.get("peak_bytes_in_use", 0),
    )


def check() -> None:
    """Print differences between the accelerator and the CPU, and cost of the forms of attention."""
    jax.config.update("jax_default_matmul_precision", "highest")
    rng = np.random.default_rng(0)
    for name in FRONTENDS:
        frontend = frontends.build(name)
        wave = rng.normal(size=(4, 10 * frontend.sample_rate)).astype(np.float32) * 0.1
        print(f"{name}: {_apart(frontend, wave):.1e}", flush=True)
    for family, variant in NETWORKS:
        module = models.build(family, variant)
        feats = rng.normal(size=(2, *module.example_shape)).astype(np.float32)
        variables = jax.jit(module.init)(jax.random.key(0), feats[:1])
        apart = _apart(lambda v, x: module.apply(v, x)["logits"], variables, feats)  # noqa: B023
        print(f"{family} {variant}: {apart:.1e}", flush=True)
    inputs = [jnp.asarray(rng.normal(size=(4, 1214, 12, 64)), jnp.bfloat16) for _ in range(3)]
    exact = None
    for form in ("xla", "heads", "cudnn"):
        loss = lambda *x: jnp.sum(  # noqa: E731
            attention.attend(*x, backend=form).astype(jnp.float32) ** 2  # noqa: B023
        )
        run = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*inputs).compile()
        found = [np.asarray(x, np.float32) for x in run(*inputs)]
        exact = exact or found
        begin = time.perf_counter()
        jax.block_until_ready([run(*inputs) for _ in range(10)])
        milliseconds = (time.perf_counter() - begin) * 100
        memory = run.memory_analysis().temp_size_in_bytes / 2**20
        apart = max(map(_relative, found, exact))
        print(f"attention {form}: {milliseconds:.2f} ms, {memory:.0f} MiB, {apart:.1e}", flush=True)


def _apart(function, *inputs) -> float:
    there = jax.jit(function)(*inputs)
    here = jax.jit(function)(*jax.device_put(inputs, jax.devices("cpu")[0]))
    return _relative(there, here)


def _relative(a, b) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _loop(fields) -> dict:
    return {k: v for k, v in fields.items() if k not in ("attention", "remat")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="passt_s_patchout,passt_s,ast")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--attention", default="xla,cudnn")
    parser.add_argument("--batch", type=int, default=16, help="first batch")
    parser.add_argument("--most", type=int, default=1024, help="last batch")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--peak", type=float, default=0.0, help="TFLOP/s of the chip")
    parser.add_argument("--check", action="store_true", help="compare with the CPU instead")
    args = parser.parse_args()
    if args.check:
        return check()
    chip = jax.devices()[0].device_kind
    peak = args.peak or next((v for k, v in PEAKS.items() if k in chip), 0.0)
    print(f"{chip}, {args.dtype}, peak {peak or 'not known'} TFLOP/s, one device\n")
    print("| model | attention | remat | batch | clips/s | TFLOP/s | of peak | MiB so far |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.models.split(","):
        for form in args.attention.split(","):
            for remat in (False, True):
                batch = args.batch
                while batch <= args.most:
                    head = f"| {name} | {form} | {remat} | {batch} | "
                    fields = dict(attention=form, remat=remat)
                    try:
                        r = measure(name, batch, args.dtype, args.rounds, **fields)
                    except Exception as error:  # out of memory, or the kernel does not exist
                        print(f"{head}{str(error).splitlines()[0][:80]} | | | |", flush=True)
                        break
                    share = f"{r['flops'] / peak / 1e12:.1%}" if peak else "-"
                    print(
                        f"{head}{r['clips']:.1f} | {r['flops'] / 1e12:.2f} | {share} | "
                        f"{r['memory'] / 2**20:,.0f} |",
                        flush=True,
                    )
                    batch *= 2


if __name__ == "__main__":
    main()

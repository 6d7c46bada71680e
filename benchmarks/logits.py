"""Time of stored logits: the share of writing in an export, and clips per second when reading.

python benchmarks/logits.py --model atst_frame --clips 48
"""

import argparse
import tempfile
import time
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
from scipy import sparse

from asjax import build, labels
from asjax.evaluation import data_specs
from asjax.store import logits, logits_writer, model_dir
from asjax.teachers import members, parts, run

FRAMES, RATE = 250, 25.0
LABELS = labels.get("audioset_strong447")


def model(folder, name):
    """A detector with random weights of a published size."""
    import jax

    variant, frontend = next(iter(import_module(f"asjax.models.{name}").FRONTENDS.items()))
    cfg = {
        "labels": {"name": LABELS.name, "hlp": False, "strict": False},
        "data": {"sample_rate": 16_000, "clip_s": 10.0, "workers": 0, "threads": 2},
        "frontend": frontend,
        "model": {"name": name, "variant": variant, "frames": FRAMES},
        "eval": {"batch_size": 8},
    }
    made = build.make("model", cfg["model"], num_classes=len(LABELS))
    feats = build.make("frontend", cfg["frontend"])(np.zeros((1, 160_000), np.float32))
    variables = jax.jit(partial(made.init, train=False))(jax.random.key(0), feats)
    model_dir.save_model(folder, config=cfg, label_set=LABELS, variables=variables, record={})


def export(folder, out, clips):
    spec, _ = data_specs.data_spec(f"soundscapes(splits=['fold1'], clips={clips})")
    source = build.source(spec, labels.get("esc10"))
    models = members.Members([folder], frames=True)
    job = run.Job(models, source, labelled=False, top=None, dtype="float16")
    with parts.opened(out, job.settings(), job.form) as store:
        store.begin(False)
        start = time.monotonic()
        job.run(store)
        seconds = time.monotonic() - start
        store.finish(job.about(spec))
    print(f"| export | {clips} clips | {1000 * seconds / clips:.0f} ms per clip | "
          f"writing {store.write_s:.2f} s of {seconds:.1f} s ({store.write_s / seconds:.1%}), "
          f"{store.wait_s:.2f} s not overlapped |")  # fmt: skip


class Silent:
    """Short silent clips in memory, so that the pipeline does little but read logits."""

    name, hash = "silent", "0" * 64

    def __init__(self, count, classes):
        self.ids = [f"c{i}" for i in range(count)]
        self.labels = sparse.csr_matrix((count, classes), dtype=np.int8)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        wave = np.zeros(160, np.float32)
        return {"id": self.ids[i], "labels": np.zeros(0, np.int64), "wave": wave}


def piped(path, label_set, count, teacher=True, batch=64):
    """CPU seconds per clip of the pipeline, with or without the op teacher, in all its threads;
    the best of several epochs."""
    op = f" | teacher(path={str(path)!r}, check=False)" if teacher else ""
    data = build.pipeline(
        Silent(count, len(label_set)), num_classes=len(label_set), batch_size=batch,
        sample_rate=16_000, clip_s=10.0, label_set=label_set, threads=1, draw="shuffle",
        ops=f"multihot{op}",
    )  # fmt: skip
    steps = count // batch
    with data, data.iterate() as batches:
        rounds = []
        for _ in range(6):  # in the first one the files come into the memory of the system
            start = time.process_time()
            for _ in range(steps):
                next(batches)
            rounds.append(time.process_time() - start)
        return min(rounds) / (steps * batch)


def reading(folder, count=2000):
    """Random clips from the cache of the system, one core: the reader alone, and the pipeline."""
    rng = np.random.default_rng(0)
    for what, form in (
        ("top 20 of 527", logits_writer.Form(labels.get("audioset527"), clip=True, top=20)),
        ("447 x 250 float16", logits_writer.Form(LABELS, frames=FRAMES, frame_rate=RATE)),
    ):
        width = len(form.label_set)
        clip = rng.normal(size=(count, width)) if form.clip else None
        frames = np.zeros((count, FRAMES, width), np.float16) if form.frames else None
        rows = [logits_writer.Row(f"c{i}", 10.0) for i in range(count)]
        path = folder / what.replace(" ", "-")
        logits_writer.save(path, form, rows, clip=clip, frames=frames)
        stored = logits.open(path)
        order = rng.permutation(count)
        for _ in range(2):
            start = time.process_time()
            for i in order:
                stored[f"c{i}"]
            seconds = time.process_time() - start
        print(f"| reading | {what} | {count / seconds:,.0f} clips per CPU second | |")
        seconds = piped(path, form.label_set, count)
        bare = piped(path, form.label_set, count, teacher=False)
        print(f"| pipeline | {what} | {1 / seconds:,.0f} clips per CPU second "
              f"({1 / bare:,.0f} without the teacher) | |")  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="atst_frame")
    parser.add_argument("--clips", type=int, default=48)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        reading(folder)
        model(folder / "model", args.model)
        export(folder / "model", folder / "out", args.clips)


if __name__ == "__main__":
    main()

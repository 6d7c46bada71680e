"""Small untrained models with and without frames, and recordings with events, for the tests."""

from functools import partial

import numpy as np
import soundfile

from asjax import build, labels
from asjax.store import model_dir

RATE, CLIP_S, FRAMES = 16_000, 0.5, 10
CLASSES = labels.LabelSet("pets", ("/m/0bt9lr", "/m/01yrx", "/m/09d5_"), ("Dog", "Cat", "Owl"))


def make(folder, *, key=0, rate=RATE, classes=CLASSES, frames=FRAMES, batch=4, **cfg):
    """Write an untrained model; returns wave [B, S] -> outputs."""
    import jax

    cfg = {
        "labels": {"name": classes.name, "hlp": False, "strict": False},
        "data": {"sample_rate": rate, "clip_s": CLIP_S, "workers": 0, "threads": 1},
        "frontend": {"name": "panns_logmel", "sample_rate": rate, "n_mels": 16,
                     "hop": rate // 50, "n_fft": 512},
        "model": {"name": "cnn", "variant": "mini", "n_mels": 16},
        "eval": {"batch_size": batch},
        **cfg,
    }  # fmt: skip
    if frames:
        cfg["model"]["frames"] = frames
    frontend = build.make("frontend", cfg["frontend"])
    model = build.make("model", cfg["model"], num_classes=len(classes))
    wave = np.zeros((1, int(rate * CLIP_S)), np.float32)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(key), frontend(wave))
    model_dir.save_model(folder, config=cfg, label_set=classes, variables=variables, record={})
    return jax.jit(lambda w: model.apply(variables, frontend(w), train=False))


def write_clips(folder, count=11, seconds=CLIP_S, rate=RATE):
    """Recordings of noise, and a list of events `events.tsv` and of labels `clips.csv`."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    events, names = ["filename\tonset\toffset\tevent_label"], ["filename,labels"]
    for i in range(count):
        length = seconds if i % 3 else 0.8 * seconds
        wave = rng.normal(0, 0.1, round(length * rate)).astype(np.float32)
        soundfile.write(folder / f"{i:02d}.wav", wave, rate)
        name = CLASSES.names[i % 3]
        events.append(f"{i:02d}.wav\t{0.02 * (i % 5)}\t{0.3 + 0.01 * i}\t{name}")
        names.append(f"{i:02d}.wav,{name}")
    (folder / "events.tsv").write_text("\n".join(events) + "\n")
    (folder / "clips.csv").write_text("\n".join(names) + "\n")
    return folder


def wave_of(path):
    """A recording as the models hear it: padded to the clip."""
    wave, _ = soundfile.read(path, dtype="float32")
    return np.pad(wave, (0, round(RATE * CLIP_S) - len(wave)))

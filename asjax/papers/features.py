"""`asjax stats --features`: mean and standard deviation of a config's features in training.

AST, PSLA and AudioTagging Done Right compute the mean and the (n - 1) deviation of each batch of
the training set and average both over the batches. Mixup and masks are on, and padded frames count.
This is `recipe`. `exact` has the mean and deviation of all values at once.

Batches, random choices and the traced function (`objectives.tagging`) are the same as in training.
Only the model is replaced by an observer. So normalised features are measured, and masks have the
fill value of the config. Mean and deviation are converted back by x * divide * std + mean, which is
exact because normalisation is affine. As in training, a clip shorter than `clip_s` is padded with
silence (the authors pad its features with raw zeros). Augmentations after the model's input
normalisation (`augment.normed`) happen inside the model and are not measured.
"""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from asjax import build, config, objectives, sharding
from asjax.config import AsjaxError
from asjax.data import prefetch
from asjax.store import files

# ---------------------------------------------------------------------------------- computing


class Observer(nn.Module):
    """Replaces the model; `moments` has mean, sum of squared deviations and size of every frame.

    A frame is short, so float32 is precise enough. The host combines frames in float64.
    """

    num_classes: int

    @nn.compact
    def __call__(self, feats, *, train=False, augment=None):
        feats = feats.astype(jnp.float32)  # [B, T, F]
        mean = feats.mean(-1)  # [B, T]
        squares = jnp.square(feats - mean[..., None]).sum(-1)
        for name, value in (("mean", mean), ("squares", squares), ("size", feats.shape[-1])):
            self.variable("moments", name, lambda: None).value = jnp.asarray(value)
        return {"logits": jnp.zeros((feats.shape[0], self.num_classes))}


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of values; `a + b` merges two (Chan et al.)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of_parts(cls, size: int, mean, squares) -> Moments:
        """Merge parts of `size` values each, in float64."""
        mean, squares = np.asarray(mean, np.float64), np.asarray(squares, np.float64)
        centre = mean.mean()
        apart = size * np.square(mean - centre).sum()
        return cls(size * mean.size, float(centre), float(squares.sum() + apart))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        if not count:
            return self
        step = other.mean - self.mean
        apart = step**2 * self.count * other.count / count
        mean = self.mean + step * other.count / count
        return Moments(count, mean, self.squares + other.squares + apart)

    @property
    def std(self) -> float:
        """Sample standard deviation (divisor count - 1)."""
        return math.sqrt(self.squares / max(1, self.count - 1))


def measure(cfg, batches: int | None = None, progress: bool = True) -> dict:
    """Measure the features of a train config.

    Args:
      cfg: a config of `build.load`; its data.train, frontend and augment are used.
      batches: number of batches; default: an epoch, whose last batch ends with the epoch.

    Returns:
      `recipe` and `exact` (each with mean and std, in units of the frontend before normalisation),
      `normalised` (whether the frontend normalises), `overrides` (config field -> value to
      normalise with `recipe`; {} without normalisation), and a description of the measurement:
      batches, batch_size, clips, shape (frames, bins), replaced (clips that cannot be read), data,
      frontend, augment.

    Raises:
      AsjaxError: a fault in the config, `batches` below 1, features not finite or all equal.
    """
    if batches is not None and batches < 1:
        raise AsjaxError(f"--batches must be at least 1, got {batches}")
    label_set = build.label_set(cfg)
    source = build.source(cfg.data.train, label_set)
    stream = build.pipeline(
        source,
        **build.data_fields(cfg),
        num_classes=len(label_set),
        batch_size=cfg.batch_size,
        train=True,
        seed=cfg.seed,
    )
    frontend = build.make("frontend", cfg.frontend)
    objective = objectives.tagging(
        model=Observer(len(label_set)),
        frontend=frontend,
        augment={place: build.augment(text) for place, text in cfg.augment.items()},
    )
    clips = batches * cfg.batch_size if batches else stream.draws_per_epoch
    each, shape, replaced = _observe(cfg, stream, objective, clips, progress)
    whole = sum(each, Moments())
    scale, shift = _affine(frontend)

    def raw(mean, std):
        return {"mean": mean * scale + shift, "std": std * scale}

    recipe = raw(float(np.mean([m.mean for m in each])), float(np.mean([m.std for m in each])))
    if recipe["std"] < 1e-6 * max(1.0, abs(recipe["mean"])):  # only float32 rounding errors
        raise AsjaxError(f"all features are {recipe['mean']:g}; there is nothing to normalise")
    return {
        "recipe": recipe,
        "exact": raw(whole.mean, whole.std),
        "normalised": hasattr(frontend, "mean"),
        "overrides": _overrides(cfg, frontend, recipe),
        "batches": len(each),
        "batch_size": cfg.batch_size,
        "clips": clips,
        "shape": shape,
        "replaced": replaced,
        "data": {"name": source.name, "clips": len(source), "hash": source.hash},
        "frontend": config.to_plain(cfg.frontend),
        "augment": {place: cfg.augment.get(place, "") for place in ("wave", "feats")},
    }


def picture(cfg, path) -> None:
    """Write a PNG with the model's input for the first clip of data.train, and the filter bank.

    Raises:
      AsjaxError: a fault in the config.
    """
    from asjax.papers import lists_plots

    label_set = build.label_set(cfg)
    stream = build.pipeline(
        build.source(cfg.data.train, label_set),
        **{**build.data_fields(cfg), "workers": 0},
        num_classes=len(label_set),
        batch_size=1,
        train=False,
    )
    with stream.iterate() as batches:
        batch = next(batches)
    wave = np.asarray(batch["wave"])
    if wave.dtype.kind == "i":
        wave = wave.astype(np.float32) / 32768
    frontend = build.make("frontend", cfg.frontend)
    banks = (frontend, getattr(frontend, "logmel", None))  # Wavegram's frontend has two parts
    lists_plots.features(
        path,
        np.asarray(frontend(wave), np.float32)[0],
        title=f"{cfg.frontend.name}: {batch['id'][0]}",
        sample_rate=cfg.data.sample_rate,
        hop=next(bank.hop for bank in banks if hasattr(bank, "hop")),
        filters=next((bank.mel_filters for bank in banks if hasattr(bank, "mel_filters")), None),
    )


def _observe(cfg, stream, objective, clips: int, progress: bool):
    """Moments of every batch, (frames, bins), and the ids of unreadable clips."""
    from tqdm import tqdm

    rng = jax.random.split(jax.random.key(cfg.seed))[1]  # as in step.init_state
    mesh = sharding.make_mesh(cfg.mesh, batch_sizes=(cfg.batch_size,))

    @jax.jit
    def observe(batch, step):
        step_rng = jax.random.fold_in(rng, step)
        _, (_, seen) = objective({}, {"moments": {}}, batch, step_rng)
        return seen["moments"]

    each, replaced = [], set()
    total = -(-clips // cfg.batch_size)
    ahead = prefetch.prefetch(stream.iterate(), partial(sharding.place, mesh, owned=True))
    bar = tqdm(total=total, desc="features", unit="batch", disable=not progress)
    with ahead, bar:
        for step in range(total):
            batch, host = next(ahead)
            replaced.update(clip for clip, _ in host["bad"])
            seen = jax.device_get(observe(batch, step))
            # Mixup of neighbours halves a batch. So the last batch uses a share of its rows.
            share = min(1.0, (clips - step * cfg.batch_size) / cfg.batch_size)
            rows = math.ceil(share * len(seen["mean"]))
            size = int(seen["size"])
            each.append(Moments.of_parts(size, seen["mean"][:rows], seen["squares"][:rows]))
            if not math.isfinite(each[-1].squares):
                raise AsjaxError(f"batch {step + 1}: features are not finite; see the frontend")
            bar.update()
    return each, (seen["mean"].shape[1], size), sorted(replaced)


def _affine(frontend) -> tuple[float, float]:
    """(scale, shift): raw features are scale * normalised features + shift."""
    if not hasattr(frontend, "mean"):
        return 1.0, 0.0
    return getattr(frontend, "divide", 1.0) * frontend.std, frontend.mean


def _overrides(cfg, frontend, recipe: dict) -> dict:
    """Config fields that apply the measured constants.

    Values of the chain on features that are in normalised units, such as the fill of masks, are
    converted to the new units, so that they do not change before normalisation.
    """
    if not hasattr(frontend, "mean"):
        return {}
    mean, std = (float(f"{recipe[key]:.8g}") for key in ("mean", "std"))
    scale, shift = _affine(frontend)
    new_scale = scale / frontend.std * std
    ops, changed = config.chain(cfg.augment.get("feats", "")), False
    for _, fields in ops:
        if fields.get("fill"):  # a fill of 0 is always the mean
            fields["fill"] = float(f"{(fields['fill'] * scale + shift - mean) / new_scale:.7g}")
            changed = True
        if fields.get("domain", "linear") != "linear":  # mixup of energies
            fields["scale"] = float(f"{fields.get('scale', 1.0) * scale / new_scale:.7g}")
            changed = True
    overrides = {"frontend.mean": mean, "frontend.std": std}
    if changed:
        calls = (f"{n}({', '.join(f'{k}={v!r}' for k, v in kw.items())})" for n, kw in ops)
        overrides["augment.feats"] = " | ".join(calls)
    return overrides


# ------------------------------------------------------------------------------------ the verb


def report(found: dict) -> str:
    """The printed text."""
    lines = [
        f"{found['batches']:,} batches of {found['batch_size']}, {found['clips']:,} draws from "
        f"{found['data']['name']} ({found['data']['clips']:,} clips), features "
        f"{found['shape'][0]} x {found['shape'][1]}",
        *(f"augment.{place}: {spec}" for place, spec in found["augment"].items() if spec),
    ]
    if found["replaced"]:
        lines.append(f"replaced: {len(found['replaced'])} clips that cannot be read")
    what = "before normalisation" if found["normalised"] else "the frontend does not normalise"
    lines += ["", f"{what:<32}{'mean':>14}{'std':>14}"]
    for key, title in (("recipe", "average over batches (recipe)"), ("exact", "all values")):
        lines.append(f"{title:<32}{found[key]['mean']:>14.7g}{found[key]['std']:>14.7g}")
    lines += [""] * bool(found["overrides"])
    for field, value in found["overrides"].items():
        leaf = field.removeprefix("frontend.")
        if leaf != field and leaf not in found["frontend"]:  # not an existing field to override
            lines.append(f"in the config's frontend: {leaf}={value}")
        else:
            text = str(value).replace("'", '"')
            lines.append(f"--config.{field}={shlex.quote(text)}")
    return "\n".join(lines)


def main(args) -> int:
    """Run `asjax stats --features`; 0 when all is written."""
    if args.segments or not args.config:
        raise AsjaxError("--features needs --config=FILE (a train config) and takes no lists")
    out = args.out
    if out and out.is_dir():
        raise AsjaxError(f"--out {out} is a folder; with --features it is the JSON file to write")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
    cfg = build.load(args.config, args.overrides)
    from asjax import devices

    devices.setup()
    result = measure(cfg, args.batches)
    print(report(result))
    if out:
        result = {"config": args.config, "config_overrides": args.overrides, **result}
        files.write_atomic(out, json.dumps(result, indent=1) + "\n")
        picture(cfg, out.with_suffix(".png"))
        print(f"\nwritten to {out}; a clip and the filter bank: {out.with_suffix('.png')}")
    return 0

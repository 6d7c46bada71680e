"""`asjax stats --features`: mean and deviation of a config's features, as training sees them.

The recipe of AST, PSLA and AudioTagging Done Right: their constants are averages over the batches
of the training set of each batch's mean and (n - 1) deviation, with mixup and masks on and with
padded frames counted. Beside them stand the same of all values at once.

The batches, the random choices and the traced function (`objectives.tagging`) are those of
training; only the model is replaced, by one that looks. So normalised features are measured, masks
filled with what the config says, and mean and deviation are mapped back by x * divide * std + mean,
which is exact, as normalising is affine. As in training, a clip shorter than `clip_s` is silence to
its end (the authors pad the features of such a clip with raw zeros). What a config does after the
model's input normalisation (`augment.normed`) happens inside the model and is not measured.
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
    """In the model's place: `moments` has mean, sum of squared deviations and size of every frame.

    A frame is short, so float32 has them to its last digits; sums of many are the host's (float64).
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
    """Count, mean, sum of squared deviations of many values; `a + b` joins them (Chan et al.)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of_parts(cls, size: int, mean, squares) -> Moments:
        """Of equally long parts of `size` values each, in float64."""
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
        """Of a sample: divided by count - 1."""
        return math.sqrt(self.squares / max(1, self.count - 1))


def measure(cfg, batches: int | None = None, progress: bool = True) -> dict:
    """Measure the features of a train config.

    Args:
      cfg: as `build.load` gives it; its data.train, frontend and augment are used.
      batches: how many; default: an epoch, whose last batch is cut where the epoch ends.

    Returns:
      `recipe` and `exact` (each with mean and std, in units of the frontend before it normalises),
      `normalised` (whether it does), `overrides` (config field -> value to normalise with `recipe`;
      {} without normalisation), and what was measured: batches, batch_size, clips,
      shape (frames, bins), replaced (clips that cannot be read), data, frontend, augment.

    Raises:
      AsjaxError: what the config gets wrong, `batches` below 1, features not finite or all equal.
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
    if recipe["std"] < 1e-6 * max(1.0, abs(recipe["mean"])):  # float32's roundings
        raise AsjaxError(f"all features are {recipe['mean']:g}: there is nothing to normalise")
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
    """A PNG: the features of the first clip of data.train as the model gets them, and the filters.

    Raises:
      AsjaxError: what the config gets wrong.
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
    banks = (frontend, getattr(frontend, "logmel", None))  # Wavegram's is one of two
    lists_plots.features(
        path,
        np.asarray(frontend(wave), np.float32)[0],
        title=f"{cfg.frontend.name}: {batch['id'][0]}",
        sample_rate=cfg.data.sample_rate,
        hop=next(bank.hop for bank in banks if hasattr(bank, "hop")),
        filters=next((bank.mel_filters for bank in banks if hasattr(bank, "mel_filters")), None),
    )


def _observe(cfg, stream, objective, clips: int, progress: bool):
    """Moments of every batch, (frames, bins), and the ids of clips that cannot be read."""
    from tqdm import tqdm

    rng = jax.random.split(jax.random.key(cfg.seed))[1]  # that of step.init_state
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
            # Mixup of neighbours halves a batch, so the end of the epoch is a share of its rows.
            share = min(1.0, (clips - step * cfg.batch_size) / cfg.batch_size)
            rows = math.ceil(share * len(seen["mean"]))
            size = int(seen["size"])
            each.append(Moments.of_parts(size, seen["mean"][:rows], seen["squares"][:rows]))
            if not math.isfinite(each[-1].squares):
                raise AsjaxError(f"batch {step + 1}: features are not finite; see the frontend")
            bar.update()
    return each, (seen["mean"].shape[1], size), sorted(replaced)


def _affine(frontend) -> tuple[float, float]:
    """Normalised features -> raw ones: times the first, plus the second."""
    if not hasattr(frontend, "mean"):
        return 1.0, 0.0
    return getattr(frontend, "divide", 1.0) * frontend.std, frontend.mean


def _overrides(cfg, frontend, recipe: dict) -> dict:
    """Config fields that put the constants to use.

    What the chain on features says in normalised units, such as the fill of masks, is among them
    in the new units, so that it stays the same before normalisation.
    """
    if not hasattr(frontend, "mean"):
        return {}
    mean, std = (float(f"{recipe[key]:.8g}") for key in ("mean", "std"))
    scale, shift = _affine(frontend)
    new_scale = scale / frontend.std * std
    ops, changed = config.chain(cfg.augment.get("feats", "")), False
    for _, fields in ops:
        if fields.get("fill"):  # 0 is the mean, whatever it is
            fields["fill"] = float(f"{(fields['fill'] * scale + shift - mean) / new_scale:.7g}")
            changed = True
        if fields.get("domain", "linear") != "linear":  # mixup of energies
            fields["scale"] = float(f"{fields.get('scale', 1.0) * scale / new_scale:.7g}")
            changed = True
    found = {"frontend.mean": mean, "frontend.std": std}
    if changed:
        calls = (f"{n}({', '.join(f'{k}={v!r}' for k, v in kw.items())})" for n, kw in ops)
        found["augment.feats"] = " | ".join(calls)
    return found


# ------------------------------------------------------------------------------------ the verb


def report(found: dict) -> str:
    """What is printed."""
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
        if leaf != field and leaf not in found["frontend"]:  # only what is there can be overridden
            lines.append(f"in the config's frontend: {leaf}={value}")
        else:
            text = str(value).replace("'", '"')
            lines.append(f"--config.{field}={shlex.quote(text)}")
    return "\n".join(lines)


def main(args) -> int:
    """Run `asjax stats --features`; 0 when all is written."""
    if args.segments or not args.config:
        raise AsjaxError("--features goes with --config=FILE (a train config), not with lists")
    out = args.out
    if out and out.is_dir():
        raise AsjaxError(f"--out {out} is a folder; with --features it is the JSON file to write")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
    cfg = build.load(args.config, args.overrides)
    from asjax import devices

    devices.setup()
    found = measure(cfg, args.batches)
    print(report(found))
    if out:
        found = {"config": args.config, "config_overrides": args.overrides, **found}
        files.write_atomic(out, json.dumps(found, indent=1) + "\n")
        picture(cfg, out.with_suffix(".png"))
        print(f"\nwritten to {out}; a clip and the filter bank: {out.with_suffix('.png')}")
    return 0

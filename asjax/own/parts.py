"""The model, its features and its augmentation for your own clips."""

from __future__ import annotations

import inspect

from asjax import build, config, models
from asjax.config import AsjaxError

# parameters below -> (rate from scratch, rate of fine-tuning)
_RATES = ((1e6, (5e-3, 3e-3)), (20e6, (1e-3, 3e-4)), (float("inf"), (2e-4, 5e-5)))
FRAME_RATE = 25.0  # frames per second of a detector
MINI = "mini"  # the default: 0.4 M parameters, trains on a laptop


def model_and_frontend(name: str) -> tuple[dict, dict]:
    """`--model` -> (model spec, frontend spec), both with all that `build.make` needs.

    Args:
      name: "mini", a variant such as "cnn14", a family and a variant ("cnn/cnn14"), or a model of
        the user's own package, "my_package.my_file:model". That one gets the features of "mini".

    Raises:
      AsjaxError: no such variant, or one of several families.
    """
    mini = dict(name="panns_logmel", sample_rate=16_000, n_mels=64, n_fft=512, hop=512)
    if name == MINI:
        fields = dict(block_dropout=0.0, head_dropout=0.0)
        return dict(name="cnn", variant="mini", **fields), mini
    if ":" in name:
        return dict(name=name), mini
    family, _, variant = name.rpartition("/")
    places = [(f, v) for f in models.families() for v in models.family(f).VARIANTS]
    matches = [(f, v) for f, v in places if v == variant and family in ("", f)]
    if len(matches) > 1:
        several = ", ".join(f"{f}/{v}" for f, v in matches)
        raise AsjaxError(f"--model {name} is in several families; give one of {several}")
    if not matches:
        if name in models.families():
            known = ", ".join(models.family(name).VARIANTS)
            raise AsjaxError(f"--model {name} is a family; give one of its variants: {known}")
        raise config.unknown("--model", name, {v for _, v in places} | {MINI})
    family, variant = matches[0]
    return dict(name=family, variant=variant), dict(models.family(family).FRONTENDS[variant])


def detector(name: str, clip_s: float) -> tuple[dict, dict]:
    """As `model_and_frontend`, for events in time: 25 frames per second.

    "mini" is a small CRNN of 0.4 M parameters.

    Raises:
      AsjaxError: as `model_and_frontend`, or the family has no detector.
    """
    frames = max(1, int(clip_s * FRAME_RATE + 1e-6))
    if name == MINI:
        frontend = dict(name="panns_logmel", sample_rate=16_000, n_mels=64, n_fft=512, hop=320)
        return dict(name="talnet", variant="crnn_mini", width=256, frames=frames), frontend
    model, frontend = model_and_frontend(name)
    if not _detects(model["name"]):
        known = [f for f in models.families() if _detects(f)]
        raise AsjaxError(
            f"--model {name} gives no scores per frame, and the data have events in time; take a "
            f"variant of {', '.join(known)}"
        )
    return {**model, "frames": frames}, frontend


def frames_of(model: dict) -> int | None:
    """The frames of a detector's output; None for a model without frame scores."""
    if not _detects(model["name"]):
        return None
    return model.get("frames", build.fields("model", model["name"]).get("frames"))


def _detects(name: str) -> bool:
    """Whether a family has the wrapper of detectors. In some, `frames` is the input's length."""
    wanted = {"frames"} if ":" in name else {"frames", "sequence"}
    return wanted <= build.fields("model", name).keys()


def sample_rate(frontend: dict) -> int:
    """The rate of a frontend in Hz."""
    return int(build.make("frontend", frontend).sample_rate)


def learning_rate(model: dict, pretrained: bool = False) -> float:
    """A usual peak rate of AdamW by the size of the model: a small one takes a larger rate."""
    module = build.make("model", model, num_classes=2)
    size = models.parameters(module) if hasattr(module, "example_shape") else 0
    scratch, tuned = next(rates for most, rates in _RATES if size < most)
    return tuned if pretrained else scratch


def epochs(clips: int, pretrained: bool = False) -> float:
    """Passes over the data: 40,000 clips in all, 10 to 100 passes. Half if it is pretrained."""
    most, all_clips = (50, 20_000) if pretrained else (100, 40_000)
    return float(min(most, max(10, round(all_clips / clips))))


def masks(model: dict, frontend: dict, rate: int, clip_s: float) -> dict:
    """The augmentation of features: SpecAugment and mixup, where the model offers it.

    Two masks of at most a tenth of the frames, and two of a sixteenth of the bins, as in PANNs'
    recipe in proportion. After the model's input normalisation zero is the mean, so the masks go
    there if possible.
    """
    import jax
    import jax.numpy as jnp

    front = build.make("frontend", frontend)
    wave = jax.ShapeDtypeStruct((1, max(1, round(rate * clip_s))), jnp.float32)
    _, frames, bins = jax.eval_shape(front, wave).shape
    chain = (
        f"specaug(time_width={max(1, frames // 10)}, freq_width={max(1, bins // 16)}) | "
        "mixup(alpha=0.3, style='plain', block=8)"
    )
    module = build.make("model", model, num_classes=2)
    inside = "augment" in inspect.signature(type(module).__call__).parameters
    return {"feats": "", "normed": chain} if inside else {"feats": chain, "normed": ""}

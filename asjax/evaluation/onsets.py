"""Onset F1 as in HEAR (Turian et al. 2021): one median window, one shortest length, one threshold.

    onset_f1(collar_s=0.05, median_s=[0.25], min_s=[0.125, 0.25], threshold=[0.5])

An event lasts from the centre of its first frame to the centre of its last one. It is correct if a
true event of its class begins within the collar; offsets do not count. The F1 is that of sed_eval
over all classes together. Of several settings, the one that is best on the evaluation data is used,
also for the test data.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import product

import numpy as np

from asjax import decoding, metrics
from asjax.config import AsjaxError, unknown

_RULES = {"offset_collar": None, "sed_eval": True}
_ON, _BY = ("probabilities", "logits"), ("score", "loss")
_COLLARS_S = (0.05, 0.2)
_SEGMENT_S = 1.0


@dataclass(frozen=True)
class Setting:
    """How frame scores become events: window and shortest event in seconds, one threshold."""

    median_s: float
    min_s: float
    threshold: float


@dataclass(frozen=True)
class Onsets:
    """A collar and the settings to choose from; see `onset_f1`."""

    collar_s: float
    settings: tuple[Setting, ...]
    threshold_on: str
    step_by: str

    @property
    def name(self) -> str:
        """The name of the number, such as onset_f1_50ms."""
        return _name(self.collar_s)

    @property
    def step_metric(self) -> str:
        """The logged metric that chooses the step."""
        return "minus_loss" if self.step_by == "loss" else self.name

    @property
    def names(self) -> tuple[str, ...]:
        """The numbers of `trace`."""
        return (self.name, "minus_loss")

    def check(self, source) -> None:
        """Any clips with events are right."""

    def events(self, found, setting: Setting) -> list[np.ndarray]:
        """The events of every recording of `found`, `Detections`."""
        limit = setting.threshold
        if self.threshold_on == "probabilities":
            limit = float(np.log(limit) - np.log1p(-limit))
        given = found.annotated()
        how = {
            "threshold": limit,
            "median": int(decoding.window_frames(setting.median_s, found.frame_rate)),
            "min_s": setting.min_s,
            "frame_rate": found.frame_rate,
            "rule": "centre",
        }
        return [
            decoding.decode(np.asarray(scores, np.float32)[:length], **how)
            for scores, length in zip(given["scores"], given["lengths"], strict=True)
        ]

    def chosen(self, found) -> tuple[Setting, float]:
        """The setting with the highest F1 on `found`, the first of equal ones, and this F1."""
        values = [self._f1(found, setting) for setting in self.settings]
        best = int(np.argmax(values))
        return self.settings[best], values[best]

    def _f1(self, found, setting) -> float:
        result = metrics.event_f1(
            reference=truth(found),
            estimated=self.events(found, setting),
            num_classes=found.frames.shape[2],
            onset_collar=self.collar_s,
            **_RULES,
        )
        value = result["micro"]["f1"]
        return 0.0 if np.isnan(value) else value  # nothing was found

    def stored(self, about) -> Setting | None:
        """The setting of a card, which may hold anything; None if it is not one of these."""
        about = about if isinstance(about, dict) else {}
        return next((one for one in self.settings if asdict(one).items() <= about.items()), None)

    def trace(self, found) -> dict:
        """The F1 with the best setting and the negative loss, for the log of a training."""
        values = (self.chosen(found)[1], -float(np.nanmean(found.losses)))
        return dict(zip(self.names, values, strict=True))

    def numbers(self, found, tuning=None, *, n_bootstrap: int = 0, seed: int = 0) -> dict:
        """The numbers of `found` with the setting that is best on `tuning`, else on `found` itself.

        Returns: dict with onset_f1_50ms, onset_f1_200ms, perhaps that of another collar, each also
          with `_macro`, segment_error_rate, ci, and onset_setting with its origin.
        """
        setting, _ = self.chosen(found if tuning is None else tuning)
        return self.numbers_with(
            found, setting, "these clips" if tuning is None else "other clips",
            n_bootstrap=n_bootstrap, seed=seed,
        )  # fmt: skip

    def numbers_with(self, found, setting, origin: str, *, n_bootstrap=0, seed=0) -> dict:
        """As `numbers`, with a given setting."""
        lists, given, reference = self.events(found, setting), found.annotated(), truth(found)
        pair = {"reference": reference, "estimated": lists, "num_classes": found.frames.shape[2]}
        out: dict = {"ci": {}}
        for collar_s in sorted({*_COLLARS_S, self.collar_s}):
            key = _name(collar_s)
            counts = metrics.clip_counts(by="event", **pair, onset_collar=collar_s, **_RULES)
            f1 = metrics.f1_of_counts(counts)
            out |= {key: float(f1["micro"]), f"{key}_macro": float(f1["macro"])}
            if n_bootstrap > 1:
                ends = metrics.f1_bootstrap(counts, n=n_bootstrap, seed=seed)
                out["ci"] |= {key: list(ends["micro"]), f"{key}_macro": list(ends["macro"])}
        ends_s = [_end(*both) for both in zip(reference, lists, strict=True)]
        seconds = np.maximum(given["durations_s"], ends_s)
        by_second = metrics.segment_f1(
            **pair, durations_s=seconds, segment_s=_SEGMENT_S, sed_eval=True
        )
        out["segment_error_rate"] = by_second["micro"]["error_rate"]
        about = {**asdict(setting), "threshold_on": self.threshold_on}
        if len(self.settings) > 1:
            about |= {"tried": len(self.settings), "chosen_on": origin}
        return {**out, "onset_setting": about}


def onset_f1(
    *,
    collar_s: float = 0.05,
    median_s=0.25,
    min_s=(0.125, 0.25),
    threshold=0.5,
    threshold_on: str = "probabilities",
    step_by: str = "score",
) -> Onsets:
    """Onset F1 for `eval.metric`; the defaults are those of HEAR for DCASE 2016 task 2.

    Args:
      collar_s: seconds that an onset may deviate.
      median_s, min_s, threshold: one number or several; all combinations are tried on the
        evaluation data. Seconds of the median window, seconds of the shortest event, threshold.
      threshold_on: "probabilities", or "logits" as PretrainedSED's script does by mistake: its 0.5
        is a probability of 0.62.
      step_by: what chooses the step of a training: "score", this F1; "loss", the smallest loss, as
        HEAR does for MAESTRO.

    Raises:
      AsjaxError: a value out of range.
    """
    for name, value, known in (("threshold_on", threshold_on, _ON), ("step_by", step_by, _BY)):
        if value not in known:
            raise unknown(f"metric onset_f1: {name}", value, known)
    on_logits = threshold_on == "logits"
    limits = (-1e3, 1e3) if on_logits else (1e-6, 1 - 1e-6)
    grid = [
        _numbers("median_s", median_s, 0, 60),
        _numbers("min_s", min_s, 0, 60),
        _numbers("threshold", threshold, *limits),
    ]
    [collar] = _numbers("collar_s", [collar_s], 0, 60)
    settings = tuple(Setting(*values) for values in product(*grid))
    return Onsets(collar, settings, threshold_on, step_by)


def described(setting: dict) -> str:
    """How onset F1 was made, for people."""
    text = (
        f"median window {setting['median_s']:g} s, events from {setting['min_s']:g} s, "
        f"threshold {setting['threshold']:g} on {setting['threshold_on']}"
    )
    if "tried" in setting:
        text += f"; the best of {setting['tried']} settings on {setting['chosen_on']}"
    return text


def truth(found) -> list:
    """True events of the counted clips as they are listed: of one class they may overlap."""
    listed = found.events if found.listed is None else found.listed
    return [listed[i] for i in found.rows()]


def _numbers(name: str, values, low, high) -> list[float]:
    values = list(values) if isinstance(values, (list, tuple)) else [values]
    for value in values:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            raise AsjaxError(
                f"metric onset_f1: {name} must be from {low:g} to {high:g}, got {value!r}"
            )
    if not values:
        raise AsjaxError(f"metric onset_f1: {name} must have a number, got none")
    return [float(value) for value in values]


def _name(collar_s: float) -> str:
    return f"onset_f1_{collar_s * 1000:g}ms"


def _end(*groups) -> float:
    """The last offset; sed_eval evaluates segments up to it."""
    return max((float(marks["offset_s"].max()) for marks in groups if len(marks)), default=0.0)

"""Pure functions of scores, targets and events; numpy only.

The names are resolved on first use: a tagger needs `probability` alone.
"""

from importlib import import_module

from asjax.metrics.aso import aso, violation_ratio  # `aso` is a module too, so it is set here

_MODULES = {
    "asjax.metrics.best": ("best_f1",),
    "asjax.metrics.counting": (
        "clip_counts",
        "f1_bootstrap",
        "f1_of_counts",
    ),
    "asjax.metrics.decisions": (
        "at_thresholds",
        "best_thresholds",
        "bootstrap_single_label",
        "calibration",
        "is_single_label",
        "resampled_single_label",
        "single_label",
    ),
    "asjax.metrics.detection": (
        "PSDS1",
        "PSDS2",
        "psds",
        "psds_best_of",
        "psds_of_points",
    ),
    "asjax.metrics.event_lists": (
        "event_f1",
        "intersection_f1",
        "segment_f1",
    ),
    "asjax.metrics.probability": (
        "ACTIVATIONS",
        "as_scores",
        "log_both",
        "log_loss",
        "probabilities",
    ),
    "asjax.metrics.ranking": (
        "FEW",
        "bootstrap",
        "d_prime",
        "interval",
        "regress",
        "resample_counts",
        "resampled",
        "resampled_per_class",
        "tagging",
    ),
    "asjax.metrics.resampling": ("psds_bootstrap",),
    "asjax.metrics.segments": ("segment_ranking",),
    "asjax.metrics.tuning": (
        "first_best",
        "halves",
        "tune_boxes",
        "tune_windows",
        "tuned_halves",
    ),
}
_PUBLIC = {name: module for module, names in _MODULES.items() for name in names}
__all__ = ["aso", "violation_ratio", *_PUBLIC]


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    module = f"asjax.metrics.{name}"
    try:  # `metrics.ranking` without an import of the submodule
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise AttributeError(f"module 'asjax.metrics' has no attribute {name!r}") from None

"""Pure functions of scores and targets; numpy only."""

from asjax.metrics.decisions import (
    at_thresholds,
    best_thresholds,
    bootstrap_single_label,
    calibration,
    resampled_single_label,
    single_label,
)
from asjax.metrics.ranking import (
    bootstrap,
    d_prime,
    interval,
    regress,
    resample_counts,
    resampled,
    resampled_per_class,
    tagging,
)

__all__ = [
    "at_thresholds",
    "best_thresholds",
    "bootstrap_single_label",
    "calibration",
    "resampled_single_label",
    "single_label",
    "bootstrap",
    "d_prime",
    "interval",
    "regress",
    "resample_counts",
    "resampled",
    "resampled_per_class",
    "tagging",
]

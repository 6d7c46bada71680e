"""Pure functions of scores, targets and events; numpy only."""

from asjax.metrics.decisions import (
    at_thresholds,
    best_thresholds,
    bootstrap_single_label,
    calibration,
    resampled_single_label,
    single_label,
)
from asjax.metrics.detection import PSDS1, PSDS2, psds
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
from asjax.metrics.resampling import psds_bootstrap

__all__ = [
    "at_thresholds",
    "best_thresholds",
    "bootstrap_single_label",
    "calibration",
    "resampled_single_label",
    "single_label",
    "PSDS1",
    "PSDS2",
    "bootstrap",
    "d_prime",
    "interval",
    "psds",
    "psds_bootstrap",
    "regress",
    "resample_counts",
    "resampled",
    "resampled_per_class",
    "tagging",
]

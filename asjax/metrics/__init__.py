"""Pure functions of scores, targets and events; numpy only."""

from asjax.metrics.detection import PSDS1, PSDS2, psds
from asjax.metrics.ranking import (
    bootstrap,
    d_prime,
    interval,
    regress,
    resample_counts,
    resampled,
    tagging,
)
from asjax.metrics.resampling import psds_bootstrap

__all__ = [
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
    "tagging",
]

"""Pure functions of scores and targets; numpy only."""

from asjax.metrics.ranking import (
    bootstrap,
    d_prime,
    interval,
    moving_average,
    moving_average_best,
    regress,
    resample_counts,
    resampled,
    smoothed_best,
    tagging,
)

__all__ = [
    "bootstrap",
    "d_prime",
    "interval",
    "moving_average",
    "moving_average_best",
    "regress",
    "resample_counts",
    "resampled",
    "smoothed_best",
    "tagging",
]

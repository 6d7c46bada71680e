"""Pure functions of scores, targets and events; numpy only."""

from asjax.metrics.aso import aso, violation_ratio
from asjax.metrics.best import best_f1
from asjax.metrics.counting import clip_counts, f1_bootstrap, f1_of_counts
from asjax.metrics.decisions import (
    at_thresholds,
    best_thresholds,
    bootstrap_single_label,
    calibration,
    is_single_label,
    resampled_single_label,
    single_label,
)
from asjax.metrics.detection import PSDS1, PSDS2, psds, psds_best_of, psds_of_points
from asjax.metrics.event_lists import event_f1, intersection_f1, segment_f1
from asjax.metrics.probability import ACTIVATIONS, as_scores, log_both, log_loss, probabilities
from asjax.metrics.ranking import (
    FEW,
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
from asjax.metrics.segments import segment_ranking
from asjax.metrics.tuning import first_best, halves, tune_boxes, tune_windows, tuned_halves

__all__ = [
    "ACTIVATIONS",
    "as_scores",
    "aso",
    "is_single_label",
    "log_both",
    "log_loss",
    "probabilities",
    "at_thresholds",
    "best_thresholds",
    "bootstrap_single_label",
    "calibration",
    "resampled_single_label",
    "single_label",
    "FEW",
    "PSDS1",
    "PSDS2",
    "best_f1",
    "bootstrap",
    "clip_counts",
    "d_prime",
    "event_f1",
    "f1_bootstrap",
    "f1_of_counts",
    "first_best",
    "halves",
    "intersection_f1",
    "interval",
    "psds",
    "psds_best_of",
    "psds_bootstrap",
    "psds_of_points",
    "regress",
    "resample_counts",
    "resampled",
    "resampled_per_class",
    "segment_f1",
    "segment_ranking",
    "tagging",
    "tune_boxes",
    "tune_windows",
    "tuned_halves",
    "violation_ratio",
]

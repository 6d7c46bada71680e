"""The metrics of `eval.metric` that are calls: `onset_f1(min_s=0.125)`, `weak_strong_f1`.

Such a metric has `names` of numbers, `step_metric`, the one that chooses the step, and functions of
`Detections`: `check(source)`, `trace(found)` in a training, `numbers(found, tuning)` at its end.
"""

from __future__ import annotations

from asjax import config
from asjax.evaluation.onsets import onset_f1
from asjax.evaluation.weak_strong import weak_strong_f1

__all__ = ["onset_f1", "weak_strong_f1"]
_MADE = {"onset_f1": onset_f1, "weak_strong_f1": weak_strong_f1}


def of(cfg):
    """The metric that a config's `eval.metric` calls, or None if it is a plain name.

    Raises:
      AsjaxError: an unknown keyword, or a value out of range.
    """
    metric = (cfg.get("eval") or {}).get("metric") or ""
    name, fields = config.split_spec(metric) if metric else ("", {})
    if name not in _MADE:
        return None
    return config.call(_MADE[name], f"eval.metric {name}", **fields)

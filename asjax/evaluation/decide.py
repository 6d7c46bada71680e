"""From scores to decisions: probabilities, thresholds, calibration, and the clearest mistakes."""

from __future__ import annotations

import numpy as np

from asjax import metrics

_CANDIDATES = 2000  # pairs of clip and class that are looked at for the clearest mistakes


def decisions(found: dict, record: dict) -> dict:
    """Thresholds and calibration of a set of scores, from its views.

    A model that was trained with HLP is compared with HLP labels, because it learned that a clip
    has all ancestors of its labels. Its scores stay as they are.

    Args:
      found: views of `asjax.evaluation.views`. record: about the model; its `hlp` says how it was
        trained.

    Returns: dict with activation, view (key of the targets), probabilities [N, C], targets [N, C],
      thresholds, calibration; see the functions of these names.
    """
    view = "hlp_labels" if record.get("hlp") is True and "hlp_labels" in found else "labels"
    p, targets = found["labels"].probabilities, found[view].targets
    return {
        "activation": found["labels"].activation,
        "view": view,
        "probabilities": p,
        "targets": targets,
        "thresholds": thresholds(p, targets),
        "calibration": calibration(p, targets),
    }


def headline(decided: dict, ids) -> dict:
    """The part of `decisions` for metrics.json."""
    chosen, measured = decided["thresholds"], decided["calibration"]
    means = {k: v for k, v in chosen.items() if k.startswith("macro_f1")}
    about = {"rule": "best F1 of each class on these clips", "unit": decided["activation"]}
    return {
        "thresholds": {
            **about,
            **means,
            "one": chosen["one"],
            "by_class": dict(zip(ids, chosen["threshold"].tolist(), strict=True)),
        },
        "calibration": {
            "ece": measured["ece"],
            "of": measured["of"],
            **{k: measured[k].tolist() for k in ("edges", "mean_probability", "share", "count")},
        },
    }


def columns(decided: dict) -> dict:
    """The columns of per_class.csv: the threshold and what it gives on the same clips."""
    chosen = decided["thresholds"]
    return {
        "threshold": chosen["threshold"],
        **{f"threshold_{key}": chosen[key] for key in ("precision", "recall", "f1")},
    }


def thresholds(probabilities, targets, seed: int = 0) -> dict:
    """The probability of each class from which a clip counts as having the class: the best F1.

    Thresholds that are chosen on the same clips make F1 too high. So the clips are also split into
    two random halves: the thresholds of each half decide about the other half.

    Args: probabilities float [N, C]; targets [N, C], 0 or 1.

    Returns: dict with
      threshold, precision, recall, f1: float64 [C], chosen and measured on all clips; NaN for a
        class without a positive clip. A clip has the class if its probability is at or above it;
      one: dict of threshold, precision, recall, f1: one threshold for all classes, with the best
        F1 over all pairs of clip and class; NaN without a positive clip;
      macro_f1: mean of f1; macro_f1_other_half: mean of F1 with the thresholds of the other half;
      macro_f1_at_half: mean of F1 at 0.5. All three are means over classes with a positive clip.
    """
    probabilities, targets = np.asarray(probabilities), np.asarray(targets) > 0.5
    best = metrics.best_thresholds(scores=probabilities, targets=targets)
    pairs = {"scores": probabilities.reshape(-1, 1), "targets": targets.reshape(-1, 1)}
    one = metrics.best_thresholds(**pairs)
    there = targets.any(axis=0)
    decided = np.zeros(targets.shape, bool)
    second = metrics.halves(len(targets), seed)
    for half in (second, ~second):
        other = metrics.best_thresholds(scores=probabilities[half], targets=targets[half])
        with np.errstate(invalid="ignore"):  # no positive in this half: no decision in the other
            decided[~half] = probabilities[~half] >= other["threshold"]
    measured = {
        "macro_f1": best["f1"],
        "macro_f1_other_half": _f1(decided, targets),
        "macro_f1_at_half": _f1(probabilities >= 0.5, targets),
    }
    means = {k: float(f1[there].mean()) if there.any() else np.nan for k, f1 in measured.items()}
    return {**best, **means, "one": {key: float(value[0]) for key, value in one.items()}}


def _f1(decided, targets) -> np.ndarray:
    at = metrics.at_thresholds(scores=decided, targets=targets, thresholds=0.5)
    return np.nan_to_num(at["f1"])


def calibration(probabilities, targets, bins: int = 15) -> dict:
    """Reliability of the probabilities, with `of`: what they are probabilities of.

    If every clip has one class (`of` = "decisions"): the probability of the class with the highest
    score, against the share of clips where this class is right. Otherwise (`of` = "pairs"): every
    pair of clip and class, against the share of pairs with the label.

    Returns: `metrics.calibration` and `of`, `mean_predicted` and `mean_true`: the mean probability
      and the share; for pairs both are summed over the classes, so they are labels per clip.
    """
    p, y = np.asarray(probabilities), np.asarray(targets) > 0.5
    of, scale = "pairs", p.shape[1]
    if metrics.is_single_label(y):
        best = p.argmax(axis=1)[:, None]
        p, y = (np.take_along_axis(a, best, axis=1)[:, 0] for a in (p, y))
        of, scale = "decisions", 1
    out = metrics.calibration(probabilities=p, targets=y, bins=bins)
    mean = lambda a: float(a.mean(dtype=np.float64)) * scale if a.size else np.nan  # noqa: E731
    return {**out, "of": of, "mean_predicted": mean(p), "mean_true": mean(y)}


def confused_pairs(confusion, most: int = 10) -> list[tuple[int, int, int]]:
    """(true class, decision, clips) of the most frequent mistakes of a confusion matrix [C, C]."""
    wrong = np.array(confusion)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, wrong.shape)
    found = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(i, j, int(wrong[i, j])) for i, j in found if wrong[i, j]]


def mistakes(scores, targets, threshold=None, most: int = 10) -> dict[str, list[tuple[int, int]]]:
    """The clearest mistakes as pairs (clip, class), clearest first.

    Args:
      scores: [N, C], in any unit in which more means more confident.
      targets: [N, C]. threshold: [C], in the unit of the scores; NaN decides never.

    Returns: two lists of at most `most` pairs.
      If every clip has one class: "confident" (the clip is decided to be this other class, highest
      score first) and "missed" (wrong clips with the lowest score of their true class, this class).
      Otherwise: "confident" (score at or above the threshold without the label, highest first) and
      "missed" (score below the threshold with the label, lowest first). A clip occurs once in a
      list, a class at most twice.
    """
    scores, targets = np.asarray(scores), np.asarray(targets) > 0.5
    if metrics.is_single_label(targets):
        decided, true = scores.argmax(axis=1), targets.argmax(axis=1)
        wrong = np.flatnonzero(decided != true)
        by_score = wrong[np.argsort(-scores[wrong, decided[wrong]], kind="stable")]
        confident = [(int(i), int(decided[i])) for i in by_score[:most]]
        rest = wrong[~np.isin(wrong, by_score[:most])]
        rest = rest[np.argsort(scores[rest, true[rest]], kind="stable")][:most]
        return {"confident": confident, "missed": [(int(i), int(true[i])) for i in rest]}
    with np.errstate(invalid="ignore"):
        above = scores >= threshold
        below = scores < threshold
    return {
        "confident": _first_of_each(scores, above & ~targets, most),
        "missed": _first_of_each(-scores, below & targets, most),
    }


def _first_of_each(value, among, most: int) -> list[tuple[int, int]]:
    """Places of `among` with the highest values: one of each row, at most two of each column."""
    place = np.flatnonzero(among)
    value = value.ravel()[place]
    if len(place) > _CANDIDATES:
        top = np.argpartition(-value, _CANDIDATES)[:_CANDIDATES]
        top.sort()
        place, value = place[top], value[top]
    out, rows, columns = [], set(), {}
    for at in place[np.argsort(-value, kind="stable")].tolist():
        row, column = divmod(at, among.shape[1])
        if row not in rows and columns.get(column, 0) < 2:
            rows.add(row)
            columns[column] = columns.get(column, 0) + 1
            out.append((row, column))
            if len(out) == most:
                break
    return out

"""Slow, simple metrics: scikit-learn on repeated rows, class by class."""

import numpy as np
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score


def per_class(scores, targets):
    """AP and AUC by class, NaN where a class has no positive (AUC: or no negative)."""
    ap, auc = [], []
    for score, target in zip(scores.T, targets.T, strict=True):
        ap.append(average_precision_score(target, score) if target.any() else np.nan)
        both = target.any() and not target.all()
        auc.append(roc_auc_score(target, score) if both else np.nan)
    return np.array(ap), np.array(auc)


def resampled(scores, targets, counts):
    """Mean AP and mean AUC of the set in which clip i occurs counts[i] times."""
    ap, auc = per_class(np.repeat(scores, counts, axis=0), np.repeat(targets, counts, axis=0))
    return np.nanmean(ap), np.nanmean(auc)


def d_prime(auc):
    return np.sqrt(2) * norm.ppf(auc)


def hand_ap(scores, targets):
    """AP of one class by its definition: sum over thresholds of recall gained times precision."""
    ap, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        above = scores >= threshold
        new = targets[above].sum() / targets.sum()
        ap += (new - recall) * targets[above].mean()
        recall = new
    return ap


def moving_average_best(values, window):
    """Centre of the best full window, by trying all windows; values without NaN."""
    half = window // 2
    means = {i: np.mean(values[i - half : i + half + 1]) for i in range(half, len(values) - half)}
    return max(means, key=means.get)

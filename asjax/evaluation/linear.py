"""Linear models on fixed features, as a baseline for networks.

The loss is convex, so there is one solution. optax's L-BFGS finds it on standardised features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from asjax.config import AsjaxError

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # candidates of `fit_best`


@dataclass(frozen=True)
class Linear:
    """`logits = (x - mean) / scale @ weight + bias`, float32 [N, D] -> [N, C]."""

    mean: np.ndarray  # [D]
    scale: np.ndarray  # [D]
    weight: np.ndarray  # [D, C]
    bias: np.ndarray  # [C]

    def __call__(self, x) -> np.ndarray:
        return ((np.asarray(x, np.float32) - self.mean) / self.scale) @ self.weight + self.bias


def fit(
    x, targets, *, single_label: bool, penalty: float = 1e-2, weight=None, steps: int = 200
) -> Linear:
    """Logistic regression with an L2 penalty on the weights but not on the biases.

    The loss is the mean over clips of the cross entropy, plus `penalty / 2` times the sum of
    squared weights. The cross entropy is a softmax over classes, or a sum of one sigmoid per class.
    scikit-learn's LogisticRegression with C = 1 / (penalty * N) has the same loss.

    Args:
      x: [N, D]. targets: [N, C], 0 or 1; exactly one 1 per row with `single_label`.
      weight: [N], weight of each clip (default: equal); 0 leaves a clip out.
      steps: maximum number of steps; the fit stops earlier when the gradient is small.

    Raises:
      AsjaxError: features that are not finite, or different shapes.
    """
    import jax

    x, targets = np.asarray(x, np.float32), np.asarray(targets, np.float32)
    if x.ndim != 2 or targets.ndim != 2 or len(x) != len(targets) or not len(x):
        raise AsjaxError(f"a linear fit needs x [N, D] and targets [N, C], got {x.shape}")
    if not np.isfinite(x).all():
        raise AsjaxError("a linear fit needs finite features; the model's weights may be damaged")
    share = np.ones(len(x)) if weight is None else np.asarray(weight, np.float64)
    share = share / share.sum()
    mean = share @ x
    scale = np.sqrt(share @ (x - mean) ** 2)
    scale = np.where(scale > 1e-6 * np.maximum(np.abs(mean), 1e-6), scale, 1.0)
    standard = ((x - mean) / scale).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        params = _minimise()(
            standard, targets, share.astype(np.float32), penalty, steps, single_label
        )
    weights, bias = (np.asarray(params[key]) for key in ("weight", "bias"))
    return Linear(mean.astype(np.float32), scale.astype(np.float32), weights, bias)


@cache
def _minimise():
    """The jitted minimisation; one program per shape, for every penalty and weight."""
    import jax
    import jax.numpy as jnp
    import optax

    def run(x, targets, share, penalty, steps, single_label):
        def loss(params):
            logits = x @ params["weight"] + params["bias"][None]
            if single_label:
                each = optax.softmax_cross_entropy(logits, targets)
            else:
                each = optax.sigmoid_binary_cross_entropy(logits, targets).sum(axis=1)
            return share @ each + 0.5 * penalty * jnp.sum(params["weight"] ** 2)

        tx = optax.lbfgs()
        value_and_grad = optax.value_and_grad_from_state(loss)

        def update(carry):
            params, state, step, _ = carry
            value, grad = value_and_grad(params, state=state)
            move, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)
            return optax.apply_updates(params, move), state, step + 1, optax.tree.norm(grad)

        start = {
            "weight": jnp.zeros((x.shape[1], targets.shape[1])),
            "bias": jnp.zeros(targets.shape[1]),
        }
        carry = (start, tx.init(start), 0, jnp.float32(jnp.inf))
        return jax.lax.while_loop(lambda c: (c[2] < steps) & (c[3] > 1e-5), update, carry)[0]

    return jax.jit(run, static_argnames="single_label")


def fit_best(x, targets, *, single_label: bool, score, folds: int = 5, groups=None, seed: int = 0):
    """`fit` with the penalty from PENALTIES that has the best cross-validated score.

    Args:
      score: `(logits, targets) -> float`, higher is better.
      groups: one label per clip; clips of a group stay in one fold.

    Returns: `(Linear fitted on all clips, penalty, mean score over the folds)`. With fewer groups
      than folds there is no cross-validation: the middle penalty is used and the score is NaN.
    """
    x, targets = np.asarray(x, np.float32), np.asarray(targets)
    _, member = np.unique(np.arange(len(x)) if groups is None else groups, return_inverse=True)
    if member.max(initial=-1) + 1 < folds:
        middle = PENALTIES[len(PENALTIES) // 2]
        return fit(x, targets, single_label=single_label, penalty=middle), middle, float("nan")
    fold = np.random.default_rng(seed).permutation(member.max() + 1)[member] % folds
    means = []
    for penalty in PENALTIES:
        values = []
        for k in range(folds):
            options = dict(single_label=single_label, penalty=penalty, weight=fold != k)
            model = fit(x, targets, **options)
            values.append(score(model(x[fold == k]), targets[fold == k]))
        means.append(float(np.nanmean(values)) if np.isfinite(values).any() else -np.inf)
    best = int(np.argmax(means))
    model = fit(x, targets, single_label=single_label, penalty=PENALTIES[best])
    return model, PENALTIES[best], means[best]

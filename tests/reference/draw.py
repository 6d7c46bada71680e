"""Slow, simple samplers with lists and loops, as references for asjax.data.draw."""

import numpy as np


def copies(dense, beta):
    """M_j by the balancing paper's formula, clip by clip (rounds half to even)."""
    prior = dense.mean(axis=0)
    m = [max((1 / prior[k]) ** beta for k in np.flatnonzero(row)) for row in dense]
    return [round(x / min(m)) for x in m]


def oversampled_list(dense, beta):
    """The epoch's list with every clip repeated M_j times, in the order of the source."""
    return [j for j, times in enumerate(copies(dense, beta)) for _ in range(times)]


def expected_share(dense, beta):
    """m_j / sum m: each clip's share of the draws."""
    prior = dense.mean(axis=0)
    m = np.array([max((1 / prior[k]) ** beta for k in np.flatnonzero(row)) for row in dense])
    return m / m.sum()


def weights(dense, offset):
    """Sum over the labels of 1000 / (N_k + offset): PaSST (100), AST and PSLA (0.01)."""
    counts = dense.sum(axis=0)
    return np.array([sum(1000 / (counts[k] + offset) for k in np.flatnonzero(r)) for r in dense])


def second_draw(weights):
    """P(second of two draws without replacement is j) = sum over i != j of p_i p_j / (1 - p_i)."""
    p = weights / weights.sum()
    return np.array(
        [sum(p[i] * p[j] / (1 - p[i]) for i in range(len(p)) if i != j) for j in range(len(p))]
    )


class Queue:
    """PANNs' balanced sampler as a loop with state and given random permutations.

    `permutation(kind, k, turn, size)` returns the order of the classes (kind "classes", turn =
    cycle) or of the clips of class k (kind "clips", turn = number of the reshuffle).
    """

    def __init__(self, dense, permutation):
        self.lists = {k: np.flatnonzero(dense[:, k]) for k in range(dense.shape[1])}
        self.classes = [k for k, clips in self.lists.items() if len(clips)]
        self.permutation, self.queue, self.cycle = permutation, [], 0
        self.pointer = dict.fromkeys(self.classes, 0)
        self.turn = dict.fromkeys(self.classes, 0)
        self.order = {k: self._shuffled(k) for k in self.classes}

    def _shuffled(self, k):
        return self.permutation("clips", k, self.turn[k], len(self.lists[k]))

    def draw(self):
        if not self.queue:
            order = self.permutation("classes", None, self.cycle, len(self.classes))
            self.queue, self.cycle = [self.classes[i] for i in order], self.cycle + 1
        k = self.queue.pop(0)
        clip = self.lists[k][self.order[k][self.pointer[k]]]
        self.pointer[k] += 1
        if self.pointer[k] == len(self.lists[k]):
            self.pointer[k], self.turn[k] = 0, self.turn[k] + 1
            self.order[k] = self._shuffled(k)
        return clip

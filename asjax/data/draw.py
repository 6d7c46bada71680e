"""The order of the training clips: draws as pure functions of (seed, global draw number).

A draw has `draws_per_epoch` and maps the global draw number n (int, or int array) to a record
index; epoch = n // draws_per_epoch. A draw has no state, so any worker or process may compute any
n, and a run resumes from its step number alone.

All random numbers come from one counter-based generator: the output function of SplitMix64 on
hashed counters. They are the same in any process, thread, chunking and numpy version.
"""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np

from asjax import balance
from asjax.config import AsjaxError, unknown, warn
from asjax.data import activity, shares

__all__ = [
    "class_queue",
    "expected",
    "importance",
    "oversample",
    "sequential",
    "shuffle",
    "strong_weak",
    "weighted",
]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_TABLE = 4096  # up to this size a permutation is an exact table, above it a Feistel network
_ROUNDS = 6
EPOCH = 100_000  # clips of an epoch of PaSST and of PretrainedSED
_EXAMPLE = 101  # the stream of random numbers of `generator`


# ------------------------------------------------------------------------------ random numbers


def _mix(x):
    """SplitMix64's finaliser; x is a non-negative int < 2^64 or a uint64 array."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)


def _hash(*words):
    """64 random bits from non-negative ints or uint64 arrays, hashed one after the other."""
    x = _GOLDEN
    for word in words:
        x = _mix((x ^ word) * _GOLDEN + _GOLDEN & _MASK)
    return x


def _unit(bits):
    """64 random bits -> float64 in [0, 1)."""
    return (bits >> 11) * 2.0**-53


def _number(n):
    """Draw numbers as Python int or uint64 array, because `_hash` needs this."""
    return n.astype(np.uint64) if isinstance(n, np.ndarray) else int(n)


def random_bits(seed: int, *words: int) -> int:
    """64 random bits, a pure function of its arguments (non-negative ints)."""
    return _hash(seed, *words)


def generator(seed: int, n: int) -> np.random.Generator:
    """The random numbers that the host ops get for draw n."""
    key = [random_bits(seed, _EXAMPLE), n]
    return np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))


@lru_cache(maxsize=2048)
def _table(size: int, key: int) -> np.ndarray:
    """A uniformly random permutation of range(size): the order of `size` random numbers."""
    bits = _hash(key, np.arange(size, dtype=np.uint64))
    return np.argsort(bits, kind="stable").astype(np.uint16)


def permute(i, size: int, key: int):
    """Position `i` (int or int array, 0 <= i < size) under a keyed permutation of range(size)."""
    if size <= _TABLE:
        place = _table(size, key)[i]
        return place.astype(np.int64) if isinstance(i, np.ndarray) else int(place)
    return _feistel(i, size, _round_keys(key))


@lru_cache(maxsize=2048)
def _round_keys(key: int) -> tuple[int, ...]:
    return tuple(_hash(key, r) for r in range(_ROUNDS))


def _feistel(i, size, keys):
    """A Feistel network on Z_a x Z_b with a * b >= size, repeated until inside range(size).

    With sums modulo a and b instead of xor, a * b exceeds size by about sqrt(size) at most. So a
    repetition is rare.
    """
    many = isinstance(i, np.ndarray)
    a = int(size**0.5)
    a += a * a < size
    b = -(-size // a)
    i = _number(i)
    while True:
        left, right = i // b, i % b
        for r in range(0, _ROUNDS, 2):
            left = (left + _mix(right ^ keys[r]) % a) % a
            right = (right + _mix(left ^ keys[r + 1]) % b) % b
        out = left * b + right
        if not many:
            if out < size:
                return out
            i = out
            continue
        out = out.astype(np.int64)
        outside = out >= size
        if outside.any():
            out[outside] = _feistel(out[outside], size, keys)
        return out


# --------------------------------------------------------------------------------------- draws


class _Draw:
    """Splits n into (epoch, position), for draws with a new order in each epoch.

    A subclass defines `_epoch(epoch, position) -> record index` for ints and int64 arrays.
    """

    draws_per_epoch: int
    size: int

    def __init__(self, labels, seed: int):
        self.size = self.draws_per_epoch = int(labels.shape[0])
        if not self.size:
            raise AsjaxError("a draw must have at least one clip, got none; check the splits")
        self.seed = int(seed)
        if not 0 <= self.seed < 2**63:
            raise AsjaxError(f"seed must be 0 to 2^63 - 1, got {seed}")

    def __call__(self, n):
        """Record index (int, or int64 array like n) of the global draw number n >= 0."""
        if not isinstance(n, np.ndarray):
            epoch, position = divmod(int(n), self.draws_per_epoch)
            return int(self._epoch(epoch, position))
        out = np.empty(n.shape, np.int64)
        epochs, positions = np.divmod(n.astype(np.int64), self.draws_per_epoch)
        for epoch in np.unique(epochs):
            at = epochs == epoch
            out[at] = self._epoch(int(epoch), positions[at])
        return out

    def _order(self, epoch, position):
        """The position after this epoch's permutation of all its draws."""
        return permute(position, self.draws_per_epoch, _hash(self.seed, epoch))

    def _draws(self, draws: int) -> int:
        if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
            raise AsjaxError(f"draws must be an int of at least 1, got {draws!r}")
        return draws


class Sequential(_Draw):
    """Every record in the order of the source."""

    def _epoch(self, epoch, position):
        return position


class Shuffle(_Draw):
    """Every record once per epoch, in a new order each epoch."""

    def _epoch(self, epoch, position):
        return self._order(epoch, position)


class Oversample(_Draw):
    """The balancing paper's oversampling: record j exactly M_j times per epoch, shuffled.

    An epoch is a list of sum(M_j) entries. Only its N cumulative counts are stored.
    """

    def __init__(self, labels, seed: int, beta: float = 0.5):
        super().__init__(labels, seed)
        self._ends = np.cumsum(balance.oversampling(labels, beta))
        self.draws_per_epoch = int(self._ends[-1])

    def _epoch(self, epoch, position):
        return self._ends.searchsorted(self._order(epoch, position), side="right")


class Expected(_Draw):
    """beta-balancing by expected frequency: an epoch of `draws` (default N) draws, shuffled.

    It is systematic sampling over the weights m_j with a new offset each epoch. The count of a
    record differs by less than 1 from its expectation, draws * m_j / sum(m), and equals it on
    average.
    """

    def __init__(self, labels, seed: int, beta: float = 0.5, draws: int | None = None):
        super().__init__(labels, seed)
        self.draws_per_epoch = self._draws(self.size if draws is None else draws)
        self._ends = _cumulative(balance.clip_factor(labels, beta))

    def _epoch(self, epoch, position):
        offset = _unit(_hash(self.seed, epoch, 1))
        at = (self._order(epoch, position) + offset) * (self._ends[-1] / self.draws_per_epoch)
        return _search(self._ends, at)


class Weighted(_Draw):
    """Random draws by weight: PaSST's (`scheme="passt"`) or AST's and PSLA's (`scheme="ast"`).

    With replacement: `draws` (default N) independent draws per epoch. Without replacement: the
    first `draws` (default 100,000 as in PaSST, at most N) of a weighted random order. The lists of
    two epochs are stored, because threads need both at the end of an epoch.
    """

    def __init__(
        self,
        labels,
        seed: int,
        scheme: str = "passt",
        replacement: bool = True,
        draws: int | None = None,
    ):
        super().__init__(labels, seed)
        schemes = {"passt": balance.passt_weights, "ast": balance.ast_weights}
        if scheme not in schemes:
            raise unknown("weighted draw: scheme", scheme, schemes)
        weights = schemes[scheme](labels)
        drawable = int(np.count_nonzero(weights))
        if draws is None:
            draws = self.size if replacement else min(EPOCH, drawable)
        if not drawable:
            raise AsjaxError("weighted draw: at least one clip must have a label, got none")
        if not replacement and self._draws(draws) > drawable:
            raise AsjaxError(
                f"weighted draw without replacement: draws must be at most {drawable}, the number "
                f"of clips with labels, got {draws}; lower it or set replacement=True"
            )
        self._set(weights, bool(replacement), draws)

    def _set(self, weights, replacement: bool, draws: int):
        self.draws_per_epoch = self._draws(draws)
        self._replacement = replacement
        self._weights = None if replacement else weights
        self._ends = _cumulative(weights) if replacement else None
        self._kept, self._lock = {}, threading.Lock()  # epoch -> its list, the newest one last

    def _epoch(self, epoch, position):
        if self._replacement:
            at = _unit(_hash(self.seed, epoch, _number(position))) * self._ends[-1]
            return _search(self._ends, at)
        return self._list(epoch)[position]

    def _list(self, epoch) -> np.ndarray:
        order = self._kept.get(epoch)
        if order is None:
            with self._lock:  # one thread makes a list, the others wait for it
                order = self._kept.get(epoch)
                if order is None:
                    order = self._without_replacement(epoch)
                    last = list(self._kept.items())[-1:]
                    self._kept = dict([*last, (epoch, order)])  # a new dict: readers do not lock
        return order

    def _without_replacement(self, epoch):
        """The `draws` smallest of N exponential variables with rates w_j, sorted. The result has
        the same law as drawing one by one, by weight among the clips that remain (Efraimidis,
        Spirakis 2006)."""
        bits = _hash(self.seed, epoch, np.arange(self.size, dtype=np.uint64))
        with np.errstate(divide="ignore"):
            keys = -np.log1p(-_unit(bits)) / self._weights
        keys[self._weights == 0] = np.inf
        first = np.argpartition(keys, self.draws_per_epoch - 1)[: self.draws_per_epoch]
        return first[np.argsort(keys[first], kind="stable")]

    def __getstate__(self):
        return {**self.__dict__, "_kept": {}, "_lock": None}

    def __setstate__(self, state):
        self.__dict__.update(state, _lock=threading.Lock())


class Importance(Weighted):
    """PretrainedSED's sampler: each epoch has the first `draws` clips of a weighted random order.

    A clip's weight is the sum over its classes of n_c 1000 / (offset + N_c), with its n_c active
    frames of the class and the N_c frames of all clips. No clip comes twice in an epoch. A clip
    without events has weight 0 and is never drawn. If fewer clips than `draws` have a weight, an
    epoch has all of them. Clips that are not annotated have estimates (activity.active_frames).

    Args:
      frame_rate, frames: of the labels, as in the host op `strong`.
    """

    def __init__(
        self,
        labels,
        seed: int,
        source,
        draws: int = EPOCH,
        offset: float = 30.0,
        frame_rate: float = 25.0,
        frames: int | None = None,
    ):
        _Draw.__init__(self, labels, seed)
        for name, value in (("offset", offset), ("frame_rate", frame_rate)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise AsjaxError(f"importance draw: {name} must be a number above 0, got {value!r}")
        if frames is not None and (isinstance(frames, bool) or not isinstance(frames, int)):
            raise AsjaxError(f"importance draw: frames must be an int or None, got {frames!r}")
        active = activity.active_frames(source, frame_rate=frame_rate, frames=frames)
        weights = balance.importance_weights(active, offset)
        drawable = int(np.count_nonzero(weights))
        if drawable < self.size:
            warn(f"importance draw: {self.size - drawable:,} clips without events are never drawn")
        if self._draws(draws) > drawable:
            warn(
                f"importance draw: an epoch has {drawable:,} clips, all with events, not {draws:,}"
            )
        self._set(weights, False, min(draws, drawable))


class ClassQueue(_Draw):
    """PANNs' balanced sampler. Each cycle draws every class once, in a random order. A draw takes
    the next clip from the shuffled list of its class. A list is shuffled again after its last clip.

    In cycle q a class is at position q of its list. So any draw can be computed without the draws
    before it. Classes without clips are left out. An epoch has N draws.
    """

    def __init__(self, labels, seed: int):
        super().__init__(labels, seed)
        columns = _columns(labels)
        lengths = np.diff(columns.indptr)
        self._classes = np.flatnonzero(lengths)
        if not len(self._classes):
            raise AsjaxError("class_queue draw: at least one clip must have a label, got none")
        self._starts, self._lengths = columns.indptr.astype(np.int64), lengths.astype(np.int64)
        self._clips = columns.indices

    def __call__(self, n):
        if isinstance(n, np.ndarray):
            indices = [self(int(i)) for i in n.ravel()]
            return np.array(indices, np.int64).reshape(n.shape)
        cycle, turn = divmod(int(n), len(self._classes))
        k = int(self._classes[permute(turn, len(self._classes), _hash(self.seed, cycle))])
        length = int(self._lengths[k])
        turn, position = divmod(cycle, length)
        position = permute(position, length, _hash(self.seed, turn, k + 1))
        return int(self._clips[self._starts[k] + position])


def strong_weak(labels, seed: int, source, strong: int = 1, weak: int = 1, unlabelled: int = 0):
    """Of every strong + weak + unlabelled draws, `strong` are clips with events, `weak` have labels
    only, and `unlabelled` have none. 0: there is no such clip."""
    wanted = {"strong": strong, "weak": weak, "unlabelled": unlabelled}
    names, rows = zip(*shares.kinds(source, wanted, labels.shape[0]), strict=True)
    draws = [Shuffle(labels[some], _hash(seed, g) >> 1) for g, some in enumerate(rows)]
    return shares.Shares(draws, rows, [wanted[name] for name in names], names, seed)


def _columns(labels):
    from scipy import sparse

    columns = sparse.csc_array(labels, copy=True)
    columns.sum_duplicates()
    columns.eliminate_zeros()
    return columns


def _cumulative(weights) -> np.ndarray:
    return np.cumsum(weights, dtype=np.float64)


def _search(ends, at):
    """Records with `at` in their interval of the cumulative weights; safe against rounding."""
    return np.minimum(ends.searchsorted(at, side="right"), ends.searchsorted(ends[-1], side="left"))


# The names in configs: `draw="oversample(beta=0.5)"`
sequential, shuffle, oversample = Sequential, Shuffle, Oversample
expected, weighted, class_queue, importance = Expected, Weighted, ClassQueue, Importance

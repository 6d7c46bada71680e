"""Hierarchical label propagation (HLP): from an ontology to ancestors, labels and scores.

1. Contract the ontology to the target classes: a removed node's children get its parents.
2. From each class, step to its nearest ancestor and mark it, as long as there is exactly one.
3. Stop at a class with no or with several nearest ancestors.

This rule reproduces the table published with the HLP paper exactly.
"""

from __future__ import annotations

import json
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np

from asjax import labels as label_sets
from asjax.config import AsjaxError

# ------------------------------------------------------------------------------- ontologies


def read_json(path):
    """The parsed JSON of a file. AsjaxError: the file is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AsjaxError(f"ontology: no file {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise AsjaxError(f"ontology: {path} cannot be read as JSON: {error}") from None


def parents_of(ontology) -> dict:
    """Parent table `{node: [parents]}` of an ontology.

    Args:
      ontology: path of a JSON file, or its content: AudioSet's layout (a list of nodes with `id`
        and `child_ids`) or a parent table (a dict). Parents are in the order of the nodes.

    Raises:
      AsjaxError: another layout, a node given twice, or a child or parent that is no node.
    """
    if isinstance(ontology, (str, Path)):
        ontology = read_json(ontology)
        if isinstance(ontology, dict):  # JSON keys are strings, so the parents become strings too
            ontology = {k: [str(p) for p in _listed(k, v)] for k, v in ontology.items()}
    if isinstance(ontology, dict):
        table = {node: list(dict.fromkeys(_listed(node, v))) for node, v in ontology.items()}
    else:
        table = _from_children(ontology)
    for node, above in table.items():
        for parent in above:
            if parent not in table:
                raise AsjaxError(
                    f"ontology: parent {parent!r} of {node!r} is not a node; "
                    f"add it, with an empty list of parents if it is a root"
                )
    return table


def _listed(node, parents):
    if not isinstance(parents, (list, tuple, set, frozenset)):
        raise AsjaxError(f"ontology: parents of {node!r} must be a list, got {parents!r}")
    return parents


def _from_children(nodes) -> dict:
    layout = "a list of {'id': ..., 'child_ids': [...]} as AudioSet's ontology.json, or a dict"
    try:
        table = {node["id"]: [] for node in nodes}
        edges = [(node["id"], child) for node in nodes for child in node["child_ids"]]
    except (TypeError, KeyError):
        raise AsjaxError(f"ontology must be {layout} {{node: [parents]}}") from None
    if len(table) != len(nodes):
        raise AsjaxError("ontology: every id must occur once")
    for parent, child in edges:
        if child not in table:
            raise AsjaxError(f"ontology: child {child!r} of {parent!r} is not a node")
        if parent not in table[child]:
            table[child].append(parent)
    return table


# ---------------------------------------------------------------------------------- closure


def closure(spec, strict: bool = False, targets=None) -> np.ndarray:
    """The pairs (child, ancestor) of the HLP rule: bool [C, C], with a diagonal of True.

    Args:
      spec: a label set with AudioSet mids as ids (name, path of its CSV, or `LabelSet`), or an
        ontology as in `parents_of` (path of a .json, parsed list, parent table).
      strict: True propagates along nodes with a single parent in the ontology itself, as the
        paper's text says. False contracts the ontology first, which gives the paper's numbers: 15
        more AudioSet classes propagate (Bell -> Musical instrument, ...), 731 pairs, not 697.
      targets: only with an ontology: the classes, as ids in index order or as a label set.
        Default: every node, in the table's order.

    Raises:
      AsjaxError: a cycle, a target that is not in the ontology, a target given twice.
    """
    is_ontology = isinstance(spec, (dict, list, tuple)) or str(spec).endswith(".json")
    if is_ontology:
        table = parents_of(spec)
        if isinstance(targets, (str, Path, label_sets.LabelSet)):
            targets = label_sets.get(targets).ids
        targets = list(table if targets is None else targets)
    else:
        if targets is not None:
            raise AsjaxError("targets go with an ontology; a label set has its own classes")
        spec = label_sets.get(spec)
        table, targets = label_sets.parents(spec), list(spec.ids)
    column = {target: i for i, target in enumerate(targets)}
    if len(column) != len(targets):
        raise AsjaxError("targets must not repeat a class")
    strangers = [target for target in targets if target not in table]
    if strangers:
        raise AsjaxError(f"{len(strangers)} targets are not in the ontology: {strangers[:5]}")
    return _closure(table, column, strict)


def _closure(table: dict, column: dict, strict: bool) -> np.ndarray:
    try:
        order = list(TopologicalSorter(table).static_order())  # parents come before children
    except CycleError as error:
        ring = " -> ".join(map(str, reversed(error.args[1])))
        raise AsjaxError(f"ontology has a cycle (child -> parent): {ring}") from None
    near: dict = {}  # nearest ancestors that are target classes, per node
    above: dict = {}  # what the rule marks as ancestors, per node
    for node in order:
        near[node] = set()
        for parent in table[node]:
            near[node] |= {parent} if parent in column else near[parent]
        # With `strict` the walk also steps through removed nodes, but only along single parents.
        steps = table[node] if strict else near[node]
        above[node] = set()
        if len(steps) == 1:
            (step,) = steps
            above[node] = above[step] | ({step} if step in column else set())
    implies = np.eye(len(column), dtype=bool)
    for target, i in column.items():
        implies[i, [column[a] for a in above[target]]] = True
    return implies


def closure_if_known(label_set, strict: bool = False) -> np.ndarray | None:
    """`closure`, or None if no ontology is known for the classes (for example a user's names)."""
    try:
        label_sets.parents(label_set)
    except AsjaxError:
        return None
    return closure(label_set, strict=strict)


def pairs(closure) -> np.ndarray:
    """int64 [n, 2]: the (child, ancestor) index pairs off the diagonal."""
    implies = _square(closure)
    return np.argwhere(implies & ~np.eye(len(implies), dtype=bool))


# ------------------------------------------------------------------------------ propagation


def propagate_labels(y, closure):
    """Add every ancestor to hard labels: out[j] = OR of y[i] over all i with closure[i, j].

    This is one matrix product, so it runs inside `jax.jit`. Apply it to hard labels, before mixup
    and label smoothing, because any value above 0 counts as a positive.

    Args:
      y: [..., C] of 0 and 1, bool, integer or float; numpy, jax (traced or not) or scipy.sparse.
      closure: concrete numpy bool [C, C].

    Returns:
      Same kind, shape and dtype as `y`.

    Raises:
      AsjaxError: the class counts differ, or a numpy or sparse `y` has a value other than 0 and 1.
    """
    implies = _square(closure, y.shape[-1])
    if hasattr(y, "tocsr"):
        return _propagate_sparse(y, implies)
    if isinstance(y, np.ndarray):
        _check_hard(y)
    xp = y.__array_namespace__()
    # Sums of up to 2^24 ones are exact in float32, at every matmul precision of jax.
    positives = xp.matmul(y.astype(np.float32), implies.astype(np.float32))
    return (positives > 0).astype(y.dtype)


def _check_hard(values: np.ndarray):
    if values.dtype != bool and not ((values == 0) | (values == 1)).all():
        raise AsjaxError(
            "labels to propagate must be 0 or 1; propagate hard labels before mixup and smoothing"
        )


def _propagate_sparse(y, implies: np.ndarray):
    from scipy import sparse

    _check_hard(y.data)
    y = y.tocsr()
    out = y.astype(np.int32) @ sparse.csr_array(implies.astype(np.int32))
    out.sort_indices()
    return type(y)((np.ones(out.nnz, y.dtype), out.indices, out.indptr), shape=y.shape)


def propagate_scores(s, closure):
    """Raise every ancestor to its best descendant: out[j] = max of s[i] over i with closure[i, j].

    It works for any score where a higher value means more certain, also for negative logits. It is
    monotone, so it commutes with the sigmoid. A NaN in a class or in one of its descendants gives
    NaN; -inf is an ordinary value. Memory is O(pairs) per row, never batch x C x C. numpy and jax
    agree bit for bit, except for subnormal numbers: XLA may compare them as 0.

    Args:
      s: [..., C] numpy or jax (traced or not).
      closure: concrete numpy bool [C, C].
    """
    implies = _square(closure, s.shape[-1])
    rounds, columns = _tournament(len(implies), np.packbits(implies).tobytes())
    xp, best = s.__array_namespace__(), s
    for left, right in rounds:
        a, b = best[..., left], best[..., right]
        # Not `maximum`: libraries differ in its result for -0.0 and 0.0 and in its NaN.
        with np.errstate(invalid="ignore"):  # comparing a NaN is intended here
            best = xp.where((a >= b) | (a != a), a, b)
    return xp.concat([s, best], axis=-1)[..., columns] if rounds else s


@lru_cache(maxsize=16)
def _tournament(size: int, packed: bytes):
    """Index tables for the maximum over the descendants of each class, as a tournament.

    Returns:
      rounds: index pairs (left, right) for each round. A round halves the list of candidates
        (descendants) of each class until one is left; in an odd list the last one is compared with
        itself. There are log2(longest list) rounds, and the first has at most pairs + C elements.
      columns: [C], the place of each class's result in the scores with the winners appended.
    """
    implies = np.unpackbits(np.frombuffer(packed, np.uint8), count=size * size)
    implies = implies.reshape(size, size).astype(bool)
    gaining = np.flatnonzero(implies.sum(axis=0) > 1)
    groups = [np.flatnonzero(implies[:, ancestor]) for ancestor in gaining]
    rounds = []
    while max(map(len, groups), default=1) > 1:
        left = np.concatenate([g[::2] for g in groups])
        right = np.concatenate(
            [np.append(g[1::2], g[-1:]) if len(g) % 2 else g[1::2] for g in groups]
        )
        rounds.append((left, right))
        ends = np.cumsum([(len(g) + 1) // 2 for g in groups])
        groups = np.split(np.arange(ends[-1]), ends[:-1])
    columns = np.arange(size)
    columns[gaining] = size + np.arange(len(gaining))
    return tuple(rounds), columns


def _square(closure, size: int | None = None) -> np.ndarray:
    if not isinstance(closure, np.ndarray):
        raise AsjaxError("closure must be a numpy array; do not pass it through jax.jit")
    if closure.ndim != 2 or closure.shape[0] != closure.shape[1]:
        raise AsjaxError(f"closure must be square, got {closure.shape}")
    if size is not None and len(closure) != size:
        raise AsjaxError(f"scores or labels have {size} classes, the closure has {len(closure)}")
    return closure.astype(bool) | np.eye(len(closure), dtype=bool)

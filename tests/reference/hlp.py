"""Slow, simple HLP: the rule step by step, with loops over classes."""

import numpy as np


def nearest(node, parents, targets):
    """The nearest ancestors of `node` in `targets`; other nodes are skipped."""
    found = set()
    for parent in parents[node]:
        found |= {parent} if parent in targets else nearest(parent, parents, targets)
    return found


def ancestors(node, parents, targets):
    """Go to the nearest ancestor as long as there is exactly one."""
    marked = []
    while len(found := nearest(node, parents, targets)) == 1:
        (node,) = found
        marked.append(node)
    return marked


def strict_ancestors(node, parents, targets):
    """Go up the ontology as long as a node has exactly one parent; mark the targets on the way."""
    marked = []
    while len(parents[node]) == 1:
        (node,) = parents[node]
        if node in targets:
            marked.append(node)
    return marked


def propagate(rows, closure):
    """Per row and ancestor: the largest value of the classes that imply it, NaN if one is NaN."""
    out = np.array(rows)
    for n, row in enumerate(rows):
        for ancestor in range(len(closure)):
            values = [row[child] for child in range(len(closure)) if closure[child, ancestor]]
            bad = any(value != value for value in values)
            out[n, ancestor] = np.nan if bad else max(values)
    return out

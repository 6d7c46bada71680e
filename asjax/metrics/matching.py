"""A largest matching: every detection and every event is in at most one pair."""

from __future__ import annotations


def largest_matching(partners: dict) -> dict:
    """A largest matching of a bipartite graph: {left: right}.

    Args:
      partners: left -> list of rights that it may be paired with, in order of preference.
    """
    left_of, right_of = {}, {}
    for left, rights in partners.items():  # a greedy matching is nearly always the largest
        free = next((right for right in rights if right not in left_of), None)
        if free is not None:
            left_of[free], right_of[left] = left, free
    for left in partners:
        if left not in right_of:
            _augment(left, partners, left_of, right_of)
    return right_of


def _augment(start, partners: dict, left_of: dict, right_of: dict) -> None:
    """Pair `start` as well if an alternating path leads to a free right (breadth first)."""
    came_from, queue = {}, [start]
    for left in queue:
        for right in partners[left]:
            if right in came_from:
                continue
            came_from[right] = left
            if right in left_of:
                queue.append(left_of[right])
                continue
            while right is not None:  # swap the pairs along the path
                left = came_from[right]
                following = right_of.get(left)
                left_of[right], right_of[left] = left, right
                right = following
            return

"""Made-up frame scores with true events, for the tests of evaluation and comparison."""

import numpy as np

from asjax import events, labels
from asjax.evaluation import detections


def classes(count=4):
    ids = tuple(f"id{i}" for i in range(count))
    return labels.LabelSet("mine", ids, tuple(f"sound {i}" for i in range(count)))


def made(clips=24, frames=50, count=4, *, rate=10.0, seed=0, annotated=None):
    """A `Detections` whose last class has no event.

    Args: annotated: bool [clips]; default: all clips.
    """
    rng = np.random.default_rng(seed)
    marks, scores = [], np.empty((clips, frames, count), np.float16)
    seconds = np.full(clips, frames / rate)
    seconds[1::3] -= 0.73  # shorter clips are padded
    for i in range(clips):
        spans = [(a, a + rng.uniform(0.4, 2)) for a in rng.uniform(0, 3, rng.integers(0, 4))]
        listed = [(a, min(b, seconds[i]), int(rng.integers(count - 1))) for a, b in spans]
        mine = events.merge(events.as_events(listed))
        active = events.to_frames(mine, frames=frames, num_classes=count, frame_rate=rate)
        noise = np.repeat(rng.normal(0, 1, (frames // 5, count)), 5, axis=0)
        scores[i] = -2 + noise + rng.normal(0, 0.3, (frames, count)) + 3.5 * active
        marks.append(mine)
    known = np.ones(clips, bool) if annotated is None else annotated
    return detections.Detections(
        [f"clip {i}" for i in range(clips)],
        scores.max(axis=1).astype(np.float32),
        np.array([events.weak(m, count) for m in marks], np.uint8),
        scores,
        seconds,
        [m if k else None for m, k in zip(marks, known, strict=True)],
        np.zeros(clips, np.float32),
        rate,
    )

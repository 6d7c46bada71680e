"""What the service and the page say about a model and a recording, as plain JSON values."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asjax.config import AsjaxError, printable
from asjax.predict.frames import medians_s, thresholds


def title(model) -> str:
    """A short name of a model for people: the folder, without the parts that say nothing."""
    path = Path(model)
    stem = path.stem if path.suffix.lower() == ".onnx" else path.name
    parts = [*path.absolute().parent.parts[1:], stem]
    while len(parts) > 1 and parts[-1] in ("model", "models", "runs"):
        parts.pop()
    return printable(parts[-1]) if parts else "model"


def about(tagger, name: str, **more) -> dict:
    """The classes and the input of a model: the answer to GET /labels, and the page's labels.json.

    Args:
      more: what only the caller knows, such as the file of the ONNX model.

    Returns: name, sample_rate, clip_s, activation, labels (name and id, in the order of the model);
      with frame scores also frames (a window), and for each class threshold and median_s.

    Raises:
      AsjaxError: the tuned decoding in the model's card is damaged.
    """
    labels = tagger.label_set
    found = {
        "name": name,
        "sample_rate": int(tagger.sample_rate),
        "clip_s": float(tagger.clip_s),
        "activation": tagger.activation,
        "label_set": labels.name,
        "labels": [{"name": n, "id": i} for n, i in zip(labels.names, labels.ids, strict=True)],
        "frames": int(tagger.frame_count),
        "embeds": bool(tagger.embeds),
    }
    if tagger.frame_count:
        stored = tagger.record.get("decoding")
        found["threshold"] = _numbers(thresholds(stored, len(labels)))
        found["median_s"] = _numbers(medians_s(stored, len(labels)))
    return found | more


def tags(tags, top: int, scores: bool = False) -> dict:
    """The answer to POST /tag.

    Args:
      tags: `predict.Tags`. top: the number of tags, of the recording and of each window.
      scores: in place of the tags of a window, the probabilities p of all classes in the order of
        GET /labels; also the logits of the whole recording.
    """
    found = {
        "file": printable(tags.file),
        "duration_s": round(float(tags.duration_s), 6),
        "tags": _listed(tags, tags.order(top), tags.clip),
        "windows": [],
    }
    for (begin, end), row in zip(tags.times, tags.windows, strict=True):
        times = {"start_s": round(float(begin), 6), "end_s": round(float(end), 6)}
        order = np.argsort(-row, kind="stable")[:top]
        said = {"p": _numbers(row)} if scores else {"tags": _listed(tags, order, row)}
        found["windows"].append(times | said)
    if scores:
        found["logits"] = _numbers(tags.logits)
    return found


def events(tags) -> list[dict]:
    """The events of the answer to POST /events. AsjaxError: the model has no frames."""
    return [
        {
            "onset_s": round(event.onset_s, 6),
            "offset_s": round(event.offset_s, 6),
            "label": event.label,
            "id": event.id,
            "p": _number(event.probability),
        }
        for event in tags.events()
    ]


def embedding(tags) -> dict:
    """The answer to POST /embed: the mean over the windows. AsjaxError: there is none."""
    return {
        "file": printable(tags.file),
        "duration_s": round(float(tags.duration_s), 6),
        "embedding": _numbers(tags.embedding),
    }


def top_of(text: str | None, classes: int) -> int:
    """The value of ?top=. AsjaxError: it is not a number from 1 up."""
    if text is None:
        return min(5, classes)
    if not text.isascii() or not text.isdigit() or int(text[:9]) < 1:
        raise AsjaxError(f"?top= must be a number of tags from 1 up, got {text[:40]!r}")
    return min(int(text[:9]), classes)


def _listed(tags, order, p) -> list[dict]:
    return [{"label": tags.labels[i], "id": tags.ids[i], "p": _number(p[i])} for i in order]


def _number(value) -> float:
    """A number with the 7 digits of float32."""
    return float(f"{float(value):.7g}")


def _numbers(values) -> list[float]:
    return [_number(value) for value in np.asarray(values).tolist()]

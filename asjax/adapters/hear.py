"""HEAR 2021: `hear-validator asjax.adapters.hear --model runs/quickstart/model`.

The interface is that of the HEAR rules. Audio is [n, t] at `sample_rate` in [-1, 1], as a torch
tensor or any array; the results are of the same kind. Timestamps are at most 50 ms apart. Where the
model's own frames are slower, they are repeated, and `frames_repeated` of the model is True.
"""

from __future__ import annotations

from asjax.adapters.core import Embedder, like
from asjax.config import AsjaxError

__all__ = ["get_scene_embeddings", "get_timestamp_embeddings", "load_model"]

HOP_S = 0.05  # the longest that HEAR allows


class Model:
    """What `load_model` returns: `sample_rate`, `scene_embedding_size`,
    `timestamp_embedding_size`."""

    def __init__(self, embedder: Embedder):
        self.embedder, self.sample_rate = embedder, embedder.sample_rate
        self.scene_embedding_size = embedder.size
        self.timestamp_embedding_size = embedder.frame_size
        self.frames_repeated = embedder.repeated


def load_model(model_file_path: str = "", *, batch_size: int = 16) -> Model:
    """The model of a folder. AsjaxError: none is given, or there is no model."""
    if not model_file_path:
        raise AsjaxError(
            "asjax has no built-in weights for HEAR; give a model folder, such as "
            "hear-validator asjax.adapters.hear --model runs/quickstart/model"
        )
    return Model(Embedder(model_file_path, step_s=HOP_S, batch_size=batch_size))


def get_scene_embeddings(audio, model: Model):
    """audio [n, t] -> float32 [n, scene_embedding_size]."""
    return like(model.embedder.clips(audio), audio)


def get_timestamp_embeddings(audio, model: Model):
    """audio [n, t] -> (float32 [n, T, timestamp_embedding_size], float32 [n, T] in milliseconds).

    A timestamp is the centre of its frame.
    """
    import numpy as np

    frames, times_s = model.embedder.frames(audio)
    stamps = np.tile((1000 * times_s).astype(np.float32), (len(frames), 1))
    return like(frames, audio), like(stamps, audio)

"""MTEB and its audio benchmark MAEB: `mteb.evaluate(encoder("runs/quickstart/model"), tasks)`.

Clips come in many lengths. Those below the model's window are rounded up to a quarter of a second
with zeros, so that a model of 5 s needs at most 20 programs.
"""

from __future__ import annotations

import numpy as np

from asjax.adapters.core import Embedder
from asjax.config import AsjaxError
from asjax.data import audio as files

__all__ = ["encoder", "meta"]

GRID_S = 0.25


def encoder(model, name: str | None = None, **settings):
    """An encoder of audio for `mteb.evaluate`, from a model folder.

    Args:
      model: see `Embedder`. settings: further arguments of `Embedder`.
      name: "organisation/model" for the results; default: asjax/ and the name of the family.

    Raises:
      AsjaxError: mteb is not installed; no model there.
    """
    try:
        from mteb.models.abs_encoder import AbsEncoder
    except ImportError:
        raise AsjaxError("mteb is not installed: pip install 'mteb[audio]'") from None
    embedder = Embedder(model, **{"grid_s": GRID_S, **settings})

    class AsjaxEncoder(_Audio, AbsEncoder):
        pass

    made = AsjaxEncoder(embedder)
    made.mteb_model_meta = meta(embedder, name)
    return made


class _Audio:
    """The calls that MTEB makes for audio."""

    def __init__(self, embedder: Embedder):
        self.embedder = self.model = embedder

    def get_audio_embeddings(self, inputs, show_progress_bar: bool = True, **_) -> np.ndarray:
        """float32 [N, D] of the clips of a DataLoader, each at its own length."""
        from tqdm.auto import tqdm

        inputs.collate_fn = _together
        found = []
        for batch in tqdm(inputs, disable=not show_progress_bar):
            found.append(self.embedder.clips([self._wave(clip) for clip in batch["audio"]]))
        return np.concatenate(found)

    def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None, **kw):
        """As `get_audio_embeddings`. AsjaxError: the task has no audio."""
        features = getattr(getattr(inputs, "dataset", None), "features", None)
        if features is not None and "audio" not in features:
            raise AsjaxError(
                f"the task {getattr(task_metadata, 'name', '')} has no column audio, and asjax "
                "embeds only audio"
            )
        return self.get_audio_embeddings(inputs, **kw)

    def _wave(self, clip) -> np.ndarray:
        """One channel at the model's rate: the mean of the channels, resampled by soxr."""
        wave = np.asarray(clip["array"], np.float32)
        if wave.ndim == 2:
            wave = wave.mean(axis=int(np.argmin(wave.shape)))
        return files.resample(wave, int(clip["sampling_rate"]), self.embedder.sample_rate)


def _together(rows: list[dict]) -> dict:
    """Rows of a data set as one batch of lists. Clips keep their rates."""
    return {key: [row[key] for row in rows] for key in rows[0]}


def meta(embedder: Embedder, name: str | None = None):
    """MTEB's `ModelMeta`: what the model folder knows. It states no licence and no training data,
    because a folder does not know which of MTEB's sets its clips came from."""
    import jax
    from mteb.models import ModelMeta

    tagger = embedder.tagger
    numbers = sum(np.size(leaf) for leaf in jax.tree.leaves(tagger.variables))
    return ModelMeta(
        loader=None,
        name=name or f"asjax/{type(tagger.model).__name__.lower()}",
        revision=(tagger.record.get("sha256") or {}).get("card.json", "unknown")[:40],
        release_date=None,
        languages=None,
        n_parameters=int(numbers),
        n_embedding_parameters=0,
        memory_usage_mb=round(4 * numbers / 2**20),
        max_tokens=None,
        embed_dim=embedder.size,
        license=None,
        open_weights=False,
        public_training_code=None,
        public_training_data=None,
        framework=["JAX"],
        similarity_fn_name="cosine",
        use_instructions=False,
        training_datasets=None,
        modalities=["audio"],
    )

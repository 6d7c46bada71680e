"""`asjax.load` and `Tagger`: audio files or waves -> tags, events in time, and embeddings."""

from asjax.predict.frames import Event
from asjax.predict.tagger import Tagger, load
from asjax.predict.tags import Tags

__all__ = ["Event", "Tagger", "Tags", "load"]

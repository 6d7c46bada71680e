"""`asjax.load` and `Tagger`: audio files or waves -> tags, events in time, and embeddings."""

from asjax.predict.ensemble import Ensemble, load
from asjax.predict.frames import Event
from asjax.predict.pretrained import from_pretrained
from asjax.predict.tagger import Tagger
from asjax.predict.tags import Tags

__all__ = ["Ensemble", "Event", "Tagger", "Tags", "from_pretrained", "load"]

"""The verbs that run a tagger over audio files: `tag` and `embed`."""

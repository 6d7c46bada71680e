"""The local service over HTTP, and the page for browsers: tags, events and embeddings of sounds."""

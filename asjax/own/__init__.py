"""Your own clips: from a CSV, a folder or a source to the parts of a config."""

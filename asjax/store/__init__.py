"""What a run leaves on disk, and the proof that it is whole."""

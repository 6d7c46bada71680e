"""From audio files and lists to batches."""

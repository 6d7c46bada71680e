"""The data pipeline: from audio files and lists to batches."""

"""Sources, draws and the grain pipeline."""

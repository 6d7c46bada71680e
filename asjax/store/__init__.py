"""The files of a run, and the checks that they are complete and unchanged."""

"""Other people's weight files, in and out."""

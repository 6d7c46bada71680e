"""Records of sets of any size, made in units: resumable, by many processes and machines."""

"""Read weight files that other code wrote, and write files that other code can load."""

"""From scores to numbers and a page."""

"""Tables and figures of the four papers from finished runs."""

"""Evaluation: forward pass over a data set, metrics of scores, ensembles, report page."""

"""`asjax logits`: the logits of models on data, stored as teachers, and files that others made."""

"""Operations in a form that is fast in XLA on CPU (see README.md)."""

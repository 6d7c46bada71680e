"""The forms of operations that XLA runs well on CPUs."""

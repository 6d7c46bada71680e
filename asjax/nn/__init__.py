"""Blocks that model families share; `forms` chooses the form in which they are traced."""

from asjax.nn.placement import forms  # noqa: F401 (public here)

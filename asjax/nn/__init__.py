"""Blocks that the model families share; `forms` selects CPU or accelerator code for them."""

from asjax.nn.placement import forms  # noqa: F401 (public here)

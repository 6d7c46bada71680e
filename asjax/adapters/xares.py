"""X-ARES: a file with these two lines is what its runner takes as the encoder.

    from asjax.adapters import xares
    QuickstartEncoder = xares.encoder("runs/quickstart/model", "QuickstartEncoder")

X-ARES names its results after the class, so every model needs a name of its own.
"""

from __future__ import annotations

from asjax.adapters.core import Embedder, like
from asjax.config import AsjaxError, quoted

__all__ = ["encoder"]


def encoder(model, name: str = "AsjaxEncoder", **settings) -> type:
    """A subclass of `torch.nn.Module` without arguments, from a model folder.

    An object has `sampling_rate`, `output_dim` and `hop_size_in_ms`, and takes waves [B, S] at its
    rate to frames [B, T, output_dim]. Clips may have any length. The model is loaded once, when the
    first object is made.

    Args:
      model: see `Embedder`. settings: further arguments of `Embedder`.
      name: of the class; X-ARES wants one that ends with "Encoder".

    Raises:
      AsjaxError: another name; torch is not installed.
    """
    if not str(name).isidentifier() or not str(name).endswith("Encoder"):
        raise AsjaxError(f"the name of an X-ARES encoder must end with Encoder, got {quoted(name)}")
    try:
        import torch
    except ImportError:
        raise AsjaxError(
            "an X-ARES encoder is a torch module, and torch is not installed: pip install xares"
        ) from None
    made = []

    def init(self):
        torch.nn.Module.__init__(self)
        if not made:
            made.append(Embedder(model, **settings))
        self.embedder = made[0]
        self.sampling_rate = self.embedder.sample_rate
        self.output_dim = self.embedder.frame_size
        self.hop_size_in_ms = 1000 * self.embedder.step_s

    def forward(self, audio):
        """audio [B, S] -> [B, T, output_dim] float32, on the device of `audio`."""
        with torch.no_grad():
            return like(self.embedder.frames(audio)[0], audio)

    return type(name, (torch.nn.Module,), {"__init__": init, "forward": forward})

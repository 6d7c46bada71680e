"""ASiT, a local-global audio spectrogram vision transformer (Atito et al. 2024), as a detector.

feats [B, T, 128] -> 16x16 patches, time-major -> class token, positions -> pre-norm encoder -> norm
-> class token and patches [B, 1 + T // 16 * 8, D] -> detector (nn/frames.py).

We reproduce two oddities of PretrainedSED's code, because its weights were trained with them.
First, the class token stays the first token, so the detector treats it as a time step before the
first patch. Second, the positions are a grid of 8 x 37 (frequency, time) from a pre-training on 592
frames. For any other length this grid is resized to (T // 16) x 8, as if its axes were time and
frequency. It is then added row by row to the tokens, which have all frequencies of a step together.
"""

from __future__ import annotations

import re

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from asjax.config import AsjaxError
from asjax.nn import frames, layers, resize, vit

VARIANTS = {"asit_base": dict(width=768, heads=12)}
FRONTENDS = {"asit_base": dict(name="asit_fbank128")}

_AT = r"model\.asit\."
# (pattern of the torch module or key, our path, kind): see asjax/weights/port.py
TORCH = (
    (_AT + r"cls_token", "cls_token", "param"),
    (_AT + r"pos_embed", "pos_embed", "param"),
    (_AT + r"patch_embed\.proj", "patches", "conv"),
    *vit.torch_blocks(_AT),
    (_AT + r"norm", "norm", "norm"),
    *frames.TORCH,
)
TORCH_SKIP = (_AT + r"(head|head_cls|head_recons)\..*",)  # heads of pre-training, a classifier
TORCH_HEAD, HEADLESS = frames.TORCH_HEAD, frames.HEADLESS


def from_other_names(weights: dict) -> dict:
    """Rename to PretrainedSED's names: from its backbone, or the authors' teacher (`backbone.`)."""
    bare = {re.sub(r"^(module\.)?(backbone\.)?", "", k): v for k, v in weights.items()}
    return frames.renamed(bare, "asit")


def rename_from_backbone(own: dict, weights: dict) -> dict:
    """State dict of a new model that starts from a checkpoint, see `frames.started`."""
    return frames.started(from_other_names(own), from_other_names(weights))


def torch_fields(weights: dict) -> dict:
    """The detector's fields, num_classes=0 for a bare backbone, and positions from the table."""
    weights = from_other_names(weights)
    fields = frames.torch_fields(weights) or {"num_classes": 0}
    places = np.shape(weights.get("model.asit.pos_embed"))
    if len(places) == 3:
        fields["positions"] = (places[1] - 1) // (Asit.n_mels // Asit.patch) * Asit.patch
    return fields


def model(variant: str, **over) -> Asit:
    """The linen module of a variant; `over` replaces fields (num_classes=447, sequence="gru")."""
    module = layers.make(Asit, VARIANTS, variant, over)
    if min(module.n_mels, module.positions) < module.patch:
        raise AsjaxError(
            f"ASiT needs at least {module.patch} mel bins and frames (one patch), got "
            f"n_mels={module.n_mels}, positions={module.positions}"
        )
    return frames.checked(module, "ASiT")


class Asit(nn.Module):
    """feats [B, T, n_mels] -> frame_embedding [B, 1 + T // 16 * (n_mels // 16), D] and the
    detector's logits, frame_logits and embedding.

    The tokens are the class token and then the patches, ordered by time and within a time step by
    frequency. Averaging to 250 outputs makes four outputs from the eight patches of a step, shifted
    by the class token. PretrainedSED's weights expect this.

    Args of the call:
      mask: [B, T], the frames of each clip, for the detector; the encoder does not mask padding.
      augment: a function on feats, applied first.
    Frames that do not fill a patch are dropped; input shorter than one patch is zero-padded.

    Attributes:
      positions: number of frames for which the table of positions was made (see above).
      num_classes ... head: see `frames.Detector`; num_classes=0 is the bare backbone.
      dropout, drop_path, scan_layers, remat, attention: see `vit.Encoder`; dropout also applies to
        the tokens.
    """

    width: int
    heads: int
    depth: int = 12
    mlp_ratio: float = 4.0
    n_mels: int = 128
    positions: int = 592
    patch: int = 16
    num_classes: int = 527
    weak_classes: int | None = None
    frames: int | None = 250
    sequence: str | None = None
    sequence_width: int = 2048
    sequence_depth: int = 2
    head: str = "linear"
    head_bias: float = 0.0
    dropout: float = 0.0
    drop_path: float = 0.0
    scan_layers: bool | None = None
    remat: bool = False
    attention: str = "auto"
    dtype: str = "float32"

    input_frames = 998  # 10 s, the input of the published detectors

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, for shape inference."""
        return (4 * self.patch, self.n_mels)

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None, mask=None):
        layers.check_feats(feats, self.n_mels, "ASiT")
        x = jnp.asarray(feats) if augment is None else augment(jnp.asarray(feats))
        x = self._tokens(layers.pad_frames(x, self.patch), train)
        x = vit.Encoder(
            depth=self.depth,
            heads=self.heads,
            mlp=int(self.width * self.mlp_ratio),
            dropout=self.dropout,
            drop_path=self.drop_path,
            scan_layers=self.scan_layers,
            remat=self.remat,
            attention=self.attention,
            dtype=self.dtype,
            name="encoder",
        )(x, train=train)
        x = layers.layer_norm("norm", "float32")(x.astype(jnp.float32))
        return frames.detect(self, x, mask=mask, train=train)

    def _tokens(self, x, train):
        """[B, T, F] -> class token and patches with positions, [B, 1 + t f, D]."""
        size = (self.patch, self.patch)
        clips, length, bins = x.shape
        x = vit.Patches(self.width, size, size, dtype=self.dtype, name="patches")(x)
        grid = x.shape[1:3]  # (t, f)
        cls = self.param("cls_token", vit.normal, (1, 1, self.width))
        old = (self.n_mels // self.patch, self.positions // self.patch)
        table = self.param("pos_embed", vit.normal, (1, 1 + old[0] * old[1], self.width))
        # The authors' code compares sizes in frames and bins, not in whole patches.
        if length * bins != old[0] * old[1] * self.patch**2:
            pairs = zip(old, grid, strict=True)
            rows, columns = (jnp.asarray(resize.bicubic(*p), jnp.float32) for p in pairs)
            places = table[0, 1:].reshape(*old, self.width)
            places = jnp.einsum("rf,ct,ftd->rcd", rows, columns, places, precision="highest")
            table = jnp.concatenate([table[:, :1], places.reshape(1, -1, self.width)], 1)
        cls = jnp.broadcast_to(cls.astype(x.dtype), (clips, 1, self.width))
        x = jnp.concatenate([cls, x.reshape(clips, -1, self.width)], 1) + table.astype(x.dtype)
        return nn.Dropout(self.dropout, deterministic=not train)(x)

"""ATST-Frame, a frame-level audio teacher-student transformer (Li, Shao & Li 2024).

feats [B, T, 64] -> patches of all bins and 4 frames -> positions -> pre-norm encoder without q, k,
v bias -> norm -> one token every 40 ms -> detector (nn/frames.py). There is no class token.
"""

from __future__ import annotations

import re

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from asjax.config import AsjaxError
from asjax.nn import frames, layers, vit

VARIANTS = {
    "atst_frame_small": dict(width=384, heads=6),
    "atst_frame_base": dict(width=768, heads=12),
}
FRONTENDS = {variant: dict(name="atst_frame_logmel64") for variant in VARIANTS}

_AT = r"model\.atst\."
# (pattern of the torch module or key, our path, kind): see asjax/weights/port.py
TORCH = (
    (_AT + r"mask_embed", "mask_embed", "param"),
    (_AT + r"pos_embed", "pos_embed", "param"),
    (_AT + r"patch_embed\.patch_embed", "patches", "linear"),
    *vit.torch_blocks(_AT),
    (_AT + r"norm_frame", "norm", "norm"),
    *frames.TORCH,
)
# mel tables; the heads of fine-tuned encoders, which differ from ours
TORCH_SKIP = (r".*\.mel_transform\..*", _AT + r"head\..*")
TORCH_HEAD, HEADLESS = frames.TORCH_HEAD, frames.HEADLESS

# prefix of the encoder in Lightning checkpoints: pre-trained, fine-tuned
_ROOTS = ("model.teacher.encoder.", "teacher.encoder.", "encoder.encoder.", "encoder.")
_PRETRAINING = r"(model\.)?(student\..*|teacher\.(projector|predictor)\..*)"


def from_other_names(weights: dict) -> dict:
    """Rename to PretrainedSED's names.

    The input may be its bare backbone or a Lightning checkpoint: the teacher of a pre-training, or
    the encoder of a fine-tuning.
    """
    root = next((r for r in _ROOTS if any(key.startswith(r) for key in weights)), "")
    out = {}
    for key, value in weights.items():
        if not re.fullmatch(_PRETRAINING, key):
            out[key.removeprefix(root)] = value
    return frames.renamed(out, "atst")


def rename_from_backbone(own: dict, weights: dict) -> dict:
    """State dict of a new model that starts from a checkpoint, see `frames.started`."""
    return frames.started(from_other_names(own), from_other_names(weights))


def torch_fields(weights: dict) -> dict:
    """The detector's fields, num_classes=0 for a bare backbone, input_frames from positions."""
    weights = from_other_names(weights)
    fields = frames.torch_fields(weights) or {"num_classes": 0}
    places = np.shape(weights.get("model.atst.pos_embed"))
    if len(places) == 3 and places[1] != 1 + AtstFrame.input_frames // 4:
        fields["input_frames"] = 4 * (places[1] - 1)
    return fields


def model(variant: str, **over) -> AtstFrame:
    """The linen module of a variant; `over` replaces fields (num_classes=447, sequence="gru")."""
    module = layers.make(AtstFrame, VARIANTS, variant, over)
    bins, step = module.patch
    if module.n_mels < bins or module.input_frames < step:
        raise AsjaxError(
            f"ATST-Frame patch={module.patch} must fit into n_mels={module.n_mels} and "
            f"input_frames={module.input_frames}"
        )
    return frames.checked(module, "ATST-Frame")


class AtstFrame(nn.Module):
    """feats [B, T, n_mels] -> frame_embedding [B, S, D], S = T // 4, and the detector's logits,
    frame_logits and embedding.

    Args of the call:
      feats: at most `input_frames` frames, because there are no more positions. Frames that do not
        fill a patch are dropped; input shorter than one patch is zero-padded.
      mask: [B, T], the frames of each clip, for the detector. The encoder does not mask padding, as
        in PretrainedSED.
      masked: bool [B, S], tokens to replace by `mask_embed`, as in the pre-training.
      augment: a function on feats, applied first.

    Attributes:
      patch: bins and frames of a patch.
      input_frames: 1001 frames are 10 s; the first position of the table is not used.
      num_classes ... head: see `frames.Detector`; num_classes=0 is the bare backbone.
      dropout, drop_path, scan_layers, remat, attention: see `vit.Encoder`; dropout also applies to
        the tokens.
    """

    width: int
    heads: int
    depth: int = 12
    mlp_ratio: float = 4.0
    n_mels: int = 64
    input_frames: int = 1001
    patch: tuple[int, int] = (64, 4)
    qkv_bias: bool = False
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

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, for shape inference."""
        return (16 * self.patch[1], self.n_mels)

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None, mask=None, masked=None):
        layers.check_feats(feats, self.n_mels, "ATST-Frame")
        x = jnp.asarray(feats) if augment is None else augment(jnp.asarray(feats))
        x = self._tokens(layers.pad_frames(x, self.patch[1]), masked, train)
        x = vit.Encoder(
            depth=self.depth,
            heads=self.heads,
            mlp=int(self.width * self.mlp_ratio),
            qkv_bias=self.qkv_bias,
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

    def _tokens(self, x, masked, train):
        """[B, T, F] -> patches by time and frequency, with positions, [B, S, D]."""
        rows, cols = self.patch
        b, t, f = x.shape[0], x.shape[1] // cols, x.shape[2] // rows
        high = self.n_mels // rows
        places = high * (self.input_frames // cols)
        if t * f > places:
            raise AsjaxError(
                f"ATST-Frame has positions for {self.input_frames} frames, got {x.shape[1]}; cut "
                "the audio into shorter clips"
            )
        x = x[:, : t * cols, : f * rows].reshape(b, t, cols, f, rows).transpose(0, 1, 3, 4, 2)
        x = x.reshape(b, t * f, rows * cols).astype(self.dtype)  # a patch is stored by frequency
        x = layers.Dense(self.width, kernel_init=vit.normal, dtype=self.dtype, name="patches")(x)
        blank = self.param("mask_embed", vit.normal, (1, 1, self.width))
        if masked is not None:
            x = jnp.where(masked[..., None], blank.astype(x.dtype), x)
        table = self.param("pos_embed", vit.normal, (1, 1 + places, self.width))
        x = x + table[:, 1 : 1 + t * f].astype(x.dtype)
        return nn.Dropout(self.dropout, deterministic=not train)(x)

"""M2D, masked modeling duo (Niizumi et al. 2023, 2024): its encoder on an 80-bin mel.

feats [B, T, 80] -> units of 1001 frames -> 16x16 patches, frequency-major -> positions, class token
-> pre-norm encoder -> norm -> drop the class token -> concatenate the patches of each time step,
lowest frequency first, [B, T // 16, 5 * 768] -> detector (nn/frames.py).
"""

from __future__ import annotations

import functools
import re

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from asjax.config import AsjaxError
from asjax.nn import frames, layers, vit

VARIANTS = {"m2d_base": dict(width=768, heads=12)}
FRONTENDS = {"m2d_base": dict(name="m2d_logmel80")}
NORM_STATS = (-7.1, 4.2)  # mean and deviation of the log-mel if a checkpoint has none

_AT = r"model\.m2d\.backbone\."
# (pattern of the torch module or key, our path, kind): see asjax/weights/port.py
TORCH = (
    (_AT + r"cls_token", "cls_token", "param"),
    (_AT + r"pos_embed", "pos_embed", "param"),
    (_AT + r"norm_stats", "norm_stats", "param"),
    (_AT + r"patch_embed\.proj", "patches", "conv"),
    *vit.torch_blocks(_AT),
    (_AT + r"norm", "norm", "norm"),
    *frames.TORCH,
)
# the frontend's tables; extra networks of the pre-training (decoder, target network, projections of
# M2D-CLAP and M2D-S); the head of EVAR's fine-tuning
TORCH_SKIP = (
    r"model\.m2d\.to_spec\..*",
    _AT + r"(mask_token|logit_scale|decoder_\w+|target_\w+|offline_\w+)(\..*)?",
    _AT + r"(audio_proj|text_proj|text_encoder|head|ar)\..*",
)
TORCH_HEAD, HEADLESS = frames.TORCH_HEAD, frames.HEADLESS


def from_other_names(weights: dict) -> dict:
    """Rename to PretrainedSED's names, and add norm_stats if they are missing.

    The input may be its backbone, an authors' checkpoint (no prefix) or one of EVAR's fine-tuning
    (`module.ar.runtime.backbone.`).
    """
    out = {}
    for key, value in weights.items():
        key = re.sub(r"^(module\.)?(ar\.runtime\.backbone\.)?", "", key)
        if not re.match(r"(model\.)*(m2d\.)?(backbone|to_spec)\.", key) and not any(
            re.fullmatch(pattern, key) for pattern in TORCH_HEAD
        ):
            key = f"backbone.{key}"
        out[key] = value
    out = frames.renamed(out, "m2d")
    out.setdefault("model.m2d.backbone.norm_stats", np.array(NORM_STATS, np.float32))
    return out


def rename_from_backbone(own: dict, weights: dict) -> dict:
    """State dict of a new model that starts from a checkpoint, see `frames.started`."""
    return frames.started(from_other_names(own), from_other_names(weights))


def torch_fields(weights: dict) -> dict:
    """The detector's fields, num_classes=0 for a bare backbone, patch and input_frames.

    The last two follow from the shapes of the patch kernel and of the positions.
    """
    weights = from_other_names(weights)
    fields = frames.torch_fields(weights) or {"num_classes": 0}
    kernel = np.shape(weights.get("model.m2d.backbone.patch_embed.proj.weight"))
    places = np.shape(weights.get("model.m2d.backbone.pos_embed"))
    if len(kernel) == 4 and len(places) == 3:
        bins, step = fields["patch"] = kernel[2:]
        count = (places[1] - 1) // max(1, M2d.n_mels // bins)
        if count != M2d.input_frames // step:
            fields["input_frames"] = count * step
    return fields


def model(variant: str, **over) -> M2d:
    """The linen module of a variant; `over` replaces fields (num_classes=447, sequence="gru")."""
    module = layers.make(M2d, VARIANTS, variant, over)
    bins, step = module.patch
    if module.n_mels < bins or module.input_frames < step:
        raise AsjaxError(
            f"M2D patch={module.patch} must fit into n_mels={module.n_mels} and "
            f"input_frames={module.input_frames}"
        )
    return frames.checked(module, "M2D")


class M2d(nn.Module):
    """feats [B, T, n_mels] -> frame_embedding [B, S, n_mels // 16 * D] and the detector's logits,
    frame_logits and embedding.

    Args of the call:
      feats: any length. They are cut into units of `input_frames`, which are encoded separately.
        The last unit is zero-padded to whole patches. A full unit of 1001 frames has 62 patches in
        time, so its last 9 frames have no effect, as in the authors' code.
      mask: [B, T], the frames of each clip, for the detector; the encoder does not mask padding.
      augment: a function on feats, applied first.

    Attributes:
      patch: bins and frames of a patch.
      input_frames: frames of a unit, for which there are positions.
      num_classes ... head: see `frames.Detector`; num_classes=0 is the bare backbone.
      dropout, drop_path, scan_layers, remat, attention: see `vit.Encoder`; dropout also applies to
        the tokens.
    """

    width: int
    heads: int
    depth: int = 12
    mlp_ratio: float = 4.0
    n_mels: int = 80
    input_frames: int = 1001
    patch: tuple[int, int] = (16, 16)
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
        return (4 * self.patch[1], self.n_mels)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of a unit along frequency and along time."""
        return self.n_mels // self.patch[0], self.input_frames // self.patch[1]

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None, mask=None):
        layers.check_feats(feats, self.n_mels, "M2D")
        x = jnp.asarray(feats) if augment is None else augment(jnp.asarray(feats))
        encode = functools.partial(self._encode, *self._parts(), train)
        full, rest = divmod(x.shape[1], self.input_frames)
        parts = []
        if full:  # treat the units of a clip as separate clips
            units = x[:, : full * self.input_frames].reshape(-1, self.input_frames, self.n_mels)
            parts.append(encode(units).reshape(x.shape[0], -1, self.grid[0] * self.width))
        if rest:
            whole = -(-rest // self.patch[1]) * self.patch[1]
            last = layers.pad_frames(x[:, full * self.input_frames :], whole)
            parts.append(encode(last[:, : self.input_frames]))
        return frames.detect(self, jnp.concatenate(parts, 1), mask=mask, train=train)

    def _parts(self):
        """Parts that all units share: class token, positions, patches, encoder, norm, dropout."""
        stats = lambda key, shape: jnp.asarray(NORM_STATS)  # noqa: E731
        self.param("norm_stats", stats, (2,))  # stored only for the authors' code
        count = 1 + self.grid[0] * self.grid[1]
        encoder = vit.Encoder(
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
        )
        return (
            self.param("cls_token", vit.normal, (1, 1, self.width)),
            self.param("pos_embed", vit.normal, (1, count, self.width)),
            vit.Patches(self.width, self.patch, self.patch, dtype=self.dtype, name="patches"),
            encoder,
            layers.layer_norm("norm", "float32"),
            nn.Dropout(self.dropout),
        )

    def _encode(self, cls, places, patches, encoder, norm, dropout, train, x):
        """[B, T, F] -> [B, T // 16, F // 16 * D], for at most one unit."""
        high, wide = self.grid
        x = patches(x.swapaxes(1, 2))  # [B, f, t, D]
        clips, _, count, width = x.shape
        grid = places[:, 1:].reshape(1, high, wide, width)[:, :, :count]
        x = (x + grid.astype(x.dtype)).reshape(clips, -1, width)
        cls = jnp.broadcast_to((cls + places[:, :1]).astype(x.dtype), (clips, 1, width))
        x = encoder(dropout(jnp.concatenate([cls, x], 1), deterministic=not train), train=train)
        x = norm(x.astype(jnp.float32))[:, 1:].reshape(clips, high, count, width)
        return x.swapaxes(1, 2).reshape(clips, count, -1)

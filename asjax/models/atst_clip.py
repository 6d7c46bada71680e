"""ATST-Clip, a clip-level audio teacher-student transformer (Li et al. 2022, 2024).

feats [B, T, 64] normalised -> chunks of 601 frames -> patches of all bins and 4 frames -> class
token, positions -> pre-norm encoder without q, k, v bias -> norm of the tokens of the last 12
blocks -> class tokens and mean tokens, averaged over chunks, concatenated -> batch norm, linear.
"""

from __future__ import annotations

import re

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from asjax.nn import layers, vit

VARIANTS = {
    "atst_clip_small": dict(width=384, heads=6),
    "atst_clip_base": dict(width=768, heads=12),
}
FRONTENDS = {variant: dict(name="atst_logmel64") for variant in VARIANTS}

# (pattern of the torch module or key, our path, kind): see asjax/weights/port.py
TORCH = (
    (r"cls_token", "cls_token", "param"),
    (r"pos_embed", "pos_embed", "param"),
    (r"patch_embed\.patch_embed", "patches", "linear"),
    *vit.torch_blocks(),
    (r"norm", "norm", "norm"),
    (r"head\.norm", "head_norm", "norm"),
    (r"head\.linear", "head", "linear"),
)
TORCH_SKIP = (r"mask_embed",)  # replaces masked patches in ATST-Frame's pre-training
HEADLESS = "give num_classes=0 for the features without a head"

# prefix of the encoder in the authors' checkpoints: Lightning's fine-tuned, pre-trained, others
_ROOTS = ("encoder.encoder.", "model.teacher.encoder.", "teacher.encoder.", "encoder.", "backbone.")
_PRETRAINING = r"(model\.)?(student|teacher\.(projector|predictor))\..*"


def from_other_names(weights: dict) -> dict:
    """Rename the authors' checkpoints to a bare encoder with its head.

    A pre-training gives its teacher (Lightning's, or the first repository's `backbone.`), a
    fine-tuning its encoder and head.
    """
    out = {}
    for key, value in weights.items():
        if not re.fullmatch(_PRETRAINING, key):
            root = next((r for r in _ROOTS if key.startswith(r)), "")
            out[key.removeprefix(root)] = value
    return out


def torch_fields(weights: dict) -> dict:
    """num_classes=0 for a bare encoder; frames and blocks_used if they are not the defaults."""
    weights = from_other_names(weights)
    shape = lambda key: np.shape(weights.get(key))  # noqa: E731
    fields = {} if "head.linear.weight" in weights else {"num_classes": 0}
    if len(shape("pos_embed")) == 3 and shape("pos_embed")[1] != 251:
        fields["frames"] = 4 * (shape("pos_embed")[1] - 1)
    if len(shape("head.linear.weight")) == 2 and len(shape("norm.weight")) == 1:
        fields["blocks_used"] = shape("head.linear.weight")[1] // (2 * shape("norm.weight")[0])
    return fields


def model(variant: str, **over) -> AtstClip:
    """The linen module of a variant; `over` replaces fields (num_classes=50, ...)."""
    module = layers.make(AtstClip, VARIANTS, variant, over)
    bins, frames = module.patch
    if not 1 <= module.blocks_used <= module.depth:
        raise layers.AsjaxError(
            f"ATST-Clip blocks_used must be in 1..{module.depth} (depth), got {module.blocks_used}"
        )
    if module.n_mels < bins or not frames <= module.chunk_frames <= module.frames:
        raise layers.AsjaxError(
            f"ATST-Clip patch={module.patch} must fit into n_mels={module.n_mels} and "
            f"chunk_frames={module.chunk_frames}, and chunk_frames into frames={module.frames}"
        )
    return module


class AtstClip(nn.Module):
    """ATST-Clip on a normalised mel of any length.

    Args of the call:
      feats: [B, T, n_mels]. The input is cut into chunks of `chunk_frames`. Frames that do not fill
        a patch are dropped.
      lengths: [B], true frames of each clip, at most T (the default).
      augment: a function [B, T, F] -> [B, T, F], applied first.

    Attention and means skip patches that are not completely within a clip's length. A chunk after
    the first counts in the clip's average only if more than half a chunk of the clip remains. The
    sum of a chunk's tokens is divided by the number of patches from this chunk to the clip's end:
    for 10 s, the mean token of the first chunk is the sum of 150 tokens over 250. The original does
    this too, and its heads were trained with it.

    Returns:
      embedding: [B, 2 * blocks_used * D], the class tokens of the last `blocks_used` blocks in
        order, then their mean tokens, each after the final norm.
      logits: float32 [B, num_classes]; absent if num_classes is 0.
      frame_embedding: [B, T', D], the patch tokens of the last block after the final norm, 40 ms
        apart and zero beyond a clip's length. It is the mean over frequency if there are several
        patches per time step.

    Attributes:
      num_classes: 0 builds the encoder without a head.
      blocks_used: number of last blocks whose tokens form the embedding.
      chunk_frames: 601 frames are the 6 s of the pre-training.
      frames: positions are learned for frames // patch[1] patches.
      patch: bins and frames of a patch; the mel is cut to whole patches.
      dropout, drop_path, scan_layers, remat, attention: see `vit.Encoder`; dropout also applies to
        the tokens.
    """

    width: int
    heads: int
    depth: int = 12
    mlp_ratio: float = 4.0
    num_classes: int = 527
    blocks_used: int = 12
    n_mels: int = 64
    frames: int = 1001
    chunk_frames: int = 601
    patch: tuple[int, int] = (64, 4)
    qkv_bias: bool = False
    dropout: float = 0.0
    drop_path: float = 0.1
    scan_layers: bool | None = None
    remat: bool = False
    attention: str = "auto"
    dtype: str = "float32"

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, for shape inference."""
        return (16 * self.patch[1], self.n_mels)

    @nn.compact
    def __call__(self, feats, *, lengths=None, train: bool = False, augment=None):
        layers.check_feats(feats, self.n_mels, "ATST-Clip")
        x = feats if augment is None else augment(feats)
        bins, step = self.n_mels // self.patch[0], self.patch[1]
        clips, frames = x.shape[:2]
        if lengths is not None and jnp.shape(lengths) != (clips,):
            raise layers.AsjaxError(
                f"ATST-Clip lengths must be [{clips}] (frames of each clip), got shape "
                f"{jnp.shape(lengths)}"
            )
        full, rest = divmod(frames, self.chunk_frames)
        chunks = max(1, full + (rest >= step))  # chunks with at least one patch
        x = self._chunked(layers.pad_frames(x, step), chunks)  # [B * chunks, T, F]
        starts = self.chunk_frames * jnp.arange(chunks)
        whole = jnp.minimum(frames if lengths is None else jnp.asarray(lengths), frames)
        whole = jnp.broadcast_to(whole, (clips,))
        left = jnp.maximum(whole[:, None] - starts[None], 0)  # [B, chunks] frames
        patches = (bins * (left // step)).reshape(-1, 1)
        counts = (left > self.chunk_frames // 2) | (jnp.arange(chunks)[None] == 0)

        x = self._tokens(x, train)
        own = jnp.arange(x.shape[1] - 1)[None] < patches  # [B * chunks, S - 1]: in the clip
        hidden = lengths is not None or chunks > 1 or frames < step
        mask = jnp.pad(own, ((0, 0), (1, 0)), constant_values=True)[:, None, None]
        _, every = vit.Encoder(
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
        )(x, train=train, collect=True, mask=mask if hidden else None)
        every = every[-self.blocks_used :].astype(jnp.float32)
        every = layers.layer_norm("norm", "float32")(every)  # [n, B * chunks, S, D]
        kept = jnp.where(own[None, :, :, None], every[:, :, 1:], 0)
        mean = kept.sum(2) / (patches[None] + 1e-6)
        both = jnp.stack([every[:, :, 0], mean])  # [2, n, B * chunks, D]
        both = both.reshape(2, self.blocks_used, clips, chunks, self.width)
        both = (both * counts[None, None, :, :, None]).sum(3) / counts.sum(1)[None, None, :, None]
        embedding = jnp.moveaxis(both, 2, 0).reshape(clips, -1)
        times = kept[-1].reshape(clips, chunks, -1, bins, self.width).mean(3)
        times = times.reshape(clips, -1, self.width)
        times = times[:, : max(1, full * (self.chunk_frames // step) + rest // step)]
        out = {"embedding": embedding, "frame_embedding": times}
        if self.num_classes:
            y = layers.BatchNorm(affine=False, name="head_norm")(embedding, train)
            start = nn.initializers.normal(0.01)
            out["logits"] = layers.Dense(self.num_classes, kernel_init=start, name="head")(y)
        return out

    def _chunked(self, x, chunks: int):
        """[B, T, F] -> [B * chunks, chunk_frames, F], zero-padded; one chunk is not padded."""
        if chunks == 1:
            return x[:, : self.chunk_frames]
        whole = chunks * self.chunk_frames
        x = layers.pad_frames(x[:, :whole], whole)
        return x.reshape(-1, self.chunk_frames, x.shape[-1])

    def _tokens(self, x, train):
        """[B, T, F] -> class token, then patches by time and frequency, [B, 1 + S, D]."""
        rows, cols = self.patch
        b, t, f = x.shape[0], x.shape[1] // cols, x.shape[2] // rows
        x = x[:, : t * cols, : f * rows].reshape(b, t, cols, f, rows).transpose(0, 1, 3, 4, 2)
        x = x.reshape(b, t * f, rows * cols).astype(self.dtype)  # a patch is stored by frequency
        x = layers.Dense(self.width, kernel_init=vit.normal, dtype=self.dtype, name="patches")(x)
        cls = self.param("cls_token", vit.normal, (1, 1, self.width))
        count = 1 + (self.n_mels // rows) * (self.frames // cols)
        places = self.param("pos_embed", vit.normal, (1, count, self.width))
        cls = jnp.broadcast_to(cls, (b, 1, self.width)).astype(x.dtype)
        x = jnp.concatenate([cls, x], 1) + places[:, : 1 + t * f].astype(x.dtype)
        return nn.Dropout(self.dropout, deterministic=not train)(x)

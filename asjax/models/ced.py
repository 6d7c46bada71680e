"""CED, consistent ensemble distillation (Dinkel et al. 2023): plain ViTs on a 64-bin mel.

feats [B, T, 64] in dB -> batch norm over the bins -> chunks of 1012 frames -> 16x16 patches,
frequency-major, + one embedding for a patch's time and one for its frequency -> pre-norm encoder
-> norm -> mean of the tokens -> norm, head, or the detector of nn/frames.py.

The authors' recipe masks the raw dB with zeros before the norm. Here `augment` runs after the norm,
where zero is the mean.
"""

from __future__ import annotations

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from asjax.nn import frames, layers, vit

# width and heads of the published models
VARIANTS = {
    "ced_tiny": dict(width=192, heads=3),
    "ced_mini": dict(width=256, heads=4),
    "ced_small": dict(width=384, heads=6),
    "ced_base": dict(width=768, heads=12),
}
FRONTENDS = {variant: dict(name="ced_logmel64") for variant in VARIANTS}

_channels_last = (lambda x: np.transpose(x, (0, 2, 3, 1)), lambda x: np.transpose(x, (0, 3, 1, 2)))

# (pattern of the torch module or key, our path, kind): see asjax/weights/port.py
TORCH = (
    (r"init_bn\.1", "bn0", "norm"),
    (r"time_pos_embed", "time_pos_embed", _channels_last),
    (r"freq_pos_embed", "freq_pos_embed", _channels_last),
    (r"cls_token", "cls_token", "param"),
    (r"token_pos_embed", "token_pos_embed", "param"),
    (r"patch_embed\.proj", "patches", "conv"),
    *vit.torch_blocks(),
    (r"norm", "norm", "norm"),
    (r"outputlayer\.0", "head_norm", "norm"),
    (r"outputlayer\.1", "head", "linear"),
    *frames.TORCH,
)
TORCH_SKIP = (r"front_end\..*",)


def from_other_names(weights: dict) -> dict:
    """Rename Hugging Face's names (mispeech/ced-*) to the authors'.

    They have `encoder.` before all but the head, and the input norm is not in a sequence.
    """

    def renamed(key):
        return re.sub(r"^init_bn\.(?=[a-z])", "init_bn.1.", re.sub(r"^encoder\.", "", key))

    return {renamed(k): v for k, v in weights.items()}


def torch_fields(weights: dict) -> dict:
    """n_mels, chunk_frames, pooling and the detector's fields; assumes strides of a whole patch."""
    weights = from_other_names(weights)
    bins, time = (np.shape(weights.get(k)) for k in ("init_bn.1.weight", "time_pos_embed"))
    fields = dict(n_mels=bins[0]) if len(bins) == 1 else {}
    if len(time) == 4 and time[-1] != Ced.chunk_frames // 16:
        fields["chunk_frames"] = 16 * time[-1]
    fields |= frames.torch_fields(weights)
    return {**fields, "pooling": "token"} if "cls_token" in weights else fields


def model(variant: str, **over) -> Ced:
    """The linen module of a variant; `over` replaces fields (num_classes=50, ...)."""
    module = layers.make(Ced, VARIANTS, variant, over)
    for name, value, known in (
        ("pooling", module.pooling, ("mean", "logit", "dm", "token")),
        ("chunk_pooling", module.chunk_pooling, ("mean", "max")),
    ):
        if value not in known:
            raise layers.unknown(f"CED {name}", value, known)
    pair = module.strides
    if len(pair) != 2 or not all(isinstance(s, int) and s > 0 for s in pair):
        raise layers.AsjaxError(
            f"CED stride must be a positive integer or a pair (frequency, time), got {pair!r}"
        )
    if min(module.n_mels, module.chunk_frames) < module.patch:
        raise layers.AsjaxError(
            f"CED needs at least {module.patch} mel bins and frames (one patch), got "
            f"n_mels={module.n_mels}, chunk_frames={module.chunk_frames}"
        )
    if module.n_mels // pair[0] != (module.n_mels - module.patch) // pair[0] + 1:
        raise layers.AsjaxError(
            f"CED has n_mels // stride = {module.n_mels // pair[0]} frequency embeddings, but "
            f"{module.n_mels} bins, patch={module.patch} and stride={pair[0]} give "
            f"{(module.n_mels - module.patch) // pair[0] + 1} patches; choose stride={module.patch}"
        )
    return frames.checked(module, "CED", off=True)


class Ced(nn.Module):
    """A CED on a mel spectrogram in dB, of any length.

    Args of the call:
      feats: [B, T, n_mels]. Frames that do not fill a patch are dropped; input shorter than one
        patch is zero-padded after the norm. Longer input than `chunk_frames` is cut into chunks.
        The last chunk is zero-padded after the norm, and its padding tokens count, as in the
        original. A clip's probability is the mean over its chunks. The original also drops a last
        chunk that is full (2024 frames count as 1012); we keep it.
      augment: a function [B, T, F] -> [B, T, F], applied after the batch norm.
      mask: [B, T], the frames of each clip; only with a detector.

    Returns:
      logits: float32 [B, num_classes]; their sigmoid is the original's output.
      embedding: [B, D], the mean over chunks of the head's input.
      frame_embedding: [B, T', D], the mean over frequency of the final tokens. It covers the true
        frames, 63 steps in a full chunk.
      frame_logits: [B, T', num_classes], only for pooling="dm".
    With `frames` a detector replaces the head: see `frames.Detector` for its fields and outputs.

    Attributes:
      chunk_frames: longest input without cutting; there are chunk_frames // 16 time embeddings.
      stride: bins and frames between patches; a pair is (frequency, time).
      pooling: "mean" of the tokens; "logit", the same but chunks are averaged as logits, not as
        probabilities (the authors' training mode); "token", a class token; "dm", the mean over time
        of probabilities.
      chunk_pooling: "mean" or "max" over the chunks of a clip.
      dropout, drop_path, scan_layers, remat, attention: see `vit.Encoder`; dropout also applies to
        the tokens. The authors use neither dropout nor drop_path.
    """

    width: int
    heads: int
    depth: int = 12
    mlp_ratio: float = 4.0
    num_classes: int = 527
    n_mels: int = 64
    chunk_frames: int = 1012
    patch: int = 16
    stride: int | tuple[int, int] = 16
    pooling: str = "mean"
    chunk_pooling: str = "mean"
    qkv_bias: bool = True
    dropout: float = 0.0
    drop_path: float = 0.0
    scan_layers: bool | None = None
    remat: bool = False
    attention: str = "auto"
    frames: int | None = None
    weak_classes: int | None = None
    sequence: str | None = None
    sequence_width: int = 2048
    sequence_depth: int = 2
    head: str = "linear"
    dtype: str = "float32"

    @property
    def input_frames(self) -> int:
        """Number of frames for which there are positions."""
        return self.chunk_frames

    @property
    def strides(self) -> tuple[int, int]:
        """Bins and frames between patches."""
        return (self.stride,) * 2 if isinstance(self.stride, int) else tuple(self.stride)

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, for shape inference."""
        return (4 * self.patch, self.n_mels)

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None, mask=None):
        layers.check_feats(feats, self.n_mels, "CED")
        frames.check_mask(mask, self, "CED")
        x = layers.BatchNorm(momentum=0.99, name="bn0")(feats, train)
        x = x if augment is None else augment(x)
        clips, length = x.shape[:2]
        chunks = -(-length // self.chunk_frames)
        if chunks > 1:
            x = layers.pad_frames(x, chunks * self.chunk_frames)
            x = x.reshape(clips, chunks, self.chunk_frames, -1).swapaxes(0, 1)
            # the chunks of a clip are `clips` rows apart
            x = x.reshape(chunks * clips, self.chunk_frames, -1)
        x = layers.pad_frames(x, self.patch)
        x, (bins, count) = self._tokens(x.swapaxes(1, 2), train)
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
        over_time = x[:, -bins * count :].reshape(-1, bins, count, self.width).mean(1)
        by_clip = lambda x: x.reshape(chunks, clips, *x.shape[1:]).swapaxes(0, 1)  # noqa: E731
        rest = length - (chunks - 1) * self.chunk_frames  # true frames of the last chunk
        true = (chunks - 1) * count + max(0, (rest - self.patch) // self.strides[1] + 1)
        joined = lambda x: by_clip(x).reshape(clips, -1, x.shape[-1])[:, : max(1, true)]  # noqa: E731
        if self.frames:
            return frames.detect(self, joined(over_time), mask=mask, train=train)
        embedding = x[:, 0] if self.pooling == "token" else x.mean(1)
        y = over_time if self.pooling == "dm" else embedding
        y = layers.layer_norm("head_norm", "float32", 1e-5)(y)
        y = layers.Dense(self.num_classes, kernel_init=vit.normal, name="head")(y)
        out = {"embedding": by_clip(embedding).mean(1), "frame_embedding": joined(over_time)}
        if self.pooling == "dm":
            out["frame_logits"] = joined(y)
            y = _mean_probability(y)
        y = by_clip(y)
        if self.chunk_pooling == "max":
            y = y.max(1)
        else:
            y = y.mean(1) if self.pooling == "logit" else _mean_probability(y)
        return {"logits": y, **out}

    def _tokens(self, x, train):
        """Spectrogram [B, F, T] -> tokens [B, S, D] with positions, and the grid (f, t)."""
        size = (self.patch, self.patch)
        x = vit.Patches(self.width, size, self.strides, dtype=self.dtype, name="patches")(x)
        batch, bins, count, _ = x.shape
        sf, st = self.strides
        start = nn.initializers.normal(0.02)
        time = self.param("time_pos_embed", start, (1, 1, self.chunk_frames // st, self.width))
        freq = self.param("freq_pos_embed", start, (1, self.n_mels // sf, 1, self.width))
        x = (x + time[:, :, :count].astype(x.dtype) + freq.astype(x.dtype)).reshape(
            batch, bins * count, self.width
        )
        if self.pooling == "token":
            cls = self.param("cls_token", nn.initializers.normal(1e-6), (1, 1, self.width))
            cls = cls + self.param("token_pos_embed", start, (1, self.width))[None]
            cls = jnp.broadcast_to(cls, (batch, 1, self.width))
            x = jnp.concatenate([cls.astype(x.dtype), x], 1)
        return nn.Dropout(self.dropout, deterministic=not train)(x), (bins, count)


def _mean_probability(logits):
    """Log-odds of the mean over axis 1 of sigmoid(logits), without forming probabilities."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    yes, no = (jax.nn.logsumexp(jax.nn.log_sigmoid(x), 1) for x in (logits, -logits))
    return yes - no

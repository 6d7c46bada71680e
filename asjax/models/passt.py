"""PaSST (Koutini et al. 2022): a DeiT on log-mel patches that drops patches in training.

feats [B, T, F] -> 16x16 patches, overlapping -> + time and frequency encodings -> patchout (in
training) -> [cls, dist, patches] -> pre-norm blocks -> norm -> (cls + dist) / 2 -> norm -> head.

The authors' augmentation of features (of `passt_mel128`) is `specaug(time_width=192,
time_stripes=1, freq_width=48, freq_stripes=1, law='torchaudio', per_batch=True, fill=0.9) |
mixup(alpha=0.3, style='passt')`. The fill is 0.9 because they mask with 0 before (x + 4.5) / 5.
Their augmentation of waves is gain, roll and `mixup(alpha=2, rate=0.5, style='passt',
remove_mean=True)`.
"""

from __future__ import annotations

import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from asjax.config import AsjaxError, unknown
from asjax.models._passt_imagenet import (  # noqa: F401 (public here)
    init_from_imagenet,
)
from asjax.nn import layers, vit

# frames: the length of the time encodings. The published recipes drop 40 columns and 4 rows of
# PaSST-S (s_patchout_t, s_patchout_f), or 400 patches.
VARIANTS = {
    "passt_s": dict(frames=998),
    "passt_l": dict(frames=998, depth=7),
    "passt_u": dict(frames=998, u_patchout=400),
    "passt_s_20s": dict(frames=2000),
    "passt_s_30s": dict(frames=3000),
    "passt_s_hop100": dict(frames=3200),
    "passt_s_hop160": dict(frames=2000),
}

FRONTENDS = {
    **{variant: dict(name="passt_mel128") for variant in VARIANTS},
    "passt_s_hop100": dict(name="passt_mel128_hop100"),
    "passt_s_hop160": dict(name="passt_mel128_hop160"),
}

PATCH = 16
SILENCE = (math.log(1e-5) + 4.5) / 5  # the frontend's output for zeros

# (1, D, F, 1) and (1, D, 1, T) -> [1, F, 1, D] and [1, 1, T, D]
_ENCODING = (lambda x: np.transpose(x, (0, 2, 3, 1)), lambda x: np.transpose(x, (0, 3, 1, 2)))

# (pattern of the torch module or key, our path, kind): see asjax/weights/port.py
TORCH = (
    (r"cls_token", "cls_token", "param"),
    (r"dist_token", "dist_token", "param"),
    (r"new_pos_embed", "token_encoding", "param"),
    (r"freq_new_pos_embed", "freq_encoding", _ENCODING),
    (r"time_new_pos_embed", "time_encoding", _ENCODING),
    (r"patch_embed\.proj", "patches", "conv"),
    *vit.torch_blocks(),
    (r"norm", "norm", "norm"),
    (r"head\.0", "head_norm", "norm"),
    (r"head\.1", "head", "linear"),
)
TORCH_SKIP = (r"head_dist\..*",)  # every published file has it, no forward pass uses it


def model(variant: str, **over) -> PaSST:
    """The linen module of a variant; `over` replaces fields (num_classes=50, stride=(10, 16), ...).

    Raises:
      AsjaxError: unknown variant or field, or fields that give no valid grid.
    """
    module = layers.make(PaSST, VARIANTS, variant, over)
    module.check()
    return module


def from_other_names(weights: dict) -> dict:
    """Remove the prefix "net." of the authors' training code and of hear21passt."""
    return {k.removeprefix("net."): v for k, v in weights.items()}


def torch_fields(weights: dict) -> dict:
    """stride and frames of a checkpoint; width, heads, depth, distilled if they are not defaults.

    The stride is the published one (10, 12, 14 or 16, the same in time) whose grid over 128 bins
    has this number of rows, else the largest possible one. The length is the shortest published one
    whose grid has this number of columns, else the shortest possible one. The head width is 64, as
    in every DeiT. Other weights give {}.
    """
    weights = from_other_names(weights)
    names = ("freq_new_pos_embed", "time_new_pos_embed", "cls_token")
    freq, time, token = (np.shape(weights.get(name)) for name in names)
    if not (len(freq) == len(time) == 4 and len(token) == 3 and 0 < freq[2] <= 128):
        return {}
    stride = next((s for s in (10, 12, 14, 16) if 128 // s == freq[2]), 128 // freq[2])
    lengths = sorted(fields["frames"] for fields in VARIANTS.values())
    frames = next((n for n in lengths if n // stride == time[3]), time[3] * stride)
    depth = sum(bool(re.fullmatch(r"blocks\.\d+\.norm1\.weight", name)) for name in weights)
    found = dict(width=token[2], heads=max(1, token[2] // 64), distilled="dist_token" in weights)
    found = {name: value for name, value in found.items() if value != getattr(PaSST, name)}
    if depth not in {fields.get("depth", PaSST.depth) for fields in VARIANTS.values()}:
        found["depth"] = depth
    return dict(stride=stride, frames=frames, **found)


class PaSST(nn.Module):
    """PaSST on the features of `passt_mel128`, normalised log-mel.

    Args of the call:
      feats: [B, T, n_mels]. Input with fewer than 16 frames is padded at the end with silence. A
        clip shorter than the time encodings uses the first of them; in training it uses a random
        contiguous part, drawn once per batch. For a longer clip, columns beyond the encodings are
        cut off.
      augment: a function [B, T, F] -> [B, T, F], applied first.
      kept: a fixed choice instead of a random one, in training and in evaluation. It is a dict with
        any of `time_offset` (into the encodings), `time` and `freq` (remaining columns and rows of
        the patch grid) and `tokens` (which of these patches remain, counted row by row). Missing
        entries drop nothing, and the default offset is 0. Random choices use the rng "dropout".

    Returns:
      logits: float32 [B, num_classes].
      embedding: [B, D], the mean of the two tokens after the norm; without `distilled` there is
        only one token.
      frame_embedding: [B, T', D], the mean over frequency of the patches after the norm, one per
        `stride` frames. In training it covers only remaining patches and columns; a column without
        patches is zero.

    Attributes:
      stride: of the patches; a pair is (frequency, time).
      frames: length of the time encodings; they have frames // stride columns.
      s_patchout_t, s_patchout_f, u_patchout: number of columns, of rows, and then of single patches
        that are dropped in training. All clips of a batch drop the same ones, so the attention gets
        smaller.
      dropout: rate after the encodings, after the attention's projection and inside the MLP.
    """

    frames: int = 998
    stride: int | tuple[int, int] = 10
    width: int = 768
    depth: int = 12
    heads: int = 12
    distilled: bool = True
    s_patchout_t: int = 0
    s_patchout_f: int = 0
    u_patchout: int = 0
    dropout: float = 0.0
    drop_path_rate: float = 0.0
    scan_layers: bool | None = None
    remat: bool = False
    attention: str = "auto"
    num_classes: int = 527
    n_mels: int = 128
    head_bias: float = 0.0  # initial bias; with log(p / (1 - p)) every class starts at p
    dtype: str = "float32"

    @property
    def strides(self) -> tuple[int, int]:
        """(frequency, time)."""
        return self.stride if isinstance(self.stride, tuple) else (self.stride, self.stride)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the encodings; the patches of `frames` frames may have fewer."""
        return self.n_mels // self.strides[0], self.frames // self.strides[1]

    @property
    def min_columns(self) -> int:
        """Smallest number of columns of which patchout leaves a patch."""
        rows = max(1, self.grid[0] - self.s_patchout_f)
        return self.s_patchout_t + self.u_patchout // rows + 1

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, long enough to train on."""
        return (PATCH + (self.min_columns - 1) * self.strides[1], self.n_mels)

    def check(self):
        """AsjaxError unless the fields give a valid grid and patchout leaves patches."""
        pair = self.strides
        if len(pair) != 2 or not all(type(s) is int and s > 0 for s in pair):
            raise AsjaxError(f"PaSST stride must be one or two integers > 0, got {self.stride!r}")
        rows = (self.n_mels - PATCH) // pair[0] + 1
        if self.n_mels < PATCH or self.grid[1] < 1:
            raise AsjaxError(
                f"PaSST n_mels must be at least {PATCH} and frames at least the time stride, got "
                f"n_mels={self.n_mels}, frames={self.frames}, stride={self.stride}"
            )
        if rows != self.grid[0]:
            raise AsjaxError(
                f"PaSST stride {pair[0]} in frequency cuts {self.n_mels} mels into {rows} rows, "
                f"but there are n_mels // stride = {self.grid[0]} encodings; 10 to 16 fit 128 mels"
            )
        patchout = (self.s_patchout_t, self.s_patchout_f, self.u_patchout)
        if min(patchout) < 0 or self.s_patchout_f >= rows or self.min_columns > self.grid[1]:
            raise AsjaxError(
                "PaSST s_patchout_t, s_patchout_f, u_patchout must be 0 or more and leave patches "
                f"of {self.grid[1]} columns x {rows} rows, got {patchout}"
            )

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None, kept: dict | None = None):
        layers.check_feats(feats, self.n_mels, "PaSST")
        self.check()
        x = feats if augment is None else augment(feats)
        short = max(0, PATCH - x.shape[1])
        x = jnp.pad(x, ((0, 0), (0, short), (0, 0)), constant_values=SILENCE).swapaxes(1, 2)
        patch = (PATCH, PATCH)
        x = vit.Patches(self.width, patch, self.strides, dtype=self.dtype, name="patches")(x)
        x = x[:, :, : self.grid[1]]  # [B, rows, columns, D]
        choice = self._choice(*x.shape[1:3], train, kept)
        x = self._encoded(x, choice.get("time_offset", 0))
        stay = dict(unique_indices=kept is None, indices_are_sorted=kept is None)
        if "time" in choice:
            x = jnp.take(x, choice["time"], axis=2, **stay)
        if "freq" in choice:
            x = jnp.take(x, choice["freq"], axis=1, **stay)
        _, rows, columns, _ = x.shape
        x = x.reshape(x.shape[0], rows * columns, self.width)
        if "tokens" in choice:
            x = jnp.take(x, choice["tokens"], axis=1, **stay)
        x = jnp.concatenate([self._tokens(x.shape[0]), x], 1)  # [B, S, D]
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = vit.Encoder(
            depth=self.depth,
            heads=self.heads,
            mlp=4 * self.width,
            dropout=self.dropout,
            drop_path=self.drop_path_rate,
            scan_layers=self.scan_layers,
            remat=self.remat,
            attention=self.attention,
            dtype=self.dtype,
            name="encoder",
        )(x, train=train)
        x = layers.layer_norm("norm", self.dtype)(x).astype(jnp.float32)
        tokens = 2 if self.distilled else 1
        embedding = x[:, :tokens].mean(1)
        head = layers.Dense(
            self.num_classes,
            kernel_init=vit.normal,
            bias_init=nn.initializers.constant(self.head_bias),
            name="head",
        )
        return {
            "logits": head(layers.layer_norm("head_norm", "float32", 1e-5)(embedding)),
            "embedding": embedding,
            "frame_embedding": _by_column(x[:, tokens:], rows, columns, choice.get("tokens")),
        }

    def _encoded(self, x, offset):
        """Add the encodings to [B, rows, columns, D]; time encodings start at column `offset`."""
        rows, columns = self.grid
        time = self.param("time_encoding", vit.normal, (1, 1, columns, self.width))
        freq = self.param("freq_encoding", vit.normal, (1, rows, 1, self.width))
        time = jax.lax.dynamic_slice_in_dim(time, offset, x.shape[2], axis=2)
        return x + time.astype(self.dtype) + freq.astype(self.dtype)

    def _tokens(self, batch: int):
        """cls and dist, each with its encoding: [B, 2, D] (or 1)."""
        shape = (1, 1, self.width)
        parts = [self.param("cls_token", vit.normal, shape)]
        if self.distilled:
            parts.append(self.param("dist_token", vit.normal, shape))
        tokens = jnp.concatenate(parts, 1)
        tokens = tokens + self.param("token_encoding", vit.normal, tokens.shape)
        return jnp.broadcast_to(tokens.astype(self.dtype), (batch, *tokens.shape[1:]))

    def _choice(self, rows: int, columns: int, train: bool, kept: dict | None) -> dict:
        """The remaining part of the grid, like `kept`: fixed, random (training) or all of it."""
        names = ("time_offset", "time", "freq", "tokens")
        if kept is not None:
            for name in kept:
                if name not in names:
                    raise unknown("PaSST kept: entry", name, names)
            return {name: jnp.asarray(value) for name, value in kept.items()}
        late = self.grid[1] - columns
        if not train or not (late or self.s_patchout_t or self.s_patchout_f or self.u_patchout):
            return {}
        if columns < self.min_columns:
            raise AsjaxError(
                f"PaSST patchout leaves nothing of {columns} columns; with s_patchout_t="
                f"{self.s_patchout_t}, s_patchout_f={self.s_patchout_f}, u_patchout="
                f"{self.u_patchout} train on at least {self.example_shape[0]} frames"
            )
        left_t, left_f = columns - self.s_patchout_t, rows - self.s_patchout_f
        rngs = jax.random.split(self.make_rng("dropout"), 4)
        choice = {"time_offset": jax.random.randint(rngs[0], (), 0, late + 1)}
        if self.s_patchout_t:
            choice["time"] = _some(rngs[1], columns, left_t)
        if self.s_patchout_f:
            choice["freq"] = _some(rngs[2], rows, left_f)
        if self.u_patchout:
            choice["tokens"] = _some(rngs[3], left_t * left_f, left_t * left_f - self.u_patchout)
        return choice


def _some(rng, total: int, count: int):
    """Draw `count` different numbers of range(total), uniformly; sorted."""
    return jnp.sort(jax.random.permutation(rng, total)[:count])


def _by_column(x, rows: int, columns: int, tokens):
    """Patches [B, N, D], row by row -> [B, columns, D]: the mean over the remaining rows."""
    if tokens is None:
        return x.reshape(x.shape[0], rows, columns, -1).mean(1)
    total = jnp.zeros((x.shape[0], columns, x.shape[2])).at[:, tokens % columns].add(x)
    count = jnp.zeros((1, columns, 1)).at[:, tokens % columns].add(1)
    return total / jnp.maximum(count, 1)

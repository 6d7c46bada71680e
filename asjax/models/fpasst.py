"""fPaSST, a frame-level PaSST (Schmid et al. 2025; Koutini et al. 2022).

feats [B, T, 128] -> three 3x3 convolutions with GELU, strides 2, 1, 2 -> [B, T / 4, 64 x 32] -> a
linear layer on two neighbouring frames -> time and frequency encodings -> class and distillation
token -> pre-norm encoder -> norm -> drop these two tokens -> detector (nn/frames.py). There is one
token per 40 ms. Inside the convolutions maps are [B, F, T, C].
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from asjax.config import AsjaxError
from asjax.nn import frames, layers, resize, vit

VARIANTS = {"fpasst_base": dict(width=768, heads=12)}
FRONTENDS = {"fpasst_base": dict(name="fpasst_mel128")}
CHANNELS, STRIDES = (16, 32, 64), (2, 1, 2)

_AT = r"model\.fpasst\."
_IN = 16  # input channels of the authors' patch convolution: 64 channels x 32 bins as 16 x 128


def _read_patches(x):
    """(D, 16, F, 2) -> [2, 16 F, D]: a linear layer on two frames."""
    return x.reshape(x.shape[0], -1, x.shape[3]).T


def _write_patches(x):
    return x.T.reshape(x.shape[2], _IN, -1, x.shape[0])


_channels_last = (lambda x: np.transpose(x, (0, 2, 3, 1)), lambda x: np.transpose(x, (0, 3, 1, 2)))
# (pattern of the torch module or key, our path, kind): see asjax/weights/port.py
TORCH = (
    (_AT + r"cls_token", "cls_token", "param"),
    (_AT + r"dist_token", "dist_token", "param"),
    (_AT + r"new_pos_embed", "token_encoding", "param"),
    (_AT + r"freq_new_pos_embed", "freq_encoding", _channels_last),
    (_AT + r"time_new_pos_embed", "time_encoding", _channels_last),
    (_AT + r"conv_in_([123])", r"conv\1", "conv"),
    (_AT + r"patch_embed\.proj\.weight", "patches/kernel", (_read_patches, _write_patches)),
    (_AT + r"patch_embed\.proj\.bias", "patches/bias", "param"),
    *vit.torch_blocks(_AT),
    (_AT + r"norm", "norm", "norm"),
    *frames.TORCH,
)
TORCH_SKIP = (_AT + r"(head|head_dist)\..*",)
TORCH_HEAD, HEADLESS = frames.TORCH_HEAD, frames.HEADLESS


def from_other_names(weights: dict) -> dict:
    """Rename the weights of PretrainedSED's backbone to the names of its detector."""
    return frames.renamed(weights, "fpasst")


def rename_from_backbone(own: dict, weights: dict) -> dict:
    """State dict of a new model that starts from a checkpoint, see `frames.started`."""
    return frames.started(from_other_names(own), from_other_names(weights))


def torch_fields(weights: dict) -> dict:
    """The detector's fields, num_classes=0 for a bare backbone, input_frames from encodings."""
    weights = from_other_names(weights)
    fields = frames.torch_fields(weights) or {"num_classes": 0}
    time = np.shape(weights.get("model.fpasst.time_new_pos_embed"))
    return {**fields, "input_frames": 4 * time[3]} if len(time) == 4 else fields


def rename_from_imagenet(own: dict, weights: dict) -> dict:
    """State dict of a new model that starts from an ImageNet DeiT, for `port.from_torch`.

        own = port.to_torch("fpasst", variables)  # a new model
        start = fpasst.rename_from_imagenet(own, deit)
        module, variables = port.from_torch("fpasst", "fpasst_base", start)

    This follows PretrainedSED. The square grid of positions is resized (bicubic) to one row, the
    time encoding. The row's mean is the frequency encoding. The patch kernel's colours are repeated
    to 16 channels and multiplied by 3 / 16. Then its memory is reshaped from (16, 16) to (128, 2).
    This mixes rows and columns, but the published training started from these weights. The first
    three convolutions and the detector keep their initial weights. DeiT's heads are not used.

    Raises:
      AsjaxError: the DeiT has another width, depth or patch.
    """
    taken = {k: np.asarray(v, np.float32) for k, v in weights.items() if not k.startswith("head")}
    places = taken.pop("pos_embed", np.zeros((1, 0, 0)))
    kernel = taken.pop("patch_embed.proj.weight", np.zeros((0, 0, 0, 0)))
    key = "model.fpasst.{}".format
    time, target = own[key("time_new_pos_embed")], own[key("patch_embed.proj.weight")]
    side = math.isqrt(max(0, places.shape[1] - 2))
    if places.shape != (1, 2 + side**2, time.shape[1]) or not side:
        raise AsjaxError(
            "fPaSST from ImageNet: pos_embed must be [1, 2 + a square, "
            f"{time.shape[1]}] (a distilled DeiT), got {list(places.shape)}"
        )
    if kernel.shape[:2] != (target.shape[0], 3) or kernel[0, 0].size * _IN != target[0].size:
        raise AsjaxError(
            f"fPaSST from ImageNet: patch_embed.proj.weight must be [{target.shape[0]}, 3, 16, 16],"
            f" got {list(kernel.shape)}"
        )
    row = resize.bicubic(side, 1)[0], resize.bicubic(side, time.shape[3])
    grid = places[0, 2:].reshape(side, side, -1)
    row = np.einsum("f,tu,fud->dt", *row, grid.astype(np.float64))[None, :, None]
    colours = kernel[:, np.arange(_IN) % 3] * (3 / _IN)
    started = {
        **{key(k): v for k, v in taken.items()},
        key("new_pos_embed"): places[:, :2],
        key("time_new_pos_embed"): row.astype(np.float32),
        key("freq_new_pos_embed"): row.mean(3, keepdims=True).astype(np.float32),
        key("patch_embed.proj.weight"): colours.reshape(target.shape).astype(np.float32),
    }
    return {**own, **started}


def model(variant: str, **over) -> FPasst:
    """The linen module of a variant; `over` replaces fields (num_classes=447, sequence="gru")."""
    module = layers.make(FPasst, VARIANTS, variant, over)
    if module.n_mels < 4 or module.n_mels % 4 or module.input_frames < 4:
        raise AsjaxError(
            "fPaSST n_mels must be a multiple of 4 and input_frames at least 4, got "
            f"n_mels={module.n_mels}, input_frames={module.input_frames}"
        )
    return frames.checked(module, "fPaSST")


class FPasst(nn.Module):
    """feats [B, T, n_mels] -> frame_embedding [B, S, D], S = T / 4 rounded up and at most 250, and
    the detector's logits, frame_logits and embedding.

    Args of the call:
      feats: input longer than `input_frames` is cut, as in the authors' code. Shorter input uses
        the first encodings. In training it uses a random contiguous part, from the "dropout" key.
      mask: [B, T], the frames of each clip, for the detector; the encoder does not mask padding.
      augment: a function on feats, applied first.

    Attributes:
      input_frames: 1000 frames are 10 s.
      num_classes ... head: see `frames.Detector`; num_classes=0 is the bare backbone.
      dropout, drop_path, scan_layers, remat, attention: see `vit.Encoder`; dropout also applies to
        the tokens.
    """

    width: int
    heads: int
    depth: int = 12
    mlp_ratio: float = 4.0
    n_mels: int = 128
    input_frames: int = 1000
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
        return (16, self.n_mels)

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None, mask=None):
        layers.check_feats(feats, self.n_mels, "fPaSST")
        x = jnp.asarray(feats) if augment is None else augment(jnp.asarray(feats))
        x = self._tokens(self._patches(x), train)
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
        x = layers.layer_norm("norm", "float32")(x.astype(jnp.float32))[:, 2:]
        if mask is not None:
            mask = mask[:, : self.input_frames]
        return frames.detect(self, x, mask=mask, train=train)

    def _patches(self, x):
        """[B, T, F] -> [B, T / 4, D]."""
        x = x.astype(self.dtype).swapaxes(1, 2)[..., None]
        for i, (channels, stride) in enumerate(zip(CHANNELS, STRIDES, strict=True), 1):
            bound = (9 * x.shape[-1]) ** -0.5
            x = nn.Conv(
                channels,
                (3, 3),
                strides=stride,
                padding=1,
                dtype=self.dtype,
                kernel_init=vit.torch_uniform,
                bias_init=_uniform(bound),
                name=f"conv{i}",
            )(x)
            x = nn.gelu(x, approximate=False)
        b, f, t, c = x.shape
        x = x.transpose(0, 2, 3, 1).reshape(b, t, c * f)
        return _Pairs(self.width, self.dtype, name="patches")(x)

    def _tokens(self, x, train):
        """[B, T, D] -> class, distillation and frame tokens with encodings, [B, 2 + T, D]."""
        table = self.param("time_encoding", vit.normal, (1, 1, self.input_frames // 4, self.width))
        freq = self.param("freq_encoding", vit.normal, (1, 1, 1, self.width))
        x = x[:, : table.shape[2]]
        start, count = 0, x.shape[1]
        if train and count < table.shape[2] and not self.is_initializing():
            key = self.make_rng("dropout")
            start = jax.random.randint(key, (), 0, table.shape[2] - count + 1)
        time = jax.lax.dynamic_slice_in_dim(table[:, 0], start, count, 1)
        x = x + time.astype(x.dtype) + freq[:, 0].astype(x.dtype)
        shape = (1, 1, self.width)
        tokens = [self.param(name, vit.normal, shape) for name in ("cls_token", "dist_token")]
        places = self.param("token_encoding", vit.normal, (1, 2, self.width))
        tokens = (jnp.concatenate(tokens, 1) + places).astype(x.dtype)
        tokens = jnp.broadcast_to(tokens, (x.shape[0], 2, self.width))
        x = jnp.concatenate([tokens, x], 1)
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class _Pairs(nn.Module):
    """Linear layer on each frame and its successor, zero-padded: [B, T, I] -> [B, T, width]."""

    width: int
    dtype: str

    @nn.compact
    def __call__(self, x):
        shape = (2, x.shape[-1], self.width)
        kernel = self.param("kernel", vit.torch_uniform, shape).astype(self.dtype)
        bias = self.param("bias", _uniform((2 * x.shape[-1]) ** -0.5), (self.width,))
        after = jnp.pad(x[:, 1:], ((0, 0), (0, 1), (0, 0)))
        y = layers.product(jnp.concatenate([x, after], -1), kernel.reshape(-1, self.width))
        return y + layers.expand(bias.astype(self.dtype), 3)


def _uniform(bound: float):
    """torch's initial bias."""
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )

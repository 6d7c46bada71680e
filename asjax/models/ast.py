"""AST, the audio spectrogram transformer (Gong et al. 2021), also in Hugging Face's version.

feats [B, T, F] -> 16x16 patches, overlapping by 16 - stride, frequency-major -> class and
distillation token, positions -> pre-norm encoder -> norm -> mean of the two tokens -> norm, head.

The authors' augmentation with our functions: mixup of waves, `mixup(alpha=10, rate=0.5,
style='plain', remove_mean=True)`, then one mask per axis, `specaug(time_width=192, time_stripes=1,
freq_width=48, freq_stripes=1, law='torchaudio', fill=0.467)`. The authors mask with 0 before
normalisation. After it this is (0 - mean) / (2 std), the frontend's `padding`: 0.467 with AST's
constants, 0.357 with those of `atdr_logmel64`.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from asjax.models._ast_weights import (  # noqa: F401 (public here)
    adapt_positions,
    from_other_names,
    init_from_audioset,
    init_from_imagenet,
    torch_fields,
    torch_variants,
)
from asjax.nn import layers, vit

_TINY, _SMALL, _BASE = (dict(width=width, heads=width // 64) for width in (192, 384, 768))

# base224 and base384 start from different DeiTs; "_hf" has another epsilon in every norm
VARIANTS = {
    "base384": _BASE,
    "base224": _BASE,
    "small224": _SMALL,
    "tiny224": _TINY,
    "base384_hf": dict(**_BASE, epsilon=1e-12, head_epsilon=1e-12),
}

FRONTENDS = {variant: dict(name="kaldi_fbank128") for variant in VARIANTS}
FRONTENDS["base384_hf"] = dict(name="kaldi_fbank128_hf")

# (pattern of the torch module or key, our path, kind): see asjax/weights/port.py
TORCH = (
    (r"v\.cls_token", "cls_token", "param"),
    (r"v\.dist_token", "dist_token", "param"),
    (r"v\.pos_embed", "pos_embed", "param"),
    (r"v\.patch_embed\.proj", "patches", "conv"),
    *vit.torch_blocks(r"v\."),
    (r"v\.norm", "norm", "norm"),
    (r"mlp_head\.0", "head_norm", "norm"),
    (r"mlp_head\.1", "head", "linear"),
)
TORCH_SKIP = (r"v\.head\..*", r"v\.head_dist\..*")  # DeiT's heads for ImageNet's 1000 classes


def model(variant: str, **over) -> Ast:
    """The linen module of a variant; `over` replaces fields (num_classes=50, stride=16, ...)."""
    module = layers.make(Ast, VARIANTS, variant, over)
    pair = module.strides
    if len(pair) != 2 or not all(isinstance(s, int) and s > 0 for s in pair):
        raise layers.AsjaxError(
            f"AST stride must be a positive integer or a pair (frequency, time), got {pair!r}"
        )
    if min(module.n_mels, module.frames) < module.patch:
        raise layers.AsjaxError(
            f"AST needs at least {module.patch} mel bins and frames (one patch), got "
            f"n_mels={module.n_mels}, frames={module.frames}"
        )
    return module


class Ast(nn.Module):
    """An AST on normalised log-mel features with `frames` frames.

    Args of the call:
      feats: [B, T, n_mels]. Positions exist for `frames` frames: shorter input is zero-padded at
        the end, longer input is cut, and refused in training. A frontend with the same `frames`
        already pads and cuts before normalisation, as in the authors' code.
      augment: a function [B, T, F] -> [B, T, F], applied first.

    Returns:
      logits: float32 [B, num_classes].
      embedding: [B, D], the mean of the two tokens after the final norm.
      frame_embedding: [B, T', D], the mean over frequency of the patches after the final norm;
        T' = `grid[1]`, and patches are `stride` frames apart.

    Attributes:
      stride: frames and bins between patches; a pair is (frequency, time).
      frames, n_mels: size of the input for which there are positions.
      head_bias: added to torch's initial bias of the head; with log(p / (1 - p)) every class starts
        near probability p.
      scan_layers, remat, attention, dropout, drop_path: see `vit.Encoder`. Dropout also applies to
        the tokens. The authors use neither dropout nor drop_path.
    """

    width: int
    heads: int
    depth: int = 12
    mlp_ratio: float = 4.0
    num_classes: int = 527
    n_mels: int = 128
    frames: int = 1024
    stride: int | tuple[int, int] = 10
    patch: int = 16
    qkv_bias: bool = True
    epsilon: float = 1e-6
    head_epsilon: float = 1e-5
    dropout: float = 0.0
    drop_path: float = 0.0
    scan_layers: bool | None = None
    remat: bool = False
    attention: str = "auto"
    head_bias: float = 0.0
    dtype: str = "float32"

    @property
    def strides(self) -> tuple[int, int]:
        """Bins and frames between patches."""
        return (self.stride,) * 2 if isinstance(self.stride, int) else tuple(self.stride)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along frequency and along time."""
        sf, st = self.strides
        return (self.n_mels - self.patch) // sf + 1, (self.frames - self.patch) // st + 1

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, for shape inference."""
        return (self.frames, self.n_mels)

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None):
        layers.check_feats(feats, self.n_mels, "AST")
        if train and feats.shape[1] > self.frames:
            raise layers.AsjaxError(
                f"AST has positions for {self.frames} frames, and the features have "
                f"{feats.shape[1]}: the rest of every clip would be cut off; give frontend.frames "
                "and model.frames one value, and data.clip_s that length"
            )
        x = jnp.asarray(feats) if augment is None else augment(jnp.asarray(feats))
        x = layers.pad_frames(x[:, : self.frames], self.frames)
        x = self._tokens(x.swapaxes(1, 2), train)  # [B, 2 + f t, D]
        x = vit.Encoder(
            depth=self.depth,
            heads=self.heads,
            mlp=int(self.width * self.mlp_ratio),
            qkv_bias=self.qkv_bias,
            epsilon=self.epsilon,
            dropout=self.dropout,
            drop_path=self.drop_path,
            scan_layers=self.scan_layers,
            remat=self.remat,
            attention=self.attention,
            dtype=self.dtype,
            name="encoder",
        )(x, train=train)
        x = layers.layer_norm("norm", "float32", self.epsilon)(x.astype(jnp.float32))
        embedding = x[:, :2].mean(1)
        frames = x[:, 2:].reshape(x.shape[0], *self.grid, self.width).mean(1)
        y = layers.layer_norm("head_norm", "float32", self.head_epsilon)(embedding)
        logits = layers.Dense(
            self.num_classes, kernel_init=vit.torch_uniform, bias_init=self._bias, name="head"
        )(y)
        return {"logits": logits, "embedding": embedding, "frame_embedding": frames}

    def _tokens(self, x, train):
        """Spectrogram [B, F, T] -> class, distillation and patch tokens with positions."""
        size = (self.patch, self.patch)
        x = vit.Patches(self.width, size, self.strides, dtype=self.dtype, name="patches")(x)
        x = x.reshape(x.shape[0], -1, self.width)
        shape = (1, 1, self.width)
        tokens = [self.param(name, vit.normal, shape) for name in ("cls_token", "dist_token")]
        places = self.param("pos_embed", vit.normal, (1, 2 + x.shape[1], self.width))
        tokens = [jnp.broadcast_to(t, (x.shape[0], 1, self.width)).astype(x.dtype) for t in tokens]
        x = jnp.concatenate([*tokens, x], 1) + places.astype(x.dtype)
        return nn.Dropout(self.dropout, deterministic=not train, name="pos_drop")(x)

    def _bias(self, key, shape, dtype=jnp.float32):
        bound = self.width**-0.5
        return self.head_bias + jax.random.uniform(key, shape, dtype, -bound, bound)

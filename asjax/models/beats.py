"""BEATs, audio pre-training with acoustic tokenizers (Chen et al. 2023), as a detector.

feats [B, T, 128] -> 16x16 patches, time-major -> norm, linear -> + GELU of a convolution over 128
tokens -> norm -> post-norm layers with gated relative position bias and scaled residuals (DeepNorm)
-> tokens [B, T // 16 * 8, 768] -> detector (nn/frames.py).

Each 160 ms step has eight tokens, from low to high frequency. Averaging 496 tokens to 250 outputs
makes four outputs per step, each from neighbouring frequencies. PretrainedSED's weights need this.
"""

from __future__ import annotations

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from asjax import labels
from asjax.config import AsjaxError
from asjax.nn import frames, layers, overlap, relative, vit

VARIANTS = {"beats_base": dict(width=768, heads=12)}
FRONTENDS = {"beats_base": dict(name="beats_fbank128")}

_AT = r"model\.beats\."
_L = _AT + r"encoder\.layers\.(\d+)\."
_CONV = _AT + r"encoder\.pos_conv\.0\."
_swap = (lambda x: np.swapaxes(x, -1, -2),) * 2
# (pattern of the torch module or key, our path, kind): see asjax/weights/port.py
TORCH = (
    (_AT + r"patch_embedding", "patches", "conv"),
    (_AT + r"layer_norm", "patch_norm", "norm"),
    (_AT + r"post_extract_proj", "patch_proj", "linear"),
    (_CONV + r"bias", "position_conv/bias", "param"),
    (
        _CONV + r"parametrizations\.weight\.original0",
        "position_conv/gain",
        (lambda x: x.reshape(-1), lambda x: x.reshape(1, 1, -1)),
    ),
    (
        _CONV + r"parametrizations\.weight\.original1",
        "position_conv/direction",
        (np.transpose,) * 2,
    ),
    (_AT + r"encoder\.layer_norm", "norm", "norm"),
    (
        _AT + r"encoder\.layers\.0\.self_attn\.relative_attention_bias\.weight",
        "relative_bias",
        "param",
    ),
    (_L + r"self_attn\.(q|k|v|out)_proj", r"layers[\1]/\2", "linear"),
    (_L + r"self_attn\.grep_linear", r"layers[\1]/gate", "linear"),
    (_L + r"self_attn\.grep_a", r"layers[\1]/gate_scale", "param"),
    (_L + r"self_attn_layer_norm", r"layers[\1]/attn_norm", "norm"),
    (_L + r"(fc[12])", r"layers[\1]/mlp/\2", "linear"),
    (_L + r"final_layer_norm", r"layers[\1]/norm", "norm"),
    *frames.TORCH,
)
TORCH_SKIP = ()
TORCH_HEAD, HEADLESS = frames.TORCH_HEAD, frames.HEADLESS

_TABLE = "model.beats.encoder.layers.0.self_attn.relative_attention_bias.weight"
_TIED = re.compile(_L + r"self_attn\.relative_attention_bias\.weight")


def from_other_names(weights: dict) -> dict:
    """Rename to PretrainedSED's names, from its files, its backbone or the authors' files.

    Both of torch's namings of weight normalisation are known. All layers share one table of
    relative positions, so its copies are dropped. The authors' `predictor`, a classifier of every
    token, becomes our `weak_head` (head="mean", frames=None). If the checkpoint has a `label_dict`,
    the rows of the predictor are put into AudioSet's order.

    Raises:
      AsjaxError: the copies differ, or label_dict has 527 classes that are not AudioSet's.
    """
    weights = dict(weights)
    order = _rows(np.asarray(weights.pop("label_dict", ())))
    out, table = {}, None
    for key, value in frames.renamed(weights, "beats").items():
        key = key.replace(".pos_conv.0.weight_g", ".pos_conv.0.parametrizations.weight.original0")
        key = key.replace(".pos_conv.0.weight_v", ".pos_conv.0.parametrizations.weight.original1")
        head = re.fullmatch(_AT + r"predictor\.(\w+)", key)
        if head:
            key, value = (
                f"weak_head.{head[1]}",
                value if order is None else np.asarray(value)[order],
            )
        if _TIED.fullmatch(key):
            key = _TABLE
            table = value if table is None else table
            if not np.array_equal(table, value):
                raise AsjaxError(
                    "BEATs: the layers share one relative_attention_bias, but its copies differ"
                )
        out[key] = value
    return out


def _rows(names: np.ndarray) -> list[int] | None:
    """Indices that put the predictor's rows, with the mids `names`, into AudioSet's order.

    None: there are no names, also if only shapes are compared. Other classes than AudioSet's keep
    their order, but 527 of them are an error, because they would get AudioSet's names.
    """
    if names.dtype.kind != "U":
        return None
    known, given = labels.get("audioset527").ids, {str(name): i for i, name in enumerate(names)}
    if set(given) == set(known):
        return [given[mid] for mid in known]
    if len(names) == len(known):
        raise AsjaxError("BEATs: label_dict has 527 classes that are not AudioSet's")
    return list(range(len(names)))


def to_other_names(weights: dict) -> dict:
    """Add a copy of the shared table for each layer, as in torch's state dict."""
    depth = 1 + max((int(hit[1]) for k in weights if (hit := re.match(_L, k))), default=0)
    copies = {_TABLE.replace(".0.", f".{i}.", 1): weights[_TABLE] for i in range(1, depth)}
    return {**weights, **copies}


def rename_from_backbone(own: dict, weights: dict) -> dict:
    """State dict of a new model that starts from a checkpoint, see `frames.started`."""
    return frames.started(from_other_names(own), from_other_names(weights))


def torch_fields(weights: dict) -> dict:
    """The detector's fields; num_classes=0 for a bare backbone."""
    fields = frames.torch_fields(weights) or {"num_classes": 0}
    if fields.get("head") == "mean":
        fields["frames"] = None  # the authors' own classifier
    return fields


def model(variant: str, **over) -> Beats:
    """The linen module of a variant; `over` replaces fields (num_classes=447, sequence="gru")."""
    module = layers.make(Beats, VARIANTS, variant, over)
    if module.n_mels < module.patch:
        raise AsjaxError(f"BEATs n_mels must be at least {module.patch}, got {module.n_mels}")
    if module.width % module.heads or module.width % module.position_groups:
        raise AsjaxError(
            f"BEATs width={module.width} must be a multiple of heads={module.heads} and of "
            f"position_groups={module.position_groups}"
        )
    return frames.checked(module, "BEATs")


class PositionConv(nn.Module):
    """GELU of a grouped convolution over tokens with weight normalisation: [B, S, D] -> same.

    The kernel is gain[k] * direction[k] / ||direction[k]||; the norm is over all channels of tap k.
    """

    taps: int
    groups: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        shape = (self.taps, width // self.groups, width)
        start = nn.initializers.normal((4 / (self.taps * width)) ** 0.5)
        direction = self.param("direction", start, shape)
        length = lambda v: jnp.sqrt(jnp.square(v).sum((1, 2)))  # noqa: E731
        gain = self.param("gain", lambda key: length(direction))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        kernel = direction * (gain / length(direction))[:, None, None]
        y = overlap.correlate(x, kernel, self.groups) + layers.expand(bias, 3)
        return nn.gelu(y, approximate=False).astype(self.dtype)


def _xavier(gain: float):
    """Normal with variance gain^2 * 2 / (fan in + fan out)."""
    return nn.initializers.variance_scaling(gain**2, "fan_avg", "normal")


class Layer(nn.Module):
    """x = norm(a x + attention(x)); norm(a x + mlp(x)), a = (2 * depth)^(1/4), for `nn.scan`.

    Dropout applies to attention weights and to both branches. In training a whole layer is skipped
    with probability `layer_drop`.
    """

    heads: int
    mlp: int
    depth: int
    dropout: float = 0.0
    attention_dropout: float = 0.0
    layer_drop: float = 0.0
    backend: str = "auto"
    dtype: str = "float32"
    train: bool = False

    @nn.compact
    def __call__(self, x, position):
        scale, narrow = (2 * self.depth) ** 0.25, (8 * self.depth) ** -0.25
        drop = nn.Dropout(self.dropout, deterministic=not self.train)
        norm = lambda name, y: layers.layer_norm(name, self.dtype, 1e-5)(y)  # noqa: E731
        y = norm("attn_norm", scale * x + drop(self._attend(x, position, narrow)))
        mlp = vit.Mlp(self.mlp, self.dtype, _xavier(narrow), name="mlp")
        y = norm("norm", scale * y + drop(mlp(y)))
        if self.train and self.layer_drop:
            stay = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.layer_drop)
            y = jnp.where(stay, y, x)
        return y, None

    def _attend(self, x, position, narrow):
        b, s, width = x.shape
        dense = lambda name, gain: layers.Dense(  # noqa: E731
            width, dtype=self.dtype, kernel_init=_xavier(gain), name=name
        )
        heads = lambda y: y.reshape(b, s, self.heads, width // self.heads)  # noqa: E731
        q, k, v = (heads(dense(n, g)(x)) for n, g in (("q", 1), ("k", 1), ("v", narrow)))
        rate = self.attention_dropout if self.train else 0.0
        rng = self.make_rng("dropout") if rate else None
        y = relative.attend(
            q, k, v, self._gate(q), position, dropout=rate, rng=rng, backend=self.backend
        )
        return dense("out", narrow)(y.reshape(b, s, width))

    def _gate(self, q):
        """q [B, S, N, d] -> float32 [B, S, N]: the factor of the position bias for each query."""
        z = layers.Dense(8, kernel_init=vit.normal, name="gate")(q.astype(jnp.float32))
        scale = self.param("gate_scale", nn.initializers.ones, (1, self.heads, 1, 1))
        update, reset = jnp.moveaxis(nn.sigmoid(z.reshape(*z.shape[:-1], 2, 4).sum(-1)), -1, 0)
        return update * (reset * scale.reshape(1, 1, -1) - 1) + 2


class Beats(nn.Module):
    """feats [B, T, n_mels] -> frame_embedding [B, T // 16 * (n_mels // 16), D] and the detector's
    logits, frame_logits and embedding.

    Args of the call:
      feats: any length. Frames that do not fill a patch are dropped; input shorter than one patch
        is zero-padded.
      mask: [B, T], the frames of each clip, for the detector; the encoder does not mask padding.
      augment: a function on feats, applied first.

    Attributes:
      patch_width: width of a patch before the linear layer.
      position_taps, position_groups: kernel size and groups of the convolution over tokens.
      buckets, farthest: number of rows in the table of relative positions, and the distance in
        tokens from which on all distances share a row; see `relative.buckets`.
      num_classes ... head: see `frames.Detector`; num_classes=0 is the bare backbone. The authors'
        fine-tuned classifiers have head="mean" and frames=None: one linear layer on every token,
        and the mean of its logits.
      input_dropout: rate for the patches.
      dropout: rate for both branches, and before the layers.
      attention_dropout: rate for the attention weights.
      layer_drop: probability to skip a layer in training.
      scan_layers, remat, attention: see `vit.Encoder`.
    """

    width: int
    heads: int
    depth: int = 12
    mlp_ratio: float = 4.0
    n_mels: int = 128
    patch: int = 16
    patch_width: int = 512
    position_taps: int = 128
    position_groups: int = 16
    buckets: int = 320
    farthest: int = 800
    num_classes: int = 527
    weak_classes: int | None = None
    frames: int | None = 250
    sequence: str | None = None
    sequence_width: int = 2048
    sequence_depth: int = 2
    head: str = "linear"
    head_bias: float = 0.0
    input_dropout: float = 0.1
    dropout: float = 0.1
    attention_dropout: float = 0.1
    layer_drop: float = 0.05
    scan_layers: bool | None = None
    remat: bool = False
    attention: str = "auto"
    dtype: str = "float32"

    input_frames = 998  # 10 s, the input of the published models

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, for shape inference."""
        return (4 * self.patch, self.n_mels)

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None, mask=None):
        layers.check_feats(feats, self.n_mels, "BEATs")
        x = jnp.asarray(feats) if augment is None else augment(jnp.asarray(feats))
        x = self._tokens(layers.pad_frames(x, self.patch), train)
        table = self.param("relative_bias", vit.normal, (self.buckets, self.heads))
        position = relative.position_bias(table, x.shape[1], self.farthest)
        options = (
            self.heads,
            int(self.width * self.mlp_ratio),
            self.depth,
            self.dropout,
            self.attention_dropout,
            self.layer_drop,
            self.attention,
            self.dtype,
            train,
        )
        layer = vit.stacked(Layer, self, nn.broadcast, train, x)(*options, name="layers")
        x, _ = layer(x.astype(self.dtype), position)
        return frames.detect(self, x, mask=mask, train=train)

    def _tokens(self, x, train):
        """[B, T, F] -> normed patches after the position convolution: [B, t f, D]."""
        drop = lambda rate, x: nn.Dropout(rate, deterministic=not train)(x)  # noqa: E731
        size = (self.patch, self.patch)
        patches = vit.Patches(
            self.patch_width, size, size, use_bias=False, dtype=self.dtype, name="patches"
        )
        x = patches(x).reshape(x.shape[0], -1, self.patch_width)
        x = layers.layer_norm("patch_norm", self.dtype, 1e-5)(x)
        dense = layers.Dense(
            self.width, dtype=self.dtype, kernel_init=vit.torch_uniform, name="patch_proj"
        )
        x = drop(self.input_dropout, dense(x))
        fields = (self.position_taps, self.position_groups, self.dtype)
        x = x + PositionConv(*fields, name="position_conv")(x)
        return drop(self.dropout, layers.layer_norm("norm", self.dtype, 1e-5)(x))

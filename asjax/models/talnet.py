"""TALNet, a CRNN (Wang, Li & Metze 2019), and the CNN + Transformer of AudioTagging Done Right.

feats [B, T, F] -> blocks of [conv, BN, relu] with max pooling -> [B, T // 4, E] -> bidirectional
GRU, or one Transformer layer applied `passes` times -> classifier and attention per frame -> clip,
or the detector of nn/frames.py. The passes share their weights, because only then the number of
parameters is the paper's 12.1 M.
"""

from __future__ import annotations

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from asjax.nn import frames, layers, pooling, postnorm, recurrent

VARIANTS = {
    "crnn": dict(context="gru"),
    "crnn_big": dict(context="gru", n_mels=128, width=2048),
    "cnn_transformer": dict(context="transformer"),
    "cnn_transformer_big": dict(context="transformer", n_mels=128, width=2048),
    # our own variants, for a few hundred clips
    "crnn_mini": dict(context="gru", width=128, convs=5),
    "cnn_transformer_mini": dict(context="transformer", width=128, convs=5),
    # for streams: no layer looks ahead
    "crnn_causal": dict(context="gru", width=128, convs=5, causal=True, pooling="linear_softmax"),
}
FRONTENDS = {
    name: dict(name="kaldi_fbank128" if fields.get("n_mels") == 128 else "atdr_logmel64")
    for name, fields in VARIANTS.items()
} | {"crnn_causal": dict(name="panns_logmel64_16k", hop=320, centred=False)}
TORCH = (
    (r"conv\.(\d+)\.conv", r"block\1/conv", "conv"),
    (r"conv\.(\d+)\.bn", r"block\1/bn", "norm"),
    *recurrent.rules("gru"),
    *postnorm.encoder_rules("enc_layer", "layer", 1),
    (r"(fc_prob|fc_att)", r"head/\1", "linear"),
    *frames.TORCH,
)
TORCH_SKIP = (r"positional_encoding\.pe",)  # a fixed table: `positions`
CONTEXTS = ("gru", "transformer", None)


def from_other_names(weights: dict) -> dict:
    """Drop duplicates: the authors store every block twice, as `conv.0` and as `conv1`."""
    out = {}
    for key, value in weights.items():
        hit = re.fullmatch(r"conv(\d+)\.(.+)", key)
        name = f"conv.{int(hit[1]) - 1}.{hit[2]}" if hit else key
        if not hit or name not in weights:
            out[name] = value
    return out


def torch_fields(weights: dict) -> dict:
    """width, n_mels, convs, pools, pooling and a detector's fields, from names and shapes.

    Blocks have 2 E / bins channels, and each pooling halves the bins. Weights do not show which
    pooling without attention was used: without `fc_att` we take the paper's linear softmax.
    """
    weights = from_other_names(weights)
    shape = lambda key: np.shape(weights.get(key, ()))  # noqa: E731
    channels, fields = [], frames.torch_fields(weights)
    while len(now := shape(f"conv.{len(channels)}.conv.weight")) == 4:
        channels.append(now[0])
    after = ("gru.weight_ih_l0", "enc_layer.slf_attn.w_qs.weight", "fc_prob.weight")
    width = next((shape(key)[1] for key in after if len(shape(key)) == 2), 0)
    if channels and width:
        fields |= dict(width=width, n_mels=2 * width // channels[0], convs=len(channels))
        fields["pools"] = len(set(channels))
    if "fc_prob.weight" in weights and "fc_att.weight" not in weights:
        fields["pooling"] = "linear_softmax"
    return fields


def model(variant: str, **over) -> TalNet:
    """The linen module of a variant; `over` replaces fields."""
    module = layers.make(TalNet, VARIANTS, variant, over)
    if module.context not in CONTEXTS:
        raise layers.unknown("TALNet context", module.context, CONTEXTS)
    if module.causal:
        _check_causal(module)
    return frames.checked(module, "TALNet", off=True)


def _check_causal(module) -> None:
    """AsjaxError: a causal module has a part that looks ahead."""
    ahead = {
        f"context={module.context!r}": module.context == "transformer",
        f"frames={module.frames}": bool(module.frames),
        "positions=True": bool(module.positions),
        f"pooling={module.pooling!r}": pooling.needs_attention(module.pooling),
    }
    if wrong := [what for what, is_wrong in ahead.items() if is_wrong]:
        raise layers.AsjaxError(
            "a causal TALNet needs context='gru', no detector, no positions and a pooling without "
            f"attention, such as linear_softmax; it cannot have {wrong[0]}"
        )


def positions(frames: int, bins: int) -> np.ndarray:
    """Sinusoidal encoding float32 [T, F]: sin in even, cos in odd bins, 10000^(-2i / F)."""
    rate = np.exp(np.arange(0, bins, 2) * (-np.log(10000.0) / bins))
    angle = np.arange(frames)[:, None] * rate[None]
    table = np.zeros((frames, bins), np.float32)
    table[:, 0::2], table[:, 1::2] = np.sin(angle), np.cos(angle)[:, : bins // 2]
    return table


class Block(nn.Module):
    """conv 3x3 with bias, BN, relu, max pooling by `pool` (time, frequency), sizes rounded down.

    `before` [B, 2, F, C] makes the convolution causal: the frames before x. It then looks at them
    and not ahead.
    """

    width: int
    pool: tuple[int, int]
    dtype: str

    @nn.compact
    def __call__(self, x, train: bool, before=None):
        start = nn.initializers.xavier_uniform()
        conv = layers.Conv(self.width, 3, self.dtype, start, use_bias=True, name="conv")
        if before is None:
            x = conv(x)
        else:  # frame t of a padded convolution sees t - 1 to t + 1
            x = conv(jnp.concatenate([before.astype(x.dtype), x], axis=1))[:, 1:-1]
        x = nn.relu(layers.BatchNorm(dtype=self.dtype, name="bn")(x, train))
        return x if self.pool == (1, 1) else layers.max_pool(x, self.pool)


class TalNet(nn.Module):
    """feats [B, T, n_mels] -> logits [B, C], frame_logits [B, T // 4, C] and frame_embedding.

    `mask` [B, T] marks the frames of each clip. Padding at the end then has no influence, neither
    in the convolutions nor in the sequence model. Input with fewer than 4 frames is zero-padded.

    Attributes:
      width: E, features per frame after the convolutions.
      convs, pools: number of convolutions and of poolings. After every convs / pools convolutions
        there is a pooling that halves the bins; the first two also halve the frames.
      context: the sequence model: "gru" (E / 2 per direction), "transformer" (one layer for all
        `passes`) or None.
      positions: True: the input is 8 x + sinusoidal encoding. The factor is 8 for any number of
        bins, as in the authors' code; the paper's round(sqrt(F)) is 11 for 128. None: True for
        "transformer" only.
      dropout: rate before every block and around the sequence model.
      transformer_dropout: rate inside the Transformer.
      frames, weak_classes, sequence ... head: with `frames` a detector replaces the classifier
        after `context`, see `frames.Detector`.
      causal: no output looks at later frames: the convolutions see two earlier frames, the GRU runs
        forwards only (width E). With `state`, that of `init_state` or of the call before, the
        frames go on where the last ones ended; their number must then be a multiple of `stride`.
        `state` is also among the outputs. The frame_logits of the parts are those of the whole.
    """

    context: str | None
    width: int = 1024
    convs: int = 10
    pools: int = 5
    passes: int = 2
    heads: int = 8
    num_classes: int = 527
    n_mels: int = 64
    pooling: str = "tal_attention"
    positions: bool | None = None
    dropout: float = 0.0
    transformer_dropout: float = 0.25
    head_bias: float = 0.0
    attention: str = "auto"
    frames: int | None = None
    weak_classes: int | None = None
    sequence: str | None = None
    sequence_width: int = 2048
    sequence_depth: int = 2
    head: str = "linear"
    causal: bool = False
    remat: bool = False
    dtype: str = "float32"

    input_frames = None  # any
    stride = 4  # input frames of an output frame

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, for shape inference."""
        return (8, self.n_mels)

    def stack(self) -> list[tuple[int, tuple[int, int]]]:
        """(channels, pool) of every block."""
        if self.convs % self.pools:
            raise layers.AsjaxError(f"convs={self.convs} must be a multiple of pools={self.pools}")
        if self.n_mels < 2**self.pools or self.n_mels % 2**self.pools:
            raise layers.AsjaxError(
                f"n_mels={self.n_mels} must be a multiple of {2**self.pools} for {self.pools} pools"
            )
        bins, blocks = self.n_mels, []
        for number in range(1, self.convs + 1):
            if number % (self.convs // self.pools):
                blocks.append((2 * self.width // bins, (1, 1)))
            else:
                bins //= 2
                pooled = number // (self.convs // self.pools)
                blocks.append((self.width // bins, (2 if pooled <= 2 else 1, 2)))
        return blocks

    def init_state(self, clips: int) -> dict:
        """The state of a causal model before the first frame: zeros."""
        if not self.causal:
            raise layers.AsjaxError("only a causal TALNet has a state; give causal=True")
        before, bins, channels = [], self.n_mels, 1
        for width, (_, pool) in self.stack():
            before.append(jnp.zeros((clips, 2, bins, channels), self.dtype))
            bins, channels = bins // pool, width
        return {"before": before, "gru": jnp.zeros((1, clips, self.width), jnp.float32)}

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None, mask=None, state=None):
        layers.check_feats(feats, self.n_mels, "TALNet")
        carries = state is not None
        if self.causal and state is None:
            state = self.init_state(feats.shape[0])
        if carries and feats.shape[1] % self.stride:
            raise layers.AsjaxError(
                f"with a state, frames must come in multiples of {self.stride}, got "
                f"{feats.shape[1]}"
            )
        before = []
        x = layers.pad_frames(feats if augment is None else augment(feats), 4)
        whole = mask = None if mask is None else layers.pad_frames(mask > 0, 4)
        encoded = self.context == "transformer" if self.positions is None else self.positions
        if encoded:
            x = 8 * x + jnp.asarray(positions(*x.shape[1:]))[None]
        x, drop = x[..., None], nn.Dropout(self.dropout, deterministic=not train)
        for i, (channels, pool) in enumerate(self.stack()):
            if mask is not None:  # as zero padding at the clip's end
                x = jnp.where(mask[..., None, None], x, 0)
            block = layers.remat(Block, self)(channels, pool, self.dtype, name=f"block{i}")
            x = drop(x)
            if state is None:
                x = block(x, train)
            else:
                earlier = state["before"][i].astype(x.dtype)
                before.append(jnp.concatenate([earlier, x], axis=1)[:, -2:])
                x = block(x, train, earlier)
            if mask is not None and pool[0] == 2:
                mask = mask[:, 1::2]
        b, t, f, c = x.shape
        x = x.swapaxes(2, 3).reshape(b, t, c * f).astype(jnp.float32)
        if self.context == "gru":
            x, last = self._gru(x, mask, drop, state if carries else None)
        elif self.context == "transformer":
            x = self._pass(x, mask, train)
        if self.frames:
            return frames.detect(self, drop(x), mask=whole, train=train)
        outputs = postnorm.frame_head(self, drop(x), mask)
        if carries:
            last = state["gru"] if self.context is None else last
            outputs["state"] = {"before": before, "gru": last}
        return outputs

    def _gru(self, x, mask, drop, state):
        if not self.causal:
            return recurrent.Gru(self.width // 2, name="gru")(drop(x), mask), None
        gru = recurrent.Gru(self.width, bidirectional=False, name="gru")
        if state is None:
            return gru(drop(x), mask), None
        return gru(drop(x), mask, state["gru"])

    def _pass(self, x, mask, train):
        layer = layers.remat(postnorm.EncoderLayer, self, ())(
            self.width,
            self.heads,
            self.transformer_dropout,
            self.attention,
            self.dtype,
            train,
            name="layer",
        )
        for _ in range(self.passes):
            x, _ = layer(x, mask)
        return jax.lax.convert_element_type(x, jnp.float32)

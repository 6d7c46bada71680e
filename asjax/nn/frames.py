"""The event detector that all families share: from tokens to frame scores (Schmid et al. 2025).

tokens [B, S, D] -> resampled to `frames` in time -> optional sequence model -> heads. A family's
module has the same fields as `Detector` and ends with

    return frames.detect(self, tokens, mask=mask, train=train)

If a family also has a tagger's head, `frames=None` selects it and turns the detector off. Names and
defaults are those of PretrainedSED's PredictionsWrapper, so its weights fit.
"""

from __future__ import annotations

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from asjax.config import AsjaxError, unknown
from asjax.nn import layers, pooling, recurrent, resize, rotary, vit

Array = jax.Array

SEQUENCES = (None, "gru", "lstm", "transformer")
HEADS = ("linear", "attention", "mean")
FIELDS = (
    "num_classes", "weak_classes", "frames", "sequence", "sequence_width", "sequence_depth", "head",
    "head_bias", "attention", "dtype",
)  # fmt: skip


# ------------------------------------------------------------------------------------- time


def resample(x: Array, frames: int) -> Array:
    """[B, S, D] -> float32 [B, frames, D]: adaptive average pooling if S > frames, else linear
    interpolation."""
    if x.shape[1] == frames:
        return x.astype(jnp.float32)
    matrix = (resize.average if x.shape[1] > frames else resize.linear)(x.shape[1], frames)
    matrix = jnp.asarray(matrix, jnp.float32)
    return jnp.einsum("ts,bsd->btd", matrix, x.astype(jnp.float32), precision="highest")


def frame_mask(mask: Array | None, frames: int) -> Array | None:
    """Input mask [B, T] -> output mask, bool [B, frames]; padding is at the end.

    Input frame t of T is at the fraction t / (T - 1) of the input's length. Output i begins at the
    fraction i / frames. Outputs that begin before the clip's last frame are valid, at least one. A
    clip of s seconds in an input of 10 s has ceil(25 s) of 250 outputs.
    """
    if mask is None:
        return None
    length, last = (mask > 0).sum(1), max(1, mask.shape[1] - 1)
    # ceil(frames (length - 1) / last) in integers, without rounding errors
    count = -((-frames * (length - 1)) // last)
    return jnp.arange(frames)[None] < jnp.maximum(count, 1)[:, None]


def mean(x: Array, mask: Array | None) -> Array:
    """[B, T, D] -> [B, D]: the mean over the valid frames."""
    if mask is None:
        return x.mean(1)
    weight = mask.astype(x.dtype)
    return jnp.einsum("btd,bt->bd", x, weight) / jnp.maximum(weight.sum(1), 1)[:, None]


# ----------------------------------------------------------------------------------- detector


class Detector(nn.Module):
    """Tokens [B, S, D] -> frame_logits [B, T', C], logits [B, C], embedding [B, D'].

    `mask` [B, T] marks the input frames of each clip. The sequence model, means and attention skip
    frames after the clip's end; frame_logits there have no meaning.

    `embedding` is the mean over time of the heads' input.

    Attributes:
      weak_classes: C of `logits` if it differs from `num_classes` (only for head="linear").
      frames: T'; 250 means frames of 40 ms for 10 s. None: one frame per token.
      sequence: "gru" and "lstm" are bidirectional with 2 * sequence_width outputs per frame; a
        linear layer follows the LSTM. "transformer" has sequence_width outputs, rotary positions.
      sequence_width, sequence_depth: width per direction, and number of layers.
      head: "linear" has one layer for frames and another for the mean over time. "attention" has
        per-frame weights, a softmax over the classes in each frame; `logits` is the logit of the
        weighted mean of the frame probabilities, clipped to [1e-7, 1 - 1e-7]. "mean" has one layer
        for frames; the clip's logits are their mean over time.
      head_bias: added to the initial biases of the heads.
    """

    num_classes: int
    weak_classes: int | None = None
    frames: int | None = 250
    sequence: str | None = None
    sequence_width: int = 2048
    sequence_depth: int = 2
    head: str = "linear"
    head_bias: float = 0.0
    attention: str = "auto"
    dtype: str = "float32"
    scan_layers: bool | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, tokens: Array, mask: Array | None = None, train: bool = False) -> dict:
        x = resample(tokens, self.frames or tokens.shape[1])
        mask = frame_mask(mask, x.shape[1])
        if self.sequence is not None:
            x = self._sequence(x, mask, train)
        embedding, classes = mean(x, mask), self.num_classes
        if self.head == "mean":
            frame_logits = self._dense(classes, "weak_head", x)
            logits = mean(frame_logits, mask)
        elif self.head == "linear":
            frame_logits = self._dense(classes, "strong_head", x)
            logits = self._dense(self.weak_classes or classes, "weak_head", embedding)
        else:
            frame_logits = self._dense(classes, "strong_head", x)
            attention = self._dense(classes, "weak_head", x)
            prob, _ = pooling.psla_attention(
                frame_logits, attention, mask=mask, activation="softmax", logit_activation="sigmoid"
            )
            logits = pooling.logit(prob)
        return {"logits": logits, "frame_logits": frame_logits, "embedding": embedding}

    def _sequence(self, x, mask, train):
        if self.sequence == "transformer":
            shared = {k: getattr(self, k) for k in ("attention", "dtype", "scan_layers", "remat")}
            width, depth = self.sequence_width, self.sequence_depth
            return rotary.Encoder(width, depth, **shared, name="seq_model")(x, mask, train)
        return Recurrent(self.sequence, self.sequence_width, self.sequence_depth, name="seq_model")(
            x, mask
        )

    def _dense(self, width: int, name: str, x):
        bound = x.shape[-1] ** -0.5
        start = lambda key, shape, dtype: self.head_bias + _uniform(bound)(key, shape, dtype)  # noqa: E731
        return layers.Dense(width, kernel_init=vit.torch_uniform, bias_init=start, name=name)(x)


class Recurrent(nn.Module):
    """Bidirectional GRU or LSTM with torch's initial weights: [B, T, I] -> [B, T, 2 * width]."""

    cell: str
    width: int
    depth: int

    @nn.compact
    def __call__(self, x, mask=None):
        start = _uniform(self.width**-0.5)
        options = dict(layers=self.depth, kernel_init=start, bias_init=start, name="rnn")
        if self.cell == "gru":
            return recurrent.Gru(self.width, **options)(x, mask)
        x = recurrent.Lstm(self.width, **options)(x, mask)
        bias = _uniform(x.shape[-1] ** -0.5)
        return layers.Dense(
            x.shape[-1], kernel_init=vit.torch_uniform, bias_init=bias, name="embedding"
        )(x)


def _uniform(bound: float):
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


# ------------------------------------------------------------------------- the side of a family


def detect(module, tokens: Array, *, mask: Array | None = None, train: bool = False) -> dict:
    """Run a `Detector` with the fields of a family's `module` on its tokens [B, S, D].

    Returns the outputs of `Detector`, and the tokens in float32 as frame_embedding. For
    num_classes=0, a bare backbone, there are no logits, and embedding is the mean of the tokens.
    """
    tokens = tokens.astype(jnp.float32)
    if not module.num_classes:
        outputs = {"embedding": mean(tokens, frame_mask(mask, tokens.shape[1]))}
    else:
        names = (*FIELDS, "scan_layers", "remat")
        fields = {k: getattr(module, k) for k in names if hasattr(module, k)}
        outputs = Detector(**fields, name="detector")(tokens, mask, train)
    return {**outputs, "frame_embedding": tokens}


def checked(module, family: str, off: bool = False):
    """Return `module` if the fields of its detector are valid; `off`: frames=None is allowed.

    Raises:
      AsjaxError: a field is out of range or has no effect.
    """
    for key, known in (("sequence", SEQUENCES), ("head", HEADS)):
        if getattr(module, key) not in known:
            raise unknown(f"{family} {key}", getattr(module, key), known)
    for key, low in (
        ("num_classes", 0), ("weak_classes", 1), ("frames", 1), ("sequence_width", 1),
        ("sequence_depth", 1),
    ):  # fmt: skip
        value = getattr(module, key)
        if value is None and key in ("weak_classes", "frames"):
            continue
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < low:
            raise AsjaxError(f"{family} {key} must be a whole number from {low} on, got {value!r}")
    if off and module.frames is None:
        for key in ("weak_classes", "sequence", "head"):
            if getattr(module, key) != getattr(type(module), key):
                raise AsjaxError(
                    f"{family} {key}={getattr(module, key)!r} needs a detector; give frames too, "
                    "such as frames=250 (40 ms for 10 s)"
                )
    if module.weak_classes not in (None, module.num_classes) and module.head != "linear":
        raise AsjaxError(f"{family} weak_classes needs head='linear', not {module.head!r}")
    return module


def check_mask(mask, module, family: str):
    """AsjaxError if a mask is given without a detector, where it would have no effect."""
    if mask is not None and module.frames is None:
        raise AsjaxError(f"{family} takes a mask of frames only with a detector; give frames=250")


# --------------------------------------------------------------------------------------- weights

# port rules for a module called "detector", part of a family's TORCH; names are PretrainedSED's
TORCH = (
    (r"(strong_head|weak_head)", r"detector/\1", "linear"),
    *recurrent.rules("seq_model.rnn", "detector/seq_model/rnn"),
    (r"seq_model\.embedding", "detector/seq_model/embedding", "linear"),
    *rotary.rules(r"seq_model", "detector/seq_model"),
)
# entries that a bare backbone (num_classes=0) skips
TORCH_HEAD = (r"(strong_head|weak_head|seq_model)\..*",)
HEADLESS = "give num_classes=0 for the bare backbone"


def renamed(weights: dict, name: str) -> dict:
    """Rename weights to PretrainedSED's `model.NAME.X`; names of heads stay.

    Its files have `model.X` or `model.model.X`, its backbones `NAME.X`, the original files `X`.
    """
    out = {}
    for key, value in weights.items():
        if not any(re.fullmatch(pattern, key) for pattern in TORCH_HEAD):
            key = f"model.{name}." + re.sub(rf"^(model\.)*({name}\.)?", "", key)
        out[key] = value
    return out


def started(own: dict, weights: dict) -> dict:
    """State dict of a new model whose backbone comes from `weights`.

    `own` is the new model's state dict. Head and sequence model come from `weights` too if all
    their names and shapes agree; otherwise they keep their initial values.
    """
    shapes = lambda given: {  # noqa: E731
        k: np.shape(v) for k, v in given.items() if any(re.fullmatch(p, k) for p in TORCH_HEAD)
    }
    heads = shapes(weights)
    drop = set() if heads == shapes(own) else set(heads)
    return {**own, **{k: v for k, v in weights.items() if k not in drop}}


def torch_fields(weights: dict) -> dict:
    """The detector's fields that follow from its weights; {} if there is no detector."""
    rows = lambda key: (*np.shape(weights.get(key)), 0)[0]  # noqa: E731
    strong, weak = rows("strong_head.weight"), rows("weak_head.weight")
    if not strong and not weak:
        return {}
    fields = dict(num_classes=strong or weak, frames=250)
    fields |= {} if strong else {"head": "mean"}
    if strong and weak and strong != weak:
        fields["weak_classes"] = weak
    depth = lambda pattern: len(  # noqa: E731
        {hit[1] for key in weights if (hit := re.fullmatch(pattern, key))}
    )
    recurrent_shape = np.shape(weights.get("seq_model.rnn.weight_hh_l0"))
    if len(recurrent_shape) == 2:
        rows_all, fields["sequence_width"] = recurrent_shape
        fields["sequence"] = {3: "gru", 4: "lstm"}.get(rows_all // recurrent_shape[1])
        fields["sequence_depth"] = depth(r"seq_model\.rnn\.weight_hh_l(\d+)")
    elif "seq_model.norm.weight" in weights:
        fields |= dict(sequence="transformer", sequence_width=rows("seq_model.norm.weight"))
        fields["sequence_depth"] = depth(r"seq_model\.blocks\.(\d+)\.norm1\.weight")
    return fields

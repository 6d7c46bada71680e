"""ConvNeXt for audio tagging (Pellegrini et al. 2023; Liu et al. 2022): 224 log-mel bins, 32 kHz.

feats [B, T, F] -> bn0 over mel bins -> stem (patches, LayerNorm) -> 4 stages of blocks, halving
time and frequency between them -> mean over frequency -> max + mean over time -> norm -> head.
"""

from __future__ import annotations

import re
from collections import Counter

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from asjax.config import AsjaxError
from asjax.nn import layers

VARIANTS = {
    "atto": dict(depths=(2, 2, 6, 2), dims=(40, 80, 160, 320)),
    "femto": dict(depths=(2, 2, 6, 2), dims=(48, 96, 192, 384)),
    "pico": dict(depths=(2, 2, 6, 2), dims=(64, 128, 256, 512)),
    "nano": dict(depths=(2, 2, 8, 2), dims=(80, 160, 320, 640)),
    "tiny": dict(depths=(3, 3, 9, 3), dims=(96, 192, 384, 768)),
    "small": dict(depths=(3, 3, 27, 3), dims=(96, 192, 384, 768)),
    "base": dict(depths=(3, 3, 27, 3), dims=(128, 256, 512, 1024)),
}

FRONTENDS = {variant: dict(name="convnext_logmel224") for variant in VARIANTS}

# stem -> (kernel, stride, padding of both sides); pairs are (time, frequency). The authors' names
# give the grid after the stem for 1001 x 224 input.
STEMS = {
    "56": ((18, 4), (18, 4), 9),
    "112": ((9, 2), (9, 2), 4),
    "252x56": ((4, 4), (4, 4), 4),
    "504x28": ((4, 8), (2, 8), 5),
    "504x56": ((4, 4), (2, 4), 5),
}

# (pattern of the torch module or key, our path, kind): see asjax/weights/port.py
TORCH = (
    (r"bn0", "bn0", "norm"),
    (r"downsample_layers\.0\.0", "stem/conv", "conv"),
    (r"downsample_layers\.0\.1", "stem/norm", "norm"),
    (r"downsample_layers\.([123])\.0", r"down\1/norm", "norm"),
    (r"downsample_layers\.([123])\.1", r"down\1/conv", "conv"),
    (r"stages\.(\d)\.(\d+)\.dwconv", r"stage\1_block\2/dwconv", "conv"),
    (r"stages\.(\d)\.(\d+)\.norm", r"stage\1_block\2/norm", "norm"),
    (r"stages\.(\d)\.(\d+)\.(pwconv[12])", r"stage\1_block\2/\3", "linear"),
    (r"stages\.(\d)\.(\d+)\.gamma", r"stage\1_block\2/gamma", "param"),
    (r"norm", "norm", "norm"),
    (r"head_audioset", "head", "linear"),
)
TORCH_SKIP = (r"spectrogram_extractor\..*", r"logmel_extractor\..*")

# timm's names of the ImageNet models -> the authors' names, which are facebook's
_TIMM = (
    (r"stem\.([01])\.", r"downsample_layers.0.\1."),
    (r"stages\.([123])\.downsample\.([01])\.", r"downsample_layers.\1.\2."),
    (r"(stages\.\d)\.blocks(\.\d+)\.conv_dw\.", r"\1\2.dwconv."),
    (r"(stages\.\d)\.blocks(\.\d+)\.mlp\.fc([12])\.", r"\1\2.pwconv\3."),
    (r"(stages\.\d)\.blocks(\.\d+)\.", r"\1\2."),
    (r"head\.norm\.", r"norm."),
)

# the authors truncate at +-2, which is 100 deviations, so a plain normal is the same
_normal = nn.initializers.normal(0.02)


def model(variant: str, **over) -> ConvNeXt:
    """The linen module of a variant; `over` replaces fields (num_classes=200, stem="56", ...)."""
    if over.get("stem", "56") not in STEMS:
        raise layers.unknown("ConvNeXt stem", over["stem"], STEMS)
    return layers.make(ConvNeXt, VARIANTS, variant, over)


def torch_fields(weights) -> dict:
    """Fields from the shapes of a checkpoint; stem "504x56" has the same kernel as "252x56"."""
    kernel = np.shape(weights.get("downsample_layers.0.0.weight"))[2:]
    stems = [stem for stem in ("252x56", *STEMS) if STEMS[stem][0] == kernel]
    fields = {"stem": stems[0]} if stems else {}
    bins = np.shape(weights.get("bn0.weight"))
    blocks = [re.fullmatch(r"stages\.(\d)\.\d+\.gamma", key) for key in weights]
    widths = {int(hit[1]): np.shape(weights[hit[0]]) for hit in blocks if hit}
    if widths.keys() == set(range(4)):
        counts = Counter(int(hit[1]) for hit in blocks if hit)
        fields["depths"] = tuple(counts[stage] for stage in range(4))
        fields["dims"] = tuple(widths[stage][0] for stage in range(4))
    return {**fields, "n_mels": bins[0]} if bins else fields


class Block(nn.Module):
    """x + drop_path(gamma * MLP(LayerNorm(depthwise 7x7(x)))), x [B, T, F, C]."""

    drop_path: float
    layer_scale: float
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train: bool):
        width = x.shape[-1]
        y = layers.DepthwiseConv(7, self.dtype, _normal, name="dwconv")(x)
        y = layers.layer_norm("norm", self.dtype)(y)
        y = layers.Dense(4 * width, dtype=self.dtype, kernel_init=_normal, name="pwconv1")(y)
        y = layers.GeluDense(width, dtype=self.dtype, kernel_init=_normal, name="pwconv2")(y)
        gamma = self.param("gamma", nn.initializers.constant(self.layer_scale), (width,))
        y = layers.expand(gamma.astype(self.dtype), 4) * y
        return x + layers.DropPath(self.drop_path)(y, train)


class Stem(nn.Module):
    """[B, T, F, 1] -> [B, T', F', width]: strided convolution, then LayerNorm over channels."""

    stem: str
    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        kernel, stride, pad = STEMS[self.stem]
        if kernel == stride:
            x = jnp.pad(x, ((0, 0), (pad, pad), (0, 0), (0, 0)))
            conv = layers.PatchConv(self.width, kernel, self.dtype, _normal, name="conv")
        else:
            conv = nn.Conv(
                self.width,
                kernel,
                strides=stride,
                padding=((pad, pad), (0, 0)),
                dtype=self.dtype,
                kernel_init=_normal,
                name="conv",
            )
        return layers.layer_norm("norm", self.dtype)(conv(x))


class Downsample(nn.Module):
    """LayerNorm, then a 2x2 convolution of stride 2: [B, T, F, C] -> [B, T // 2, F // 2, width]."""

    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        x = layers.layer_norm("norm", self.dtype)(x)
        return layers.PatchConv(self.width, (2, 2), self.dtype, _normal, name="conv")(x)


class ConvNeXt(nn.Module):
    """An audio ConvNeXt on log-mel features in dB.

    Args of the call:
      feats: [B, T, n_mels]. Input that is too short for one output frame (fewer than 24 frames with
        stem "252x56", 126 with "56") is zero-padded at the end after bn0.
      augment: a function [B, T, F] -> [B, T, F], applied after bn0.

    Returns:
      logits: float32 [B, num_classes].
      embedding: [B, D], pooled and normalised.
      frame_embedding: [B, T', D], the mean over frequency of the last stage; 31 frames for 10 s.

    Attributes:
      drop_path_rate: stochastic depth, linear from 0 at the first block to this rate at the last.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    num_classes: int = 527
    n_mels: int = 224
    stem: str = "252x56"
    drop_path_rate: float = 0.0
    layer_scale: float = 1e-6
    head_bias: float = 0.0  # initial bias; with log(p / (1 - p)) every class starts at p
    remat: bool = False
    dtype: str = "float32"

    @property
    def min_frames(self) -> int:
        """Smallest number of frames that gives one output frame after stem and three halvings."""
        (kernel, _), (stride, _), pad = STEMS[self.stem]
        return max(1, 7 * stride + kernel - 2 * pad)

    @property
    def example_shape(self) -> tuple[int, int]:
        """Shape of one input, for shape inference."""
        return (self.min_frames, self.n_mels)

    def _check(self, feats):
        layers.check_feats(feats, self.n_mels, "ConvNeXt")
        (_, kernel), (_, stride), _ = STEMS[self.stem]
        if (self.n_mels - kernel) // stride + 1 < 8:
            least = 7 * stride + kernel
            raise layers.AsjaxError(
                f"n_mels must be at least {least} with stem {self.stem!r}, got {self.n_mels}"
            )

    @nn.compact
    def __call__(self, feats, *, train: bool = False, augment=None):
        self._check(feats)
        x = layers.BatchNorm(name="bn0")(feats, train)
        if augment is not None:
            x = augment(x)
        x = layers.pad_frames(x, self.min_frames).astype(self.dtype)[..., None]
        last = max(sum(self.depths) - 1, 1)
        done = 0
        for stage, (depth, width) in enumerate(zip(self.depths, self.dims, strict=True)):
            if stage == 0:
                x = Stem(self.stem, width, self.dtype, name="stem")(x)
            else:
                x = Downsample(width, self.dtype, name=f"down{stage}")(x)
            for block in range(depth):
                rate = self.drop_path_rate * done / last
                done += 1
                name = f"stage{stage}_block{block}"
                kind = layers.remat(Block, self)
                x = kind(rate, self.layer_scale, self.dtype, name=name)(x, train)
        frames = x.astype(jnp.float32).mean(2)  # [B, T', D]
        x = layers.layer_norm("norm", "float32")(layers.max_mean(frames))
        start = nn.initializers.constant(self.head_bias)
        logits = layers.Dense(self.num_classes, kernel_init=_normal, bias_init=start, name="head")(
            x
        )
        return {"logits": logits, "embedding": x, "frame_embedding": frames}


# ------------------------------------------------------------------------- the start from ImageNet


def init_from_imagenet(module: ConvNeXt, variables, weights) -> dict:
    """Replace all of `variables` but bn0 and the head by those of an ImageNet ConvNeXt.

        tiny = torch.load("convnext_tiny_1k_224_ema.pth")["model"]
        variables = convnext.init_from_imagenet(module, module.init(rng, feats), tiny)

    The stem's kernel is summed over the three colours. Its size 4x4 fits the stems "252x56" and
    "504x56". Other stems keep the initial convolution (kernel and bias) and take only the norm
    after it. The authors' code keeps the initial convolution in every audio stem. For atto to nano
    it loads nothing, because the names in the file differ from its own.

    Args:
      module: the ConvNeXt to which `variables` belong; the variants are ImageNet's.
      weights: name -> array with the names of facebook (`downsample_layers.0.0.weight`) or timm
        (`stem.0.weight`). Linear layers may be 1x1 convolutions. The classifier is not used.

    Raises:
      AsjaxError: lists every entry that is missing, left over or of another shape.
    """
    fresh = flatten_dict(variables["params"], sep="/")
    drawn = ("bn0/", "head/") + (() if STEMS[module.stem][0] == (4, 4) else ("stem/conv/",))
    wanted = {path: leaf for path, leaf in fresh.items() if not path.startswith(drawn)}
    found, trouble = {}, []
    for key, value in weights.items():
        path = _imagenet_path(key)
        if path is None or path.startswith(drawn):
            continue
        array = _imagenet_array(path, value)
        if path not in wanted or path in found:
            trouble.append(f"left over: {key} {np.shape(value)}")
        elif array is None or array.shape != wanted[path].shape:
            want = wanted[path].shape
            trouble.append(f"misshapen: {key} {np.shape(value)} does not give {path} {want}")
        found[path] = array
    trouble += [
        f"missing: the entry for {path} {wanted[path].shape}"
        for path in wanted.keys() - found.keys()
    ]
    if trouble:
        listed = "; ".join(sorted(trouble))
        raise AsjaxError(f"ConvNeXt from ImageNet: {len(trouble)} entries do not fit: {listed}")
    started = {path: jnp.asarray(found[path], wanted[path].dtype) for path in wanted}
    return {**variables, "params": unflatten_dict({**fresh, **started}, sep="/")}


def _imagenet_path(key: str) -> str | None:
    """Our path of an entry; its own name if we have no such layer; None for the head."""
    name = key
    for pattern, ours in _TIMM:
        name = re.sub(f"^{pattern}", ours, name)
    if name.startswith("head."):
        return None
    owner, _, leaf = name.rpartition(".")
    for pattern, path, kind in TORCH:
        hit = re.fullmatch(pattern, name if kind == "param" else owner)
        if hit and kind == "param":
            return hit.expand(path)
        if hit:
            leaf = {"norm": "scale"}.get(kind, "kernel") if leaf == "weight" else leaf
            return f"{hit.expand(path)}/{leaf}"
    return key


def _imagenet_array(path: str, value) -> np.ndarray | None:
    """A torch array in our layout; None if it holds no numbers or has an unknown rank."""
    try:
        x = np.asarray(value, np.float32)
    except (TypeError, ValueError, RuntimeError):
        return None
    if not path.endswith("/kernel"):
        return x
    if "/pwconv" in path:  # a linear layer, or the same as a 1x1 convolution
        return x.reshape(x.shape[:2]).T if x.shape[2:] in ((), (1, 1)) else None
    if x.ndim != 4:
        return None
    x = x.transpose(2, 3, 1, 0)
    return x.sum(2, keepdims=True) if path == "stem/conv/kernel" and x.shape[2] == 3 else x

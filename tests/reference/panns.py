"""PANNs' networks in naive float64 numpy from the authors' state dicts; maps are [B, C, T, F].

`train=True` uses batch statistics. There is no dropout.
"""

import numpy as np


def conv(x, weight, pad=None, stride=1, dilation=1):
    """Convolution over the last one or two axes of x [B, C, ...] with `pad` zeros on each side."""
    weight, sizes = np.float64(weight), weight.shape[2:]
    pad = sizes[0] // 2 if pad is None else pad
    x = np.pad(x, [(0, 0), (0, 0)] + [(pad, pad)] * len(sizes))
    if len(sizes) == 1:
        count = (x.shape[2] - dilation * (sizes[0] - 1) - 1) // stride + 1
        taps = [(i,) for i in range(sizes[0])]
    else:
        taps = list(np.ndindex(*sizes))
    out = 0.0
    for tap in taps:
        if len(sizes) == 1:
            begin = tap[0] * dilation
            part = x[:, :, begin : begin + stride * (count - 1) + 1 : stride]
        else:
            ends = [n - k + i + 1 for n, k, i in zip(x.shape[2:], sizes, tap, strict=True)]
            part = x[:, :, tap[0] : ends[0], tap[1] : ends[1]]
        out = out + np.einsum("bc...,oc->bo...", part, weight[(..., *tap)])
    return out


def norm(sd, name, x, train):
    axes = (0, *range(2, x.ndim))
    mean, var = sd[f"{name}.running_mean"], sd[f"{name}.running_var"]
    if train:
        mean, var = x.mean(axes), x.var(axes)
    scale = sd[f"{name}.weight"] / np.sqrt(np.float64(var) + 1e-5)
    column = lambda v: np.float64(v).reshape(1, -1, *[1] * (x.ndim - 2))  # noqa: E731
    return (x - column(mean)) * column(scale) + column(sd[f"{name}.bias"])


def relu(x):
    return np.maximum(x, 0)


def pool(x, pt, pf):
    b, c, t, f = x.shape
    x = x[:, :, : t // pt * pt, : f // pf * pf].reshape(b, c, t // pt, pt, f // pf, pf)
    return x.mean((3, 5))


def block(sd, name, x, size, train):
    for i in (1, 2):
        x = relu(norm(sd, f"{name}.bn{i}", conv(x, sd[f"{name}.conv{i}.weight"]), train))
    return pool(x, *size)


def start(sd, feats, train):
    """[B, T, F] -> bn0 -> [B, 1, T, F]."""
    return norm(sd, "bn0", np.float64(feats).swapaxes(1, 2), train).swapaxes(1, 2)[:, None]


def linear(sd, name, x):
    return x @ np.float64(sd[f"{name}.weight"]).T + sd[f"{name}.bias"]


def clip(sd, x):
    """Maps -> logits and embedding of a clip-level network."""
    x = x.mean(3)
    x = relu(linear(sd, "fc1", x.max(2) + x.mean(2)))
    return linear(sd, "fc_audioset", x), x


def decide(sd, frames, how):
    """[B, T', C] -> probability of the clip, logits of the frames (decision level)."""
    count = frames.shape[1]
    x = np.zeros_like(frames)
    for t in range(count):
        near = frames[:, max(0, t - 1) : t + 2]
        x[:, t] = near.max(1) + near.sum(1) / 3
    x = relu(linear(sd, "fc1", x))
    if how == "attention":
        attention = np.exp(np.clip(_conv1x1(sd, "att_block.att", x), -10, 10))
        logits = _conv1x1(sd, "att_block.cla", x)
        weights = attention / attention.sum(1, keepdims=True)
    else:
        logits = linear(sd, "fc_audioset", x)
        weights = np.ones_like(logits) / count
    prob = 1 / (1 + np.exp(-logits))
    return (prob.max(1) if how == "max" else (weights * prob).sum(1)), logits


def _conv1x1(sd, name, x):
    return x @ np.float64(sd[f"{name}.weight"][:, :, 0]).T + sd[f"{name}.bias"]


def resnet(sd, feats, depths, train=False):
    x = block(sd, "conv_block1", start(sd, feats, train), (2, 2), train)
    for layer, depth in enumerate(depths, 1):
        for i in range(depth):
            x = _residual(sd, f"resnet.layer{layer}.{i}", x, layer > 1 and i == 0, train)
    x = block(sd, "conv_block_after1", pool(x, 2, 2), (1, 1), train)
    return clip(sd, x)


def _residual(sd, name, x, halve, train):
    count = sum(k.startswith(f"{name}.conv") for k in sd)
    y = pool(x, 2, 2) if halve else x
    for i in range(1, count + 1):
        y = norm(sd, f"{name}.bn{i}", conv(y, sd[f"{name}.conv{i}.weight"]), train)
        y = relu(y) if i < count else y
    first = 1 if halve else 0
    if f"{name}.downsample.{first}.weight" in sd:
        x = conv(pool(x, 2, 2) if halve else x, sd[f"{name}.downsample.{first}.weight"])
        x = norm(sd, f"{name}.downsample.{first + 1}", x, train)
    return relu(x + y)


def wavegram(sd, wave, feats, train=False, mix=lambda x: x):
    """Wave [B, S] and log-mel [B, T, F] -> logits, embedding; `mix` mixes clips as PANNs do."""
    a = conv(np.float64(wave)[:, None], sd["pre_conv0.weight"], stride=5)
    a = relu(norm(sd, "pre_bn0", a, train))
    for i in (1, 2, 3):
        for j in (1, 2):
            weight = sd[f"pre_block{i}.conv{j}.weight"]
            a = relu(norm(sd, f"pre_block{i}.bn{j}", conv(a, weight, j, dilation=j), train))
        a = a[:, :, : a.shape[2] // 4 * 4]
        a = a.reshape(*a.shape[:2], -1, 4).max(3)
    a = a.reshape(len(a), 4, -1, a.shape[2]).swapaxes(2, 3)
    a = mix(block(sd, "pre_block4", a, (2, 1), train))
    x = block(sd, "conv_block1", mix(start(sd, feats, train)), (2, 2), train)
    assert x.shape[2] == a.shape[2], "the branches disagree: the authors' code fails here"
    x = np.concatenate([x, a], 1)
    for i in range(2, 7):
        x = block(sd, f"conv_block{i}", x, (1, 1) if i == 6 else (2, 2), train)
    return clip(sd, x)

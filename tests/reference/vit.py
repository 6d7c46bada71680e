"""timm-style pre-norm transformer blocks in float64 numpy, from a torch state dict."""

import numpy as np
import rule
from scipy.special import erf, softmax


def shapes(depth, width, hidden, *, qkv_bias=True):
    """{name: shape} of `depth` blocks and the final norm."""
    out = {"norm.weight": (width,), "norm.bias": (width,)}
    for i in range(depth):
        for name, shape in {
            "norm1": (width,),
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "norm2": (width,),
            "mlp.fc1": (hidden, width),
            "mlp.fc2": (width, hidden),
        }.items():
            out[f"blocks.{i}.{name}.weight"] = shape
            if qkv_bias or name != "attn.qkv":
                out[f"blocks.{i}.{name}.bias"] = shape[:1]
    return out


def fill(shapes, seed="a"):
    """A state dict of these shapes, filled by rule.py, with larger position embeddings."""
    out = {k: rule.param(k, s, "float32", salt=seed) for k, s in shapes.items()}
    for key in out:
        if "pos_embed" in key or "token" in key:
            out[key] = rule.array(key, shapes[key], salt=seed, scale=0.5)
    return out


def layer_norm(x, w, name, epsilon=1e-6):
    """LayerNorm over the last axis."""
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + epsilon) * w[name + ".weight"] + w[name + ".bias"]


def linear(x, w, name):
    """x W^T + b, or without b if there is none."""
    return x @ w[name + ".weight"].T.astype(np.float64) + w.get(name + ".bias", 0)


def block(x, w, name, heads):
    """One block on tokens [S, D]."""
    y = linear(layer_norm(x, w, name + ".norm1"), w, name + ".attn.qkv")
    q, k, v = y.reshape(len(x), 3, heads, -1).transpose(1, 2, 0, 3)
    y = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]), -1) @ v
    x = x + linear(y.swapaxes(0, 1).reshape(len(x), -1), w, name + ".attn.proj")
    y = linear(layer_norm(x, w, name + ".norm2"), w, name + ".mlp.fc1")
    return x + linear(y * (1 + erf(y / np.sqrt(2))) / 2, w, name + ".mlp.fc2")


def encode(x, w, depth, heads):
    """The output of every block after the final norm: [S, D] -> `depth` of them."""
    out = []
    for i in range(depth):
        x = block(x, w, f"blocks.{i}", heads)
        out.append(layer_norm(x, w, "norm"))
    return out

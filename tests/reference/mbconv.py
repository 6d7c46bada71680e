"""EfficientAT's MobileNet and PSLA's EfficientNet from a state dict, with torch's operations.

The structure of the network follows from the names in the state dict, not from tables.
"""

import math

import torch
import torch.nn.functional as F


class Net:
    """`weights`: name -> tensor; running statistics are updated in place when `train`."""

    def __init__(self, weights, train=False):
        self.w, self.train = weights, train

    def norm(self, x, name, eps=1e-3, momentum=0.01):
        leaves = ("running_mean", "running_var", "weight", "bias")
        mean, var, scale, bias = (self.w[f"{name}.{k}"] for k in leaves)
        return F.batch_norm(x, mean, var, scale, bias, self.train, momentum, eps)

    def linear(self, x, name):
        return F.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])


class MobileNet(Net):
    """x [B, 1, F, T]; strides [(frequency, time)] of the 15 blocks."""

    def conv(self, x, name, stride=1):
        w = self.w[f"{name}.weight"]
        groups = x.shape[1] if w.shape[1] == 1 and w.shape[2] > 1 else 1
        return F.conv2d(x, w, stride=stride, padding=w.shape[2] // 2, groups=groups)

    def block(self, x, at, act, stride):
        y, last = x, max(i for i in range(4) if f"features.{at}.block.{i}.0.weight" in self.w)
        for i in range(last + 1):
            name = f"features.{at}.block.{i}"
            if f"{name}.0.weight" not in self.w:
                s = y.mean((2, 3))
                s = F.relu(self.linear(s, f"{name}.conc_se_layers.0.fc1"))
                s = torch.sigmoid(self.linear(s, f"{name}.conc_se_layers.0.fc2"))
                y = y * s[:, :, None, None]
                continue
            spatial = self.w[f"{name}.0.weight"].shape[2] > 1
            y = self.norm(self.conv(y, f"{name}.0", stride if spatial else 1), f"{name}.1")
            y = act(y) if i < last else y
        return y + x if y.shape == x.shape and tuple(stride) == (1, 1) else y

    def features(self, x, strides):
        x = F.hardswish(self.norm(self.conv(x, "features.0.0", 2), "features.0.1"))
        for i, stride in enumerate(strides):
            x = self.block(x, i + 1, F.relu if i < 6 else F.hardswish, stride)
        return F.hardswish(self.norm(self.conv(x, "features.16.0"), "features.16.1"))

    def __call__(self, x, strides):
        x = self.features(x, strides)
        pooled = x.mean((2, 3))
        if "classifier.2.weight" in self.w:
            logits = self.linear(F.hardswish(self.linear(pooled, "classifier.2")), "classifier.5")
        elif "classifier.1.weight" in self.w:
            y = self.conv(x, "classifier.0")
            logits = self.norm(y, "classifier.1", 1e-5, 0.1).mean((2, 3))
        else:
            weight = self.w["classifier.head_weight"]
            y = self.linear(x.mean(2).transpose(1, 2), "classifier.subspace_proj")
            att, value = y.unflatten(-1, (2, weight.shape[1], -1)).unbind(2)
            att = torch.sigmoid(att).clamp(1e-7, 1 - 1e-7)
            logits = ((att / att.sum(1, keepdim=True) * value).sum(1) * weight).sum(1)
        return logits, pooled


class EfficientNet(Net):
    """x [B, 1, F, T]; `strides` of the blocks, `image` the nominal size."""

    def conv(self, x, name, image, stride=1, groups=1):
        w = self.w[f"{name}.weight"]
        total = max((math.ceil(image / stride) - 1) * stride + w.shape[2] - image, 0)
        pad = (total // 2, total - total // 2)
        bias = self.w.get(f"{name}.bias")
        return F.conv2d(F.pad(x, pad * 2), w, bias, stride=stride, groups=groups)

    def features(self, x, strides, image):
        x = F.silu(self.norm(self.conv(x, "effnet._conv_stem", image, 2), "effnet._bn0"))
        image = math.ceil(image / 2)
        for i, stride in enumerate(strides):
            name, y = f"effnet._blocks.{i}", x
            if f"{name}._expand_conv.weight" in self.w:
                y = F.silu(self.norm(self.conv(y, f"{name}._expand_conv", image), f"{name}._bn0"))
            y = self.conv(y, f"{name}._depthwise_conv", image, stride, y.shape[1])
            y = F.silu(self.norm(y, f"{name}._bn1"))
            s = F.silu(self.conv(F.adaptive_avg_pool2d(y, 1), f"{name}._se_reduce", 1))
            y = torch.sigmoid(self.conv(s, f"{name}._se_expand", 1)) * y
            image = math.ceil(image / stride)
            y = self.norm(self.conv(y, f"{name}._project_conv", image), f"{name}._bn2")
            x = x + y if stride == 1 and x.shape[1] == y.shape[1] else y
        return F.silu(self.norm(self.conv(x, "effnet._conv_head", image), "effnet._bn1"))

    def head(self, x, suffix):
        def layer(name):
            w, b = (self.w[f"attention.{name}{suffix}.{leaf}"] for leaf in ("weight", "bias"))
            return torch.sigmoid(F.conv2d(x, w, b))[..., 0]

        if f"attention.att{suffix}.weight" not in self.w:
            return layer("cla").mean(2)
        att = layer("att").clamp(1e-7, 1 - 1e-7)
        return (att / att.sum(2, keepdim=True) * layer("cla")).sum(2)

    def __call__(self, x, strides, image):
        x = F.avg_pool2d(self.features(x, strides, image), (4, 1)).transpose(2, 3)
        weight = self.w.get("attention.head_weight")
        if weight is None:
            return self.head(x, "")
        return sum(self.head(x, f".{i}") * h for i, h in enumerate(weight))

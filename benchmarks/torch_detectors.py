"""PretrainedSED's frame models in plain PyTorch, for the comparison in `train_step.py`.

They have the layers, shapes and parameter counts of the published models with two linear heads of
447 classes, and the dropout that PretrainedSED trains BEATs with. Weights are random. Every net
takes feats [B, T, F] and returns (logits [B, C], frame logits [B, 250, C]).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as f
from torch_models import VitBlock

CLASSES, FRAMES, WIDTH = 447, 250, 768


def param(*shape):
    return nn.Parameter(0.02 * torch.randn(shape))


class Wrapper(nn.Module):
    """Tokens of a backbone [B, S, D] -> 250 frames -> two linear heads."""

    def __init__(self, backbone, width=WIDTH):
        super().__init__()
        self.backbone = backbone
        self.strong, self.weak = nn.Linear(width, CLASSES), nn.Linear(width, CLASSES)

    def forward(self, feats):
        x = self.backbone(feats).transpose(1, 2)
        if x.shape[2] > FRAMES:
            x = f.adaptive_avg_pool1d(x, FRAMES)
        elif x.shape[2] < FRAMES:
            x = f.interpolate(x, FRAMES, mode="linear")
        x = x.transpose(1, 2)
        return self.weak(x.mean(1)), self.strong(x)


def encoder(bias=True):
    return nn.Sequential(*[VitBlock(WIDTH, 12, bias) for _ in range(12)])


class AtstFrame(nn.Module):
    """Patches of 64 bins x 4 frames, no class token."""

    def __init__(self):
        super().__init__()
        self.mask_embed, self.places = param(1, 1, WIDTH), param(1, 1 + FRAMES, WIDTH)
        self.patches, self.blocks = nn.Linear(256, WIDTH), encoder(bias=False)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, feats):
        b, t, bins = feats.shape
        x = feats[:, : t - t % 4].reshape(b, t // 4, 4, bins).transpose(2, 3).flatten(2)
        x = self.patches(x) + self.places[:, 1 : 1 + t // 4]
        return self.norm(self.blocks(x))


class FPasst(nn.Module):
    """Three convolutions, a linear layer on two frames, encodings of time and frequency."""

    def __init__(self):
        super().__init__()
        conv = lambda i, o, s: nn.Sequential(nn.Conv2d(i, o, 3, s, 1), nn.GELU())  # noqa: E731
        self.stem = nn.Sequential(conv(1, 16, 2), conv(16, 32, 1), conv(32, 64, 2))
        self.patches = nn.Conv2d(16, WIDTH, (128, 2), padding=(0, 1))
        self.time, self.frequency = param(1, WIDTH, 1, FRAMES), param(1, WIDTH, 1, 1)
        self.tokens, self.token_places = param(1, 2, WIDTH), param(1, 2, WIDTH)
        self.blocks, self.norm = encoder(), nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, feats):
        x = self.stem(feats[:, None].transpose(2, 3))
        x = self.patches(x.reshape(len(x), 16, 128, -1))[..., 1:]
        x = (x + self.time[..., : x.shape[3]] + self.frequency).flatten(2).transpose(1, 2)
        tokens = (self.tokens + self.token_places).expand(len(x), -1, -1)
        return self.norm(self.blocks(torch.cat([tokens, x], 1)))[:, 2:]


class M2d(nn.Module):
    """16x16 patches ordered by frequency; a step in time has the tokens of its five rows."""

    def __init__(self):
        super().__init__()
        self.norm_stats, self.cls, self.places = param(2), param(1, 1, WIDTH), param(1, 311, WIDTH)
        self.patches, self.blocks = nn.Conv2d(1, WIDTH, 16, 16), encoder()
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, feats):
        x = self.patches(feats[:, None].transpose(2, 3))
        b, _, high, wide = x.shape
        x = x.flatten(2).transpose(1, 2) + self.places[:, 1:]
        x = torch.cat([(self.cls + self.places[:, :1]).expand(b, -1, -1), x], 1)
        x = self.norm(self.blocks(x))[:, 1:].reshape(b, high, wide, WIDTH)
        return x.transpose(1, 2).reshape(b, wide, -1)


class Asit(nn.Module):
    """16x16 patches ordered by time; the class token stays the first output."""

    def __init__(self):
        super().__init__()
        self.cls, self.places = param(1, 1, WIDTH), param(1, 297, WIDTH)
        self.patches, self.blocks = nn.Conv2d(1, WIDTH, 16, 16), encoder()
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, feats):
        x = self.patches(feats[:, None])
        grid = self.places[:, 1:].transpose(1, 2).reshape(1, WIDTH, 8, 37)
        grid = f.interpolate(grid, size=x.shape[2:], mode="bicubic")
        places = torch.cat([self.places[:, :1], grid.flatten(2).transpose(1, 2)], 1)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
        return self.norm(self.blocks(x + places))


class BeatsLayer(nn.Module):
    """Post-norm layer: attention with a gated bias of relative positions, scaled residuals."""

    def __init__(self, heads=12, depth=12):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.gate, self.gate_scale = nn.Linear(WIDTH // heads, 8), param(1, heads, 1, 1)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.heads, self.scale = heads, (2 * depth) ** 0.25

    def forward(self, x, position):
        drop = lambda y: f.dropout(y, 0.1, self.training)  # noqa: E731
        x = self.norm1(self.scale * x + drop(self.attend(x, position, drop)))
        return self.norm2(self.scale * x + drop(self.fc2(f.gelu(self.fc1(x)))))

    def attend(self, x, position, drop):
        b, s, _ = x.shape
        q, k, v = (
            y(x).reshape(b, s, self.heads, -1).transpose(1, 2) for y in (self.q, self.k, self.v)
        )
        a, c = self.gate(q).reshape(b, self.heads, s, 2, 4).sum(-1).sigmoid().chunk(2, -1)
        bias = (a * (c * self.gate_scale - 1) + 2) * position
        p = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias).softmax(-1)
        return self.out((drop(p) @ v).transpose(1, 2).reshape(b, s, WIDTH))


class Beats(nn.Module):
    """16x16 patches, a convolution over 128 tokens, layers that share a table of positions."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 512, 16, 16, bias=False)
        self.patch_norm, self.project = nn.LayerNorm(512), nn.Linear(512, WIDTH)
        conv = nn.Conv1d(WIDTH, WIDTH, 128, padding=64, groups=16)
        self.conv = nn.utils.parametrizations.weight_norm(conv, dim=2)
        self.norm, self.table = nn.LayerNorm(WIDTH), nn.Embedding(320, 12)
        self.layers = nn.ModuleList([BeatsLayer() for _ in range(12)])

    def forward(self, feats):
        drop = lambda y: f.dropout(y, 0.1, self.training)  # noqa: E731
        x = self.patches(feats[:, None]).flatten(2).transpose(1, 2)
        x = drop(self.project(self.patch_norm(x)))
        x = drop(self.norm(x + f.gelu(self.conv(x.transpose(1, 2))[..., :-1]).transpose(1, 2)))
        position = self.table(self.buckets(x.shape[1])).permute(2, 0, 1)
        for layer in self.layers:
            if not self.training or np.random.random() > 0.05:
                x = layer(x, position)
        return x

    @staticmethod
    def buckets(count, half=160, farthest=800):
        at = torch.arange(count)
        distance = at[None] - at[:, None]
        size, exact = distance.abs(), half // 2
        wide = exact + (size / exact).log().div(np.log(farthest / exact)).mul(half - exact).clamp(
            min=0
        )
        wide = wide.long().clamp(max=half - 1)
        return torch.where(size < exact, size, wide) + half * (distance > 0)


class Excite(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, divisible(width // 4))
        self.fc2 = nn.Linear(divisible(width // 4), width)

    def forward(self, x):
        s = self.fc2(f.relu(self.fc1(x.mean((2, 3))))).sigmoid()
        return x * s[:, :, None, None]


def divisible(width: float) -> int:
    whole = max(8, int(width + 4) // 8 * 8)
    return whole + 8 if whole < 0.9 * width else whole


def conv(i, o, k=1, stride=1, groups=1, act=None):
    layers = [nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=False)]
    return layers + [nn.BatchNorm2d(o, 1e-3, 0.01), *([act()] if act else [])]


class InvertedBottleneck(nn.Module):
    def __init__(self, before, kernel, wide, width, excite, act, stride):
        super().__init__()
        layers = conv(before, wide, act=act) if wide != before else []
        layers += conv(wide, wide, kernel, stride, wide, act)
        layers += [Excite(wide)] if excite else []
        self.body = nn.Sequential(*layers, *conv(wide, width))
        self.same = stride == (1, 1) and before == width

    def forward(self, x):
        return self.body(x) + x if self.same else self.body(x)


# kernel, expanded width, width, squeeze and excite, hardswish, stride of frequency, of time
BLOCKS = (
    (3, 16, 16, 0, 0, 1, 1), (3, 64, 24, 0, 0, 2, 2), (3, 72, 24, 0, 0, 2, 1),
    (5, 72, 40, 1, 0, 1, 1), (5, 120, 40, 1, 0, 1, 1), (5, 120, 40, 1, 0, 2, 1),
    (3, 240, 80, 0, 1, 1, 1), (3, 200, 80, 0, 1, 2, 1), (3, 184, 80, 0, 1, 1, 1),
    (3, 184, 80, 0, 1, 1, 1), (3, 480, 112, 1, 1, 2, 1), (3, 672, 112, 1, 1, 1, 1),
    (5, 672, 160, 1, 1, 1, 1), (5, 960, 160, 1, 1, 1, 1), (5, 960, 160, 1, 1, 2, 1),
)  # fmt: skip


class FrameMobileNet(nn.Module):
    def __init__(self, multiplier=1.0):
        super().__init__()
        wide = lambda channels: divisible(channels * multiplier)  # noqa: E731
        layers, before = conv(1, wide(16), 3, 2, act=nn.Hardswish), wide(16)
        for kernel, expanded, width, excite, hard, *stride in BLOCKS:
            act = nn.Hardswish if hard else nn.ReLU
            sizes = kernel, wide(expanded), wide(width)
            layers.append(InvertedBottleneck(before, *sizes, excite, act, tuple(stride)))
            before = wide(width)
        self.body = nn.Sequential(*layers, *conv(before, 6 * before, act=nn.Hardswish))
        self.width = 6 * before

    def forward(self, feats):
        return self.body(feats[:, None].transpose(2, 3)).mean(2).transpose(1, 2)


NETS = {
    "atst_frame": lambda: Wrapper(AtstFrame()),
    "beats": lambda: Wrapper(Beats()),
    "fpasst": lambda: Wrapper(FPasst()),
    "m2d": lambda: Wrapper(M2d(), 5 * WIDTH),
    "asit": lambda: Wrapper(Asit()),
    "frame_mn06": lambda: Wrapper(FrameMobileNet(0.6), 576),
    "frame_mn10": lambda: Wrapper(FrameMobileNet(), 960),
}

"""The same architectures in plain PyTorch, written the quick way, for `train_step.py` to race with.

Weights are torch's defaults: only the shape of the work matters here, parity is tested elsewhere.
Every net takes feats [B, T, F] and returns logits [B, C].
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as f

CLASSES = 527


class Cnn(nn.Module):
    """CNN6 (one 5x5 convolution a block) or CNN14 (two 3x3)."""

    def __init__(self, widths, convs, size, width):
        super().__init__()
        self.bn0, self.blocks, before = nn.BatchNorm2d(64), nn.ModuleList(), 1
        for out in widths:
            layers = []
            for _ in range(convs):
                layers.append(nn.Conv2d(before, out, size, padding=size // 2, bias=False))
                layers += [nn.BatchNorm2d(out), nn.ReLU()]
                before = out
            self.blocks.append(nn.Sequential(*layers))
        self.pools = [2] * min(len(widths), 5) + [1] * (len(widths) - 5)
        self.fc1, self.head = nn.Linear(before, width), nn.Linear(width, CLASSES)

    def forward(self, feats):
        x = self.bn0(feats[:, None].transpose(1, 3)).transpose(1, 3)
        for block, pool in zip(self.blocks, self.pools, strict=True):
            x = f.dropout(f.avg_pool2d(block(x), pool), 0.2, self.training)
        x = x.mean(3)
        x = f.dropout(x.amax(2) + x.mean(2), 0.5, self.training)
        return self.head(f.relu(self.fc1(x)))


class ChannelNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(1e-6 * torch.ones(width))

    def forward(self, x):
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.down(f.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    def __init__(self, depths=(2, 2, 6, 2), dims=(48, 96, 192, 384)):
        super().__init__()
        self.bn0 = nn.BatchNorm2d(224)
        body = [nn.Conv2d(1, dims[0], 4, 4, (4, 0)), ChannelNorm(dims[0], eps=1e-6)]
        for stage, (depth, width) in enumerate(zip(depths, dims, strict=True)):
            if stage:
                before = dims[stage - 1]
                body += [ChannelNorm(before, eps=1e-6), nn.Conv2d(before, width, 2, 2)]
            body += [ConvNextBlock(width) for _ in range(depth)]
        self.body = nn.Sequential(*body)
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
        self.head = nn.Linear(dims[-1], CLASSES)

    def forward(self, feats):
        x = self.bn0(feats[:, None].transpose(1, 3)).transpose(1, 3)
        x = self.body(x).mean(3)
        return self.head(self.norm(x.amax(2) + x.mean(2)))


class VitBlock(nn.Module):
    """As timm and the authors write it: explicit softmax attention."""

    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads = heads

    def forward(self, x):
        b, s, d = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, s, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        p = ((q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5).softmax(-1)
        x = x + self.proj((p @ v).transpose(1, 2).reshape(b, s, d))
        return x + self.fc2(f.gelu(self.fc1(self.norm2(x))))


class Vit(nn.Module):
    """AST and PaSST: overlapping 16x16 patches, two class tokens; `keep` rows and columns."""

    def __init__(self, frames, stride=10, width=768, heads=12, depth=12, keep=None):
        super().__init__()
        self.patches = nn.Conv2d(1, width, 16, stride)
        rows, columns = (128 - 16) // stride + 1, (frames - 16) // stride + 1
        self.keep = keep
        self.tokens = nn.Parameter(torch.zeros(1, 2, width))
        self.positions = nn.Parameter(torch.zeros(1, width, rows, columns))
        self.blocks = nn.Sequential(*[VitBlock(width, heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, CLASSES)

    def forward(self, feats):
        x = self.patches(feats[:, None].transpose(2, 3)) + self.positions
        if self.keep and self.training:
            rows, columns = self.keep
            x = x[:, :, torch.randperm(x.shape[2])[:rows].sort().values]
            x = x[:, :, :, torch.randperm(x.shape[3])[:columns].sort().values]
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.tokens.expand(len(x), -1, -1), x], 1)
        return self.head(self.norm(self.blocks(x))[:, :2].mean(1))


NETS = {
    "cnn6": lambda: Cnn((64, 128, 256, 512), 1, 5, 512),
    "cnn14": lambda: Cnn((64, 128, 256, 512, 1024, 2048), 2, 3, 2048),
    "femto": ConvNext,
    "passt_s": lambda: Vit(998),
    "passt_s_patchout": lambda: Vit(998, keep=(8, 59)),
    "ast": lambda: Vit(1024),
}

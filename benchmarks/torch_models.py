"""The same architectures in plain PyTorch, for the comparison in `train_step.py`.

Weights are torch's defaults, because only speed matters here. Parity is tested elsewhere. Every net
takes feats [B, T, F] and returns logits [B, C].
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as f

CLASSES = 527


class Cnn(nn.Module):
    """CNN6 (one 5x5 convolution per block) or CNN14 (two 3x3)."""

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
    """As in timm and the authors' code: attention with an explicit softmax."""

    def __init__(self, width, heads, qkv_bias=True):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)
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
    """AST and PaSST: overlapping 16x16 patches, two class tokens; `keep`: (rows, columns) kept."""

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


class Attend(nn.Module):
    """Frames [B, T, D] -> classes, TAL attention."""

    def __init__(self, width):
        super().__init__()
        self.prob, self.att = nn.Linear(width, CLASSES), nn.Linear(width, CLASSES)

    def forward(self, x):
        p = (self.prob(x).sigmoid().clamp(1e-7, 1 - 1e-7) * self.att(x).softmax(1)).sum(1)
        return torch.logit(p, 1e-7)


class TalNet(nn.Module):
    """CRNN, or CNN + Transformer with one Transformer layer applied twice."""

    def __init__(self, gru, mels=64, width=1024):
        super().__init__()
        blocks, before, bins = [], 1, mels
        for i in range(10):
            pool = i % 2
            bins = bins // 2 if pool else bins
            out = width // bins if pool else 2 * width // bins
            blocks += [nn.Conv2d(before, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
            if pool:
                blocks.append(nn.MaxPool2d((2, 2) if i < 4 else (1, 2)))
            before = out
        self.blocks, self.gru = nn.Sequential(*blocks), None
        if gru:
            self.gru = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        else:
            self.layer = nn.TransformerEncoderLayer(width, 8, width, 0.25, batch_first=True)
        self.head = Attend(width)

    def forward(self, feats):
        x = self.blocks(feats[:, None]).transpose(1, 2).flatten(2)
        x = self.gru(x)[0] if self.gru is not None else self.layer(self.layer(x))
        return self.head(x)


class Transformer(nn.Module):
    def __init__(self, mels=128, width=768, depth=8):
        super().__init__()
        self.start = nn.Sequential(nn.Linear(mels, width), nn.LayerNorm(width))
        layers = [nn.TransformerEncoderLayer(width, 8, width, 0.0, batch_first=True)]
        for _ in range(depth - 1):
            layers.append(nn.TransformerEncoderLayer(width, 8, width, 0.0, batch_first=True))
        self.layers, self.head = nn.Sequential(*layers), Attend(width)

    def forward(self, feats):
        x = self.layers(self.start(feats))
        return self.head(f.max_pool1d(x.transpose(1, 2), 4).transpose(1, 2))


class ConformerLayer(nn.Module):
    def __init__(self, width, heads, mlp, kernel):
        super().__init__()
        feed = lambda: nn.Sequential(  # noqa: E731
            nn.LayerNorm(width), nn.Linear(width, mlp), nn.SiLU(), nn.Linear(mlp, width)
        )
        self.ffn1, self.ffn2 = feed(), feed()
        self.norm, self.attn = nn.LayerNorm(width), nn.MultiheadAttention(width, heads, 0.0)
        self.conv_norm, self.gate = nn.LayerNorm(width), nn.Conv1d(width, 2 * width, 1)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.bn, self.out = nn.BatchNorm1d(width), nn.Conv1d(width, width, 1)
        self.last = nn.LayerNorm(width)

    def forward(self, x):  # [T, B, D], as torchaudio's
        x = x + 0.5 * self.ffn1(x)
        y = self.norm(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        y = f.glu(self.gate(self.conv_norm(x).permute(1, 2, 0)), 1)
        x = x + self.out(f.silu(self.bn(self.depthwise(y)))).permute(2, 0, 1)
        return self.last(x + 0.5 * self.ffn2(x))


class Conformer(nn.Module):
    def __init__(self, mels=64, width=768, depth=12):
        super().__init__()
        self.start, self.head = nn.Linear(mels, width), nn.Linear(width, CLASSES)
        self.layers = nn.Sequential(*[ConformerLayer(width, 12, 1024, 15) for _ in range(depth)])

    def forward(self, feats):
        x = self.layers(self.start(feats).transpose(0, 1)).transpose(0, 1)
        return torch.logit(self.head(x).sigmoid().clamp(1e-7, 1 - 1e-7).mean(1), 1e-7)


class Bottleneck(nn.Module):
    def __init__(self, before, width, stride):
        super().__init__()
        conv = lambda i, o, k, s: nn.Sequential(  # noqa: E731
            nn.Conv2d(i, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o)
        )
        self.a, self.b = conv(before, width, 1, 1), conv(width, width, 3, stride)
        self.c = conv(width, 4 * width, 1, 1)
        same = stride == 1 and before == 4 * width
        self.short = nn.Identity() if same else conv(before, 4 * width, 1, stride)

    def forward(self, x):
        y = self.c(f.relu(self.b(f.relu(self.a(x)))))
        return f.relu(y + self.short(x))


class ResNet50(nn.Module):
    """Mean over frequency, PSLA attention with sigmoids."""

    def __init__(self):
        super().__init__()
        body = [nn.Conv2d(1, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        body.append(nn.MaxPool2d(3, 2, 1))
        before = 64
        for stage, depth in enumerate((3, 4, 6, 3)):
            for i in range(depth):
                width = 64 * 2**stage
                body.append(Bottleneck(before, width, 2 if stage and not i else 1))
                before = 4 * width
        self.body = nn.Sequential(*body)
        self.att, self.cla = nn.Linear(2048, CLASSES), nn.Linear(2048, CLASSES)

    def forward(self, feats):
        x = self.body(feats[:, None].transpose(2, 3)).mean(2).transpose(1, 2)
        a = self.att(x).sigmoid().clamp(1e-7, 1 - 1e-7)
        return torch.logit((self.cla(x).sigmoid() * a / a.sum(1, keepdim=True)).sum(1), 1e-7)


NETS = {
    "cnn6": lambda: Cnn((64, 128, 256, 512), 1, 5, 512),
    "cnn14": lambda: Cnn((64, 128, 256, 512, 1024, 2048), 2, 3, 2048),
    "femto": ConvNext,
    "passt_s": lambda: Vit(998),
    "passt_s_patchout": lambda: Vit(998, keep=(8, 59)),
    "ast": lambda: Vit(1024),
    "transformer": Transformer,
    "cnn_transformer": lambda: TalNet(gru=False),
    "conformer": Conformer,
    "resnet50": ResNet50,
    "crnn": lambda: TalNet(gru=True),
}

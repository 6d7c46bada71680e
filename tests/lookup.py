"""Models whose logits are their input, so that a loss shows what happened to the input."""

import flax.linen as nn


class Lookup(nn.Module):
    """feats [B, 1, C] -> logits [B, C]."""

    @nn.compact
    def __call__(self, feats, *, train=False, augment=None):
        bias = self.param("bias", nn.initializers.zeros, (feats.shape[-1],))
        x = augment(feats) if augment else feats
        return {"logits": x[:, 0] + bias[None]}


class FrameLookup(nn.Module):
    """feats [B, T, C] -> frame_logits [B, T, C], and logits [B, C], half of their sum over time."""

    @nn.compact
    def __call__(self, feats, *, train=False, augment=None):
        bias = self.param("bias", nn.initializers.zeros, (feats.shape[-1],))
        frames = (augment(feats) if augment else feats) + bias[None, None]
        return {"logits": frames.sum(1) / 2, "frame_logits": frames}

"""Log-mel and raw wave together, for networks that need both (PANNs' Wavegram-Logmel)."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from asjax.frontends import panns, stft

HOP = 320  # samples; the strides of the network's one-dimensional layers require it


@dataclasses.dataclass(frozen=True)
class WavegramLogmel:
    """[B, S] -> [B, T, n_mels + hop + 1]: PANNs' log-mel in dB, the frame's samples, their number.

    Frame t has the samples t * hop ... (t + 1) * hop - 1 of the wave. The last frame,
    T - 1 = S // hop, has S % hop samples and then zeros. The number of samples (`hop`, or S % hop
    in the last frame) tells where the wave ends. Make the frontend with `wavegram_logmel`.
    """

    logmel: panns.PannsLogmel

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.logmel.sample_rate

    @property
    def n_mels(self) -> int:
        """Number of mel bands; a frame has hop + 1 more values."""
        return self.logmel.n_mels

    @property
    def hop(self) -> int:
        """Samples between frames."""
        return self.logmel.hop

    def __call__(self, wave):
        """wave [B, S], float in [-1, 1] or signed integer -> float32 [B, T, n_mels + hop + 1].

        Raises:
          AsjaxError: the wave does not have two axes, or its dtype is unsigned.
        """
        return _features(stft.checked(wave), self)


@functools.partial(jax.jit, static_argnums=1)
def _features(wave, cfg: WavegramLogmel):
    mel = cfg.logmel(wave)  # [B, T, F]
    clips, frames, _ = mel.shape
    samples = jnp.pad(wave, ((0, 0), (0, frames * cfg.hop - wave.shape[1])))
    real = jnp.clip(wave.shape[1] - jnp.arange(frames) * cfg.hop, 0, cfg.hop)
    real = jnp.broadcast_to(real[None, :, None].astype(jnp.float32), (clips, frames, 1))
    return jnp.concatenate([mel, samples.reshape(clips, frames, cfg.hop), real], -1)


def wavegram_logmel(
    *,
    sample_rate: int = 32000,
    n_mels: int = 64,
    n_fft: int | None = None,
    window: int | None = None,
    fmin: float = 50,
    fmax: float | None = None,
) -> WavegramLogmel:
    """Log-mel and wave; fields and errors as in `panns_logmel`, but the hop is always 320."""
    fields = dict(n_fft=n_fft, window=window, fmin=fmin, fmax=fmax)
    logmel = panns.panns_logmel(sample_rate=sample_rate, n_mels=n_mels, hop=HOP, **fields)
    return WavegramLogmel(logmel)


VARIANTS = {
    "wavegram_logmel64": (wavegram_logmel, {"n_mels": 64}),
    "wavegram_logmel128": (wavegram_logmel, {"n_mels": 128}),
}

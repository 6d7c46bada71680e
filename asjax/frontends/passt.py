"""Log-mel of PaSST, EfficientAT, Frame-MobileNet and frame-level PaSST."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from asjax.config import AsjaxError
from asjax.frontends import stft


@dataclasses.dataclass(frozen=True)
class PasstMel:
    """(ln(max(mel, floor) + offset) + 4.5) / 5 of the pre-emphasised wave.

    Steps: pre-emphasis x[t + 1] - 0.97 x[t], which makes the wave one sample shorter; centred STFT
    with reflected ends and the Hann window in the middle of the FFT frame; power; Kaldi's mel
    filters. There are `1 + (S - 1) // hop` frames. A wave too short to be reflected is first
    extended with zeros. Make the frontend with `passt_mel`.

    With a key, the call is in the authors' training mode: it draws the filters' edges once per
    batch, in whole Hz. The lower edge is `fmin + U{0..fmin_aug_range-1}`. The upper edge is
    `fmax + fmax_aug_range // 2 - U{0..fmax_aug_range-1}`. The authors' masks are `augment.specaug`.
    """

    sample_rate: int
    n_mels: int
    n_fft: int
    hop: int
    window: int
    periodic: bool
    fmin: float
    fmax: float
    fmin_aug_range: int
    fmax_aug_range: int
    preemphasis: float
    offset: float
    floor: float

    draws_in_training = True

    @property
    def mel_filters(self) -> np.ndarray:
        """float32 [n_fft // 2 + 1, n_mels], the filters for evaluation."""
        return stft.kaldi_filters(self.sample_rate, self.n_fft, self.n_mels, self.fmin, self.fmax)

    def draw_edges(self, rng) -> tuple[jax.Array, jax.Array]:
        """Draw the lowest and highest frequency for one training batch, in Hz."""
        low, high = jax.random.split(rng)
        fmin = self.fmin + jax.random.randint(low, (), 0, self.fmin_aug_range)
        top = self.fmax + self.fmax_aug_range // 2
        fmax = top - jax.random.randint(high, (), 0, self.fmax_aug_range)
        return fmin.astype(jnp.float32), fmax.astype(jnp.float32)

    def draw_filters(self, rng) -> jax.Array:
        """Draw the filters for one training batch: float32 [n_fft // 2 + 1, n_mels]."""
        low, high = (stft.kaldi_mel(hz) for hz in self.draw_edges(rng))
        return stft.kaldi_triangles(self.sample_rate, self.n_fft, self.n_mels, low, high)

    def __call__(self, wave, rng=None):
        """wave [B, S], float in [-1, 1] or signed integer -> float32 [B, T, n_mels].

        `rng`: a key for training mode; None for evaluation.

        Raises:
          AsjaxError: the wave does not have two axes, or its dtype is unsigned.
        """
        return _logmel(stft.checked(wave), rng, self)


@functools.partial(jax.jit, static_argnums=2)
def _logmel(wave, rng, cfg: PasstMel):
    filters = cfg.mel_filters if rng is None else cfg.draw_filters(rng)
    wave = wave[:, 1:] - cfg.preemphasis * wave[:, :-1]
    window = stft.hann(cfg.window, cfg.n_fft, periodic=cfg.periodic)
    mel = stft.centred_mel(wave, window, cfg.hop, filters)
    return (jnp.log(jnp.maximum(mel, cfg.floor) + cfg.offset) + 4.5) / 5


def passt_mel(
    *,
    sample_rate: int = 32000,
    n_mels: int = 128,
    n_fft: int = 1024,
    hop: int = 320,
    window: int = 800,
    periodic: bool = False,
    fmin: float = 0,
    fmax: float | None = None,
    fmin_aug_range: int = 10,
    fmax_aug_range: int = 2000,
    preemphasis: float = 0.97,
    offset: float = 1e-5,
    floor: float = 0,
) -> PasstMel:
    """Log-mel of PaSST (Koutini et al. 2022).

    Args:
      sample_rate: Hz.
      n_mels: number of mel bands.
      n_fft: FFT length in samples, even.
      hop: samples between frames.
      window: Hann window length in samples, at most n_fft.
      periodic: True for a periodic window, False for a symmetric one.
      fmin, fmax: edges of the filters in evaluation, in Hz. The default of fmax is the Nyquist
        frequency minus half of fmax_aug_range (15 kHz for PaSST).
      fmin_aug_range, fmax_aug_range: number of values (whole Hz) from which training draws the
        edges; 1 draws nothing.
      preemphasis: the coefficient, 0..1.
      offset, floor: for ln(max(mel, floor) + offset); at least one must be above zero.

    Raises:
      AsjaxError: a value is out of range.
    """
    rate = stft.integer("sample_rate", sample_rate, 100, 10**7)
    n_mels = stft.integer("n_mels", n_mels, 1, 2**16)
    n_fft = stft.integer("n_fft", n_fft, 2, 2**20)
    if n_fft % 2:
        raise AsjaxError(f"frontend n_fft must be even for Kaldi's filters, got {n_fft}")
    hop = stft.integer("hop", hop, 1, 2**24)
    window = stft.integer("window", window, 2, n_fft)
    if not isinstance(periodic, bool):
        raise AsjaxError(f"frontend periodic must be true or false, got {periodic!r}")
    low_range = stft.integer("fmin_aug_range", fmin_aug_range, 1, rate // 2)
    high_range = stft.integer("fmax_aug_range", fmax_aug_range, 1, rate // 2)
    fmax = rate // 2 - high_range // 2 if fmax is None else fmax
    fmax = stft.real("fmax", fmax, 0, rate / 2)
    fmin = stft.real("fmin", fmin, 0, fmax)
    nearest = fmax + high_range // 2 - (high_range - 1)
    if fmin >= fmax or fmin + low_range - 1 >= nearest:
        raise AsjaxError(
            f"fmin must be below fmax in every draw of training, got fmin={fmin:g}, drawn up to "
            f"{fmin + low_range - 1:g}, and fmax={fmax:g}, drawn from {nearest:g} on; lower "
            "fmin_aug_range or fmax_aug_range"
        )
    preemphasis = stft.real("preemphasis", preemphasis, 0, 1, "(a factor)")
    offset = stft.real("offset", offset, 0, 1, "(power)")
    floor = stft.real("floor", floor, 0, 1, "(power)")
    if not offset + floor > 0:
        raise AsjaxError("frontend offset or floor must be above zero, got 0: silence has no log")
    shape = (rate, n_mels, n_fft, hop, window, periodic)
    edges = (fmin, fmax, low_range, high_range)
    return PasstMel(*shape, *edges, preemphasis, offset, floor)


_16K = dict(sample_rate=16000, n_fft=512, hop=160, window=400, offset=0.0, floor=1e-7)

VARIANTS = {
    "passt_mel128": (passt_mel, {}),
    "passt_mel128_hop100": (passt_mel, {"hop": 100}),
    "passt_mel128_hop160": (passt_mel, {"hop": 160}),
    "mn_mel128": (passt_mel, {}),  # EfficientAT uses PaSST's frontend
    "fpasst_mel128": (passt_mel, {**_16K, "periodic": True}),
    "frame_mn_mel128": (passt_mel, dict(_16K)),
}

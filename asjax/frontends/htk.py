"""Mel spectrogram in dB on the HTK scale, as in torchaudio; for CED, ATST-Clip and ATST-Frame."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from asjax.config import AsjaxError
from asjax.frontends import stft

_FLOOR = 1e-10  # smallest mel power: -100 dB


@functools.lru_cache(maxsize=64)
def filters(sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float) -> np.ndarray:
    """Triangles of height 1 on HTK's scale, 2595 log10(1 + Hz / 700): [n_fft // 2 + 1, n_mels].

    The float32 operations have the order of torchaudio's `melscale_fbanks`, because its rounding
    errors are visible. A band between two FFT bins is empty. The array is cached and read-only.
    """
    f32 = np.float32
    bins = stft._torch_linspace(0, sample_rate // 2, n_fft // 2 + 1)[:, None]
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (fmin, fmax))
    exponent = stft._torch_linspace(low, high, n_mels + 2) / f32(2595)
    hz = f32(700) * (np.power(10.0, exponent.astype(np.float64)).astype(f32) - f32(1))
    width = hz[1:] - hz[:-1]
    rise, fall = (bins - hz[:-2]) / width[:-1], (hz[2:] - bins) / width[1:]
    table = np.maximum(f32(0), np.minimum(rise, fall))
    table.setflags(write=False)
    return table


@dataclasses.dataclass(frozen=True)
class HtkLogmel:
    """Mel power in dB with floor, clamp and scaling. See `htk_logmel`."""

    sample_rate: int
    n_mels: int
    n_fft: int
    hop: int
    window: int
    fmin: float
    fmax: float
    top_db: float | None
    top_db_scope: str
    clamp: tuple[float, float] | None
    minmax: tuple[float, float] | None

    @property
    def mel_filters(self) -> np.ndarray:
        """float32 [n_fft // 2 + 1, n_mels]."""
        return filters(self.sample_rate, self.n_fft, self.n_mels, self.fmin, self.fmax)

    def __call__(self, wave):
        """wave [B, S], float in [-1, 1] or signed integer -> float32 [B, 1 + S // hop, n_mels].

        Raises:
          AsjaxError: the wave does not have two axes, or its dtype is unsigned.
        """
        return _logmel(stft.checked(wave), self)


@functools.partial(jax.jit, static_argnums=1)
def _logmel(wave, cfg: HtkLogmel):
    mel = stft.centred_mel(wave, stft.hann(cfg.window, cfg.n_fft), cfg.hop, cfg.mel_filters)
    x = 10 * jnp.log10(jnp.maximum(mel, _FLOOR))
    if cfg.top_db is not None:
        axes = (1, 2) if cfg.top_db_scope == "clip" else (0, 1, 2)
        x = jnp.maximum(x, x.max(axes, keepdims=True) - cfg.top_db)
    if cfg.clamp is not None:
        x = jnp.clip(x, *cfg.clamp)
    if cfg.minmax is not None:
        low, high = cfg.minmax
        x = (x - low) / (high - low) * 2 - 1
    return x


def htk_logmel(
    *,
    sample_rate: int = 16000,
    n_mels: int = 64,
    n_fft: int = 512,
    hop: int = 160,
    window: int | None = None,
    fmin: float = 0,
    fmax: float | None = None,
    top_db: float | None = 120,
    top_db_scope: str = "clip",
    clamp=None,
    minmax=None,
) -> HtkLogmel:
    """Centred STFT with reflected ends, periodic Hann, power, HTK triangles, dB with floor -100.

    Args:
      sample_rate: Hz.
      n_mels: number of mel bands.
      n_fft, hop, window: FFT length, samples between frames, window length (default n_fft).
      fmin, fmax: lowest and highest frequency in Hz (default 0 and the Nyquist frequency).
      top_db: values are raised to at least this many dB below the maximum; None: no such floor.
      top_db_scope: "clip" takes the maximum of each clip. "batch" takes the maximum of the whole
        batch, as torchaudio does for mono clips; then a clip's features depend on the other clips
        in its batch. For a batch of one clip both are the same.
      clamp: (low, high) limits in dB, applied after top_db; None: no limits.
      minmax: (low, high) in dB, mapped to -1 and 1 at the end; None: the output stays in dB.

    Raises:
      AsjaxError: a value is out of range.
    """
    rate = stft.integer("sample_rate", sample_rate, 100, 10**7)
    n_fft = stft.integer("n_fft", n_fft, 2, 2**20)
    window = stft.integer("window", n_fft if window is None else window, 2, n_fft)
    hop = stft.integer("hop", hop, 1, 2**24)
    fmax = stft.real("fmax", rate / 2 if fmax is None else fmax, 0, rate / 2)
    fmin = stft.real("fmin", fmin, 0, fmax)
    if fmin >= fmax:
        raise AsjaxError(f"frontend fmin must be below fmax, got fmin={fmin:g}, fmax={fmax:g}")
    n_mels = stft.integer("n_mels", n_mels, 1, 2**16)
    if top_db is not None:
        top_db = stft.real("top_db", top_db, 0, 1e6, "dB")
    if top_db_scope not in ("clip", "batch"):
        raise AsjaxError(f"frontend top_db_scope must be clip or batch, got {top_db_scope!r}")
    return HtkLogmel(
        sample_rate=rate,
        n_mels=n_mels,
        n_fft=n_fft,
        hop=hop,
        window=window,
        fmin=fmin,
        fmax=fmax,
        top_db=top_db,
        top_db_scope=top_db_scope,
        clamp=_range("clamp", clamp),
        minmax=_range("minmax", minmax),
    )


def _range(name: str, value) -> tuple[float, float] | None:
    if value is None:
        return None
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise AsjaxError(f"frontend {name} must be a pair (low, high) in dB or None, got {value!r}")
    low, high = (stft.real(name, v, -1e6, 1e6, "dB") for v in value)
    if low >= high:
        raise AsjaxError(f"frontend {name} must be (low, high) with low < high, got {value!r}")
    return low, high


_ATST = dict(n_fft=1024, fmin=60, fmax=7800, top_db=80, minmax=(-79.6482, 50.6842))

# ATST-Frame's clamp is that of PretrainedSED; ATST-Clip's code has no clamp.
VARIANTS = {
    "htk_logmel": (htk_logmel, {}),
    "ced_logmel64": (htk_logmel, dict(fmax=8000)),
    "atst_logmel64": (htk_logmel, _ATST),
    "atst_frame_logmel64": (htk_logmel, dict(**_ATST, clamp=(-50, 80))),
}

"""A picture of a recording: its spectrogram, and below it the events as bars, a row per class."""

from __future__ import annotations

import os
from collections import Counter
from functools import partial

import numpy as np

from asjax.pages import BLUE, INK, png, short

COLUMNS = 1200  # of the spectrogram, at most
MELS = 64
RANGE_DB = 70.0
ROWS = 30  # classes, at most
_PER_COLUMN = 6  # spectra that are averaged in a column of a long recording
_BLOCK_S = 10.0
_STEPS_S = (20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200)


def picture(found, source, sample_rate: int) -> bytes:
    """PNG of a recording and its events.

    Args:
      found: as from `events.decoder`. source: of the recording, it is read again.
    """
    samples = max(1, round(found.duration_s * sample_rate))
    levels, centres = spectrogram(source, found.file, sample_rate, samples)
    rows, left_out = rows_of(found)
    height = 1.3 + 1.5 + 0.21 * max(len(rows), 2)
    return png(partial(_draw, found, levels, centres, rows, left_out), height)


def rows_of(found) -> tuple[list[int], int]:
    """The classes to draw, in the order of their first onset, and the number of those left out.

    Of more than ROWS classes those with the longest events in sum are drawn.
    """
    total, first = Counter(), {}
    for onset, offset, index, _ in found.marks:
        total[index] += offset - onset
        first.setdefault(index, onset)
    chosen = [index for index, _ in total.most_common(ROWS)]
    return sorted(chosen, key=lambda index: (first[index], index)), len(total) - len(chosen)


def spectrogram(source, name: str, sample_rate: int, samples: int):
    """Log-mel in dB below the loudest value: float32 [MELS, columns], at most COLUMNS columns; and
    the frequencies of its rows in Hz, [MELS].

    The recording is read in blocks, so memory does not grow with its length.
    """
    from asjax.data import audio, recordings
    from asjax.frontends.stft import hann, slaney_filters

    n_fft = 1 << max(5, round(np.log2(0.05 * sample_rate)))
    hop = n_fft // 4
    columns = min(COLUMNS, 1 + samples // hop)
    spectra = min(1 + samples // hop, columns * _PER_COLUMN)
    starts = np.linspace(0, max(0, samples - n_fft), spectra).astype(np.int64)
    column = np.arange(spectra) * columns // spectra
    filters = slaney_filters(sample_rate, n_fft, MELS, 0.0, sample_rate / 2)
    power, done = np.zeros((columns, MELS)), 0
    size = max(2 * n_fft, round(_BLOCK_S * sample_rate))
    if hasattr(source, "seek"):
        source.seek(0)
    with audio.quiet_decoders():
        blocks = recordings.windows(source, sample_rate, size, name=name, hop=size - n_fft)
        for at, wave, _ in blocks:
            wave = np.pad(wave, (0, max(0, n_fft - len(wave))))
            stop = int(np.searchsorted(starts, at + len(wave) - n_fft, side="right"))
            places = starts[done:stop, None] - at + np.arange(n_fft)
            found = np.abs(np.fft.rfft(wave[places] * hann(n_fft))) ** 2 @ filters
            np.add.at(power, column[done:stop], found)
            done = max(done, stop)
    power /= np.maximum(np.bincount(column, minlength=columns), 1)[:, None]
    level = 10 * np.log10(np.maximum(power, 1e-12))
    centres = filters.argmax(axis=0) * sample_rate / n_fft
    return np.maximum(level - level.max(), -RANGE_DB).T.astype(np.float32), centres


def _draw(found, levels, centres, rows, left_out: int, figure) -> None:
    heights = [1.5, 0.21 * max(len(rows), 2)]
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    span = max(found.duration_s, 1e-3)
    top.imshow(
        levels, origin="lower", aspect="auto", cmap="Greys", extent=(0, span, 0, len(levels)),
        vmin=-RANGE_DB, vmax=0, interpolation="nearest",
    )  # fmt: skip
    _frequencies(top, centres)
    count = len(found.marks)
    events = f"{count} event{'' if count == 1 else 's'}"
    top.set_title(f"{short(os.path.basename(found.file), 70)}, {found.duration_s:.2f} s, {events}")
    place = {index: row for row, index in enumerate(rows)}
    least = span / 1000  # a bar of a short event stays visible
    for onset, offset, index, p in found.marks:
        if index in place:
            width = max(offset - onset, least)
            bar = dict(color=BLUE, alpha=0.35 + 0.65 * p, linewidth=0)
            below.barh(place[index], width, left=min(onset, span - width), height=0.7, **bar)
    names = [short(found.labels[index], 30) for index in rows]
    below.set_yticks(range(len(rows)), names, fontsize=8, color=INK)
    below.set_ylim(max(len(rows), 2) - 0.4, -0.6)
    below.tick_params(axis="y", length=0)
    below.grid(axis="y", visible=False)
    if not rows:
        middle = dict(ha="center", va="center", transform=below.transAxes, color=INK)
        below.text(0.5, 0.5, "no events", **middle)
    below.set_xlim(0, span)
    _times(below, span, f"; {left_out} more classes are not drawn" if left_out else "")


def _frequencies(axes, centres: np.ndarray) -> None:
    """Ticks in kHz; `centres` [MELS] are the frequencies of the rows."""
    rows = np.arange(MELS) + 0.5
    ticks, last = [], -9.0
    for hz in (125, 250, 500, 1000, 2000, 4000, 8000, 16_000):
        row = float(np.interp(hz, centres, rows))
        if centres[0] <= hz <= centres[-1] and row - last > MELS / 9:
            ticks.append((row, f"{hz / 1000:g}"))
            last = row
    axes.set_yticks([row for row, _ in ticks], [text for _, text in ticks], fontsize=8)
    axes.set_ylabel("kHz", fontsize=8)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False)


def _times(axes, span: float, more: str) -> None:
    """The axis in seconds; in minutes and seconds, or with hours, of a long recording."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    if span <= 120:
        axes.set_xlabel(f"seconds{more}")
        return
    step = next((s for s in _STEPS_S if span / s <= 9), 86_400 * np.ceil(span / 86_400 / 9))
    hours = span >= 7200

    def form(second, _):
        minutes, seconds = divmod(round(second), 60)
        return f"{minutes // 60}:{minutes % 60:02d}" if hours else f"{minutes}:{seconds:02d}"

    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(FuncFormatter(form))
    axes.set_xlabel(f"{'hours:minutes' if hours else 'minutes:seconds'}{more}")

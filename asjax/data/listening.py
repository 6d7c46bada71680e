"""A page to listen to scenes: players, and pictures of the sound with its events."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np

from asjax.config import shown
from asjax.pages import BLUE, INK, ON_BLUE, figure, html_table, page, short, svg

_HOP_S, _BANDS, _RANGE_DB = 0.04, 64, 60.0
_MP3_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_LEVEL = 0.6  # libsndfile's compression level: 10 s of noise become 30 kB


def log_mel(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """A wave [S] as mel power in dB for a picture: float32 [bands, T], 40 ms per column."""
    from asjax.frontends import htk

    hop, size = round(_HOP_S * sample_rate), 2 * round(_HOP_S * sample_rate)
    padded = np.pad(wave.astype(np.float32), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    n_fft = 4 * size  # enough bins for the lowest bands
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(size), n_fft)))
    mel = power @ htk.filters(sample_rate, n_fft, _BANDS, 50.0, sample_rate / 2)
    return (10 * np.log10(np.maximum(mel, 1e-10))).T.astype(np.float32)


def picture(wave: np.ndarray, sample_rate: int, events, names) -> bytes:
    """SVG of the mel spectrogram of a wave [S], with its events as bars below.

    Args:
      events: rows of `scenes.EVENT`. names: the name of each class.
    """
    mel, seconds = log_mel(wave, sample_rate), len(wave) / sample_rate
    rows = list(dict.fromkeys(events["class"].tolist()))

    def draw(figure):
        below = max(len(rows), 1)
        top, axes = figure.subplots(2, 1, sharex=True, height_ratios=[3.6, below])
        high = mel.max()
        top.imshow(
            mel, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, _BANDS),
            vmin=high - _RANGE_DB, vmax=high, interpolation="none",
        )  # fmt: skip
        top.set(yticks=[], ylabel="mel")
        top.grid(visible=False)
        for onset, offset, label, snr_db, *_ in events.tolist():
            y = rows.index(label)
            axes.barh(y, offset - onset, left=onset, height=0.62, color=BLUE)
            inside, right = offset - onset > 0.09 * seconds, offset < 0.93 * seconds
            axes.annotate(
                f"{snr_db:.0f} dB", (offset if right and not inside else onset, y),
                xytext=(3 if inside or right else -3, 0), textcoords="offset points",
                ha="left" if inside or right else "right", va="center_baseline",
                fontsize=7.5, color=ON_BLUE if inside else INK,
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [short(names[label], 24) for label in rows], fontsize=8)
        axes.set_ylim(below - 0.4, -0.6)
        axes.set_xlim(0, seconds)
        axes.set_xlabel("seconds")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)

    return svg(draw, 1.75 + 0.24 * max(len(rows), 1))


def player(wave: np.ndarray, sample_rate: int, label: str) -> str:
    """HTML of a player for a wave [S], at full level, as MP3, because all browsers play it."""
    import soundfile

    from asjax.data import audio

    rate = sample_rate if sample_rate in _MP3_HZ else 16_000
    wave = audio.resample(wave.astype(np.float32), sample_rate, rate)
    wave = wave * (0.9 / max(float(np.abs(wave).max(initial=0)), 1e-9))
    out = io.BytesIO()
    options = {"bitrate_mode": "VARIABLE", "compression_level": _LEVEL}
    soundfile.write(out, wave, rate, format="MP3", **options)
    data = base64.b64encode(out.getvalue()).decode("ascii")
    return (
        f'<audio controls preload="none" style="width:100%" aria-label="{escape(shown(label))}" '
        f'src="data:audio/mpeg;base64,{data}"></audio>'
    )


def scene(name: str, them, i: int, names, credits) -> str:
    """HTML of scene i of a `Scenes`: player, picture, table of its events.

    Args:
      credits: recording id -> (licence, attribution), or an empty dict.
    """
    wave, events, rate = them.wave(i), them.scene(i), them.rules.sample_rate
    heard = ", ".join(names[c] for c in dict.fromkeys(events["class"].tolist())) or "no event"
    rows, sources = [], {}
    for event in events:
        recording = them.bank.recordings[event["recording"]]
        sources[recording] = credits.get(recording, ("", ""))
        rows.append(
            [
                shown(names[event["class"]], 40),
                f"{event['onset_s']:.2f}",
                f"{event['offset_s']:.2f}",
                f"{event['snr_db']:.1f}",
                shown(recording, 60),
            ]
        )
    table = html_table(
        ["class", "onset (s)", "offset (s)", "SNR (dB)", "recording"], rows, caption="Events"
    ) if rows else ""  # fmt: skip
    thanks = "".join(
        f"<li>{escape(shown(text, 400))} ({escape(licence)})</li>"
        for licence, text in sources.values()
        if text
    )
    more = f"<details><summary>events and sources</summary>{table}<ul>{thanks}</ul></details>"
    noise = f"noise {them.noise['level_db'][i]:.0f} dBFS"
    drawn = figure(picture(wave, rate, events, names), f"Events of {name}: {heard}", noise)
    return f"<h3>{escape(shown(name))}</h3>{player(wave, rate, name)}{drawn}{more}"


def scenes_page(title: str, lead: list[str], table, sections, notes=()) -> str:
    """The page.

    Args:
      lead: paragraphs of text. table: (header, rows) about the splits.
      sections: (title, [HTML of `scene`]). notes: (title, lines) of lists at the end.
    """
    body = [f"<h1>{escape(shown(title))}</h1>", *(f"<p>{escape(text)}</p>" for text in lead)]
    body.append(html_table(*table, caption="Splits"))
    body.append(
        '<p class="note">Active: share of the time, averaged over classes. The players are at full '
        "level. The number at a bar is the SNR of the event.</p>"
    )
    for name, parts in sections:
        body += [f"<h2>{escape(shown(name))}</h2>", *parts]
    for name, lines in notes:
        items = "".join(f"<li>{escape(shown(line, 300))}</li>" for line in lines)
        body.append(f"<h2>{escape(name)}</h2><ul>{items}</ul>")
    return page(title, "\n".join(body))

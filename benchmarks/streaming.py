"""Mean AP of short windows on ESC-10: what a live listener loses against whole recordings.

python benchmarks/streaming.py runs/quickstart runs/live --fold 5 --windows 1,2,2.6,5

Every recording is cut into windows that overlap by half, the last one ends with it. Two scores of a
recording: those of its loudest window alone, which is what a live user sees at the sound, and the
mean probability of all windows. "Last 3" is the mean of the loudest window and the up to two
before it. Intervals are of 1,000 paired resamples of the recordings. Also the time of one window.

python benchmarks/streaming.py --events runs/sed runs/causal --scenes 20

Events of a stream in pieces of 10 ms against those of the whole scene (`Tags.events`), on scenes of
the fold: the share of events with a partner of the same class (onset within 0.2 s), in both
directions; seconds of sound from an onset to its `Onset`; CPU time per second of sound.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

import asjax
from asjax import labels
from asjax.data import audio, soundscapes, sources
from asjax.metrics import ranking
from asjax.stream import EventStream, Onset

SCORES = ("loudest", "last 3", "mean")


def clips(fold: int, label_set, rate: int):
    """([wave], bool [N, 10]) of a fold of ESC-10, in the ten classes."""
    source = sources.esc10(label_set, splits=[f"fold{fold}"])
    table = labels.mapping("esc10", label_set)
    waves = [audio.read(source[i]["audio"], rate) for i in range(len(source))]
    dense = np.asarray(source.labels.toarray(), bool)
    return waves, np.stack([dense[:, row].all(axis=1) for row in table], axis=1)


def heard(tagger, waves) -> dict[str, np.ndarray]:
    """Probabilities [N, 10] of each way to score; `tagger` has windows that overlap by half."""
    table = labels.mapping("esc10", tagger.label_set)
    out = {name: [] for name in SCORES}
    for wave, tags in zip(waves, tagger([(w, tagger.sample_rate) for w in waves]), strict=True):
        ends = np.rint(tags.times * tagger.sample_rate).astype(int)
        energy = [np.square(wave[a:b], dtype=np.float64).sum() for a, b in ends]
        at = int(np.argmax(energy))
        chosen = {"loudest": slice(at, at + 1), "last 3": slice(max(0, at - 2), at + 1)}
        for name in SCORES:
            p = tags.windows[chosen.get(name, slice(None))].mean(axis=0)
            out[name].append([p[row].max() for row in table])
    return {name: np.array(rows) for name, rows in out.items()}


def mean_ap(scores, targets) -> tuple[float, tuple[float, float]]:
    value = ranking.tagging(scores=scores, targets=targets)["mean_ap"]
    return value, ranking.bootstrap(scores=scores, targets=targets, n=1000)["mean_ap"]


def cost_ms(tagger, repeats: int = 30) -> float:
    """Median milliseconds of one window alone, after the first one, which compiles."""
    rng = np.random.default_rng(0)
    size = round(tagger.clip_s * tagger.sample_rate)
    wave = rng.normal(0, 0.1, size).astype(np.float32)
    spent = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        tagger((wave, tagger.sample_rate))
        spent.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(spent[1:])


def matched(found, wanted, within_s: float = 0.2) -> int:
    """Events with a partner: same class, onset within some seconds. A partner counts once."""
    left, count = list(wanted), 0
    for event in found:
        fits = [w for w in left if w.label == event.label]
        near = min(fits, key=lambda w: abs(w.onset_s - event.onset_s), default=None)
        if near is not None and abs(near.onset_s - event.onset_s) <= within_s:
            left.remove(near)
            count += 1
    return count


def streamed(path: str, fold: int, scenes: int) -> list[str]:
    """A row of the table of events."""
    tagger = asjax.load(path, frames=True)
    source = soundscapes.soundscapes(tagger.label_set, splits=[f"fold{fold}"], clips=scenes)
    rate, found, wanted, both, delays, cpu, seconds = tagger.sample_rate, 0, 0, 0, [], 0.0, 0.0
    for i in range(len(source)):
        wave = audio.read(source[i]["audio"], rate)
        whole = tagger((wave, rate)).events()
        stream, marks, at = EventStream(tagger), [], rate // 100
        begin = time.process_time()
        for start in range(0, len(wave), at):
            for mark in stream.push(wave[start : start + at]):
                marks.append(mark)
                if isinstance(mark, Onset):
                    delays.append((start + at) / rate - mark.onset_s)
        marks += stream.close()
        cpu, seconds = cpu + time.process_time() - begin, seconds + len(wave) / rate
        events = [mark for mark in marks if not isinstance(mark, Onset)]
        found, wanted = found + len(events), wanted + len(whole)
        both += matched(events, whole)
    return [
        path,
        f"{both / max(1, found):.2f} of {found}",
        f"{both / max(1, wanted):.2f} of {wanted}",
        f"{statistics.median(delays):.2f}",
        f"{max(delays):.2f}",
        f"{1e3 * cpu / seconds:.0f}",
    ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    parser.add_argument("--fold", type=int, default=5)
    parser.add_argument("--windows", default="1,2,2.6,5", help="seconds (default: %(default)s)")
    parser.add_argument("--events", action="store_true", help="the table of events")
    parser.add_argument("--scenes", type=int, default=20, help="of --events")
    args = parser.parse_args()
    if args.events:
        heads = ("in the stream", "in the whole scene", "median s", "longest s", "CPU ms a second")
        print("| model | " + " | ".join(heads) + " |\n" + "|---" * (len(heads) + 1) + "|")
        for path in args.models:
            print("| " + " | ".join(streamed(path, args.fold, args.scenes)) + " |", flush=True)
        return
    print("| model | window s | " + " | ".join(SCORES) + " | ms a window |")
    print("|---|---|" + "---|" * len(SCORES) + "---|")
    for path in args.models:
        whole = asjax.load(path)
        waves, targets = clips(args.fold, whole.label_set, whole.sample_rate)
        for seconds in map(float, args.windows.split(",")):
            tagger = whole.windowed(seconds, overlap=0.5, frames=False)
            cells = [f"{v:.3f} [{a:.3f}, {b:.3f}]" for v, (a, b) in (
                mean_ap(scores, targets) for scores in heard(tagger, waves).values()
            )]  # fmt: skip
            ms = cost_ms(tagger)
            print(f"| {path} | {seconds:g} | {' | '.join(cells)} | {ms:.1f} |", flush=True)


if __name__ == "__main__":
    main()

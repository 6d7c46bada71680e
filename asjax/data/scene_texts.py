"""What `asjax prepare soundscapes` writes: scenes as clips, lists of events, a page, a report."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, field
from pathlib import Path

from asjax.config import AsjaxError, printable, shown
from asjax.data import listening, records, scenes
from asjax.data.clips import Clip
from asjax.data.mixing import Rules

_LISTED = 10


@dataclass
class Job:
    """What to write: the scenes of each split, their clips as a sequence, and texts about them."""

    label_set: object
    rules: Rules
    sets: dict[str, scenes.Scenes] = field(default_factory=dict)
    origin: dict[str, list[str]] = field(default_factory=dict)  # split -> splits of the clips
    left_out: list[tuple[str, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    credits: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.sets.values()))

    def __iter__(self):
        """The scenes as clips to write, mixed one by one."""
        for split, them in self.sets.items():
            for i in range(len(them)):
                yield self._clip(split, them, i)

    def _clip(self, split, them, i) -> Clip:
        ids, events = self.label_set.ids, them.scene(i)
        heard = [them.bank.recordings[r] for r in dict.fromkeys(events["recording"].tolist())]
        credits = [self.credits[name] for name in heard if name in self.credits]
        return Clip(
            name_of(split, i),
            them[i],
            tuple(ids[c] for c in sorted(set(events["class"].tolist()))),
            split,
            licence=" and ".join(dict.fromkeys(licence for licence, _ in credits)),
            attribution=" | ".join(text for _, text in credits),
            events=tuple((a, b, ids[c]) for a, b, c, *_ in events.tolist()),
        )


def name_of(split: str, i: int) -> str:
    return f"{split}-{i:06d}"


def summary(made: Job) -> tuple[list[str], list[list[str]]]:
    """A table about the splits: (header, rows)."""
    header = ["split", "recordings", "sounds", "scenes", "events", "per scene", "active"]
    rows = []
    for split, them in made.sets.items():
        classes = len(them.bank.used_classes())
        active = sum(
            float((events["offset_s"] - events["onset_s"]).sum())
            for events in map(them.scene, range(len(them)))
        ) / (len(them) * them.rules.clip_s * classes)
        rows.append(
            [
                split,
                f"{len(them.bank.used()):,}",
                f"{len(them.bank.pieces):,}",
                f"{len(them):,}",
                f"{len(them.placed):,}",
                f"{len(them.placed) / len(them):.2f}",
                f"{active:.1%}",
            ]
        )
    return header, rows


def lacking(made: Job) -> list[str]:
    """A line for each split that lacks classes that another split has."""
    heard = {split: set(them.bank.used_classes()) for split, them in made.sets.items()}
    every, out = set().union(*heard.values()), []
    for split, classes in heard.items():
        if lack := sorted(every - classes):
            names = ", ".join(shown(made.label_set.names[c]) for c in lack[:_LISTED])
            more = f" and {len(lack) - _LISTED} more" if len(lack) > _LISTED else ""
            out.append(f"split {split} has no usable clip of {len(lack)} classes: {names}{more}")
    return out


def annotations(made: Job, split: str, suffix: str) -> str:
    """The events of a split as TSV, as in DESED, with the SNR and the origin of each sound."""
    out, label_set = io.StringIO(), made.label_set
    header = ("filename", "onset", "offset", "event_label", "snr_db", "clip", "clip_onset")
    out.write("\t".join(header) + "\n")
    them = made.sets[split]
    for i in range(len(them)):
        file, events = f"{name_of(split, i)}.{suffix}", them.scene(i).tolist()
        for onset, offset, label, snr_db, recording, at_s in events:
            clip = " ".join(them.bank.recordings[recording].split())
            times = [repr(round(t, 7)) for t in (onset, offset)]
            cells = [file, *times, _word(label_set, label), f"{snr_db:.2f}", clip, f"{at_s:.4f}"]
            out.write("\t".join(cells) + "\n")
        if not events:
            out.write(file + "\t" * (len(header) - 1) + "\n")
    return out.getvalue()


def _word(label_set, label: int) -> str:
    """The display name of a class if lists may use it, else its id."""
    for text in (label_set.names[label], label_set.ids[label]):
        try:
            if "\t" not in text and label_set.index(text) == label:
                return text
        except AsjaxError:
            continue
    return label_set.ids[label]


def page(made: Job, args, title: str) -> str:
    """The listening page."""
    low, high = made.rules.snr_db
    noise = "recorded noise" if args.background else "noise of random slope and level"
    lead = [
        f"Scenes of {made.rules.clip_s:g} s, mixed from single sounds and {noise} (seed "
        f"{args.seed}). Events are {low:g} to {high:g} dB above the noise. The largest number of "
        f"events at one time is {made.rules.polyphony}.",
    ]
    lead += [line[:1].upper() + line[1:] + "." for line in lacking(made)]
    if made.credits:
        lead.append(
            "The sounds are from ESC-10 (K. J. Piczak), recordings from freesound.org under CC0 or "
            "CC BY 3.0. ATTRIBUTION.csv names licence and author for each scene."
        )
    elif args.licence:
        lead.append(f"Licence of the clips: {args.licence}")
    names, sections = made.label_set.names, []
    for split, them in made.sets.items():
        count = min(args.listen, len(them))
        parts = [
            listening.scene(name_of(split, i), them, i, names, made.credits) for i in range(count)
        ]
        sections.append((f"{split}: the first {count} of {len(them):,} scenes", parts))
    notes = []
    if made.left_out:
        lines = [f"{clip}: {why}" for clip, why in made.left_out[: 3 * _LISTED]]
        if len(made.left_out) > len(lines):
            lines.append(f"and {len(made.left_out) - len(lines)} more (manifest.json)")
        notes.append((f"{len(made.left_out)} recordings could not be used", lines))
    return listening.scenes_page(title, lead, summary(made), sections, notes)


def about(made: Job, args) -> dict:
    """Notes for the manifest: how the scenes were made, and the clips that could not be used."""
    return {
        "scenes": {
            "rules": asdict(made.rules),
            "seed": args.seed,
            "clips": "esc10" if not args.clips else Path(args.clips).name,
            "background": Path(args.background).name if args.background else None,
            "splits": made.origin,
            "events without a place": {s: them.missing for s, them in made.sets.items()},
        },
        "unusable clips": [{"id": clip, "reason": why} for clip, why in made.left_out],
    }


def report(made: Job) -> list[str]:
    """Lines for the terminal."""
    header, rows = summary(made)
    lines = [*made.lines]
    for row in rows:
        split, recordings, sounds, count, events, each, _ = row
        lines.append(
            f"{split}: recordings {recordings}, sounds in them {sounds}; scenes {count}, events "
            f"{events} ({each} per scene)"
        )
    lines += lacking(made)
    lines.append(f"unusable recordings: {len(made.left_out)}" + (":" if made.left_out else ""))
    lines += [f"  {shown(clip)}: {printable(why)}" for clip, why in made.left_out[:_LISTED]]
    if len(made.left_out) > _LISTED:
        lines.append("  ... all in manifest.json")
    return lines


def export(dataset, folder, suffix: str) -> int:
    """Write the audio of every record of a dataset (FLAC) to `folder`; returns the number."""
    import soundfile
    from tqdm import tqdm

    opened, folder = records.Dataset(dataset), Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for row, (name, *_) in enumerate(tqdm(list(opened.rows()), unit="file", disable=None)):
            data = opened.reader[row]
            if suffix == "wav":
                wave, rate = soundfile.read(io.BytesIO(data), dtype="int16")
                data = scenes.wav(wave, rate)
            (folder / f"{name}.{suffix}").write_bytes(data)
    except OSError as error:
        raise AsjaxError(f"--files {shown(folder)} could not be written: {error}") from error
    return row + 1

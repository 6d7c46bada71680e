"""Build the embedded ESC-10. `asjax prepare esc10` and `esc50` read your copy of ESC-50.

    python data_prep/esc.py esc10 --audio DIR --labels labels.csv --out asjax/assets/esc10/1.0.0

esc10 needs one row per recording in labels.csv: filename (relative to --audio), set (only rows with
esc10 are used), license, attribution, mids (joined by ';'), original_label, split. Recordings under
CC Sampling+ are left out. The others become mono Ogg Vorbis at 32 kHz.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

from asjax import build, labels
from asjax.config import AsjaxError
from asjax.data import audio, prepare
from asjax.data.clips import Clip

RATE_HZ = 32_000
NOTE = """\
# ESC-10, embedded

398 recordings of ESC-10 (Karol J. Piczak, "ESC: Dataset for Environmental Sound Classification",
ACM Multimedia 2015), a record dataset of asjax in its five official folds. The set is licensed
CC BY 3.0, the recordings (from freesound.org) CC0 or CC BY 3.0: `ATTRIBUTION.csv` names licence and
author of each. Changes made: mono, resampled to 32 kHz, re-encoded as Ogg Vorbis; the two
recordings under CC Sampling+ are left out (`manifest.json`). Labels are AudioSet ids chosen by
display name for the ten categories; they are positive only (an absent label is not a verified
negative). Built by `data_prep/esc.py`. Keep `ATTRIBUTION.csv` with the recordings.
"""


def esc10_clips(root: Path, table: Path) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Clips in order of fold and id, and `(id, reason)` of clips left out for their licence."""
    clips, left_out = [], []
    with table.open(newline="", encoding="utf-8") as f:
        rows = [row for row in csv.DictReader(f) if row["set"] == "esc10"]
    for row in sorted(rows, key=lambda row: (row["split"], Path(row["filename"]).stem)):
        clip = Path(row["filename"]).stem
        if "Sampling+" in row["license"]:
            left_out.append((clip, f"licence {row['license']}"))
            continue
        mids, path = tuple(row["mids"].split(";")), root / row["filename"]
        about = (row["original_label"], row["license"], row["attribution"])
        clips.append(Clip(clip, path, mids, row["split"], *about))
    return clips, left_out


def fidelity(out: Path, clips: list[Clip], label_set) -> None:
    """Print the SNR of the written clips against the resampled originals, and their peaks."""
    originals = {clip.id: clip.audio for clip in clips}
    source = build.source({"name": "records", "path": str(out)}, label_set)
    snr, peaks, lost = [], [], 0
    for example in map(source.__getitem__, range(len(source))):
        want = audio.read(originals[example["id"]], RATE_HZ)
        got = audio.read(example["audio"], RATE_HZ)
        lost += len(want) != len(got)
        noise = np.sum((want - got) ** 2, dtype=np.float64)
        snr.append(10 * np.log10(np.sum(want**2, dtype=np.float64) / max(noise, 1e-20) + 1e-20))
        peaks.append((np.abs(want).max(), np.abs(got).max()))
    low, median, high = np.percentile(snr, [5, 50, 95])
    want, got = np.array(peaks).T
    print(
        f"SNR dB: 5 % {low:.1f}, median {median:.1f}, 95 % {high:.1f}; lengths that differ: {lost}"
    )
    print(
        f"peak above full scale: {np.sum(want > 1)} originals (max {want.max():.3f}), "
        f"{np.sum(got > 1)} re-encoded (max {got.max():.3f}); Vorbis keeps both unclipped"
    )


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    esc10 = kinds.add_parser("esc10", help="the embedded set")
    esc10.add_argument("--audio", type=Path, required=True)
    esc10.add_argument("--labels", type=Path, required=True)
    esc10.add_argument("--out", required=True)
    prepare.add_writer_arguments(esc10)
    esc10.set_defaults(encode="ogg", sample_rate=RATE_HZ, compression=1.0)
    args = parser.parse_args(argv)
    try:
        label_set = labels.get("audioset527")
        clips, left_out = esc10_clips(args.audio, args.labels)
        licence = "CC-BY-3.0 (the set); CC0 and CC-BY-3.0 per recording, see ATTRIBUTION.csv"
        fields = {"name": "esc10", "description": "ESC-10, K. J. Piczak, 2015", "licence": licence}
        prepare.run(args, clips, label_set, left_out=left_out, **fields)
        (Path(args.out) / "README.md").write_text(NOTE, encoding="utf-8")
        fidelity(Path(args.out), clips, label_set)
    except AsjaxError as error:
        print(f"esc.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

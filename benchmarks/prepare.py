"""Clips per CPU second of `asjax prepare audioset`, by form and encoding, as a Markdown table.

python benchmarks/prepare.py [--clips 60] [--rounds 3]

Clips are 10 s of noise with a falling spectrum at 32 kHz, about 500 kB as FLAC as in AudioSet. One
process with one thread makes one unit. CPU seconds count everything: reading, decoding,
encoding, hashing, writing. The first row is bare decoding by soundfile in the same run.
"""

import argparse
import io
import tarfile
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from asjax import labels
from asjax.data.bulk import part, readers, units
from asjax.data.clips import Clip, Encoding

RATE, SECONDS = 32_000, 10


def wave(seed: int):
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.normal(size=RATE * SECONDS))
    spectrum /= np.maximum(1, np.arange(len(spectrum)) / 20_000) ** 1.5
    out = np.fft.irfft(spectrum)
    return (0.2 * out / out.std()).clip(-1, 1).astype(np.float32)


def encoded(samples, rate=RATE, kind="FLAC") -> bytes:
    out = io.BytesIO()
    subtype = {"MP3": "MPEG_LAYER_III"}.get(kind, "PCM_16")
    with soundfile.SoundFile(out, "w", rate, 1, subtype, format=kind) as file:
        file.write(samples)
    return out.getvalue()


def sources(folder: Path, count: int):
    """name -> unit of `count` clips, and the FLAC files."""
    waves = [wave(i) for i in range(count)]
    flac, ids = [encoded(w) for w in waves], [f"clip{i:07d}" for i in range(count)]
    audio = [{"bytes": data, "path": f"{i}.flac"} for i, data in zip(ids, flac, strict=True)]
    pq.write_table(pa.table({"video_id": ids, "audio": audio}), folder / "a.parquet")
    with tarfile.open(folder / "a.tar", "w") as tar:
        for name, data in zip(ids, flac, strict=True):
            info = tarfile.TarInfo(f"{name}.flac")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with h5py.File(folder / "panns.h5", "w") as file:
        file["waveform"] = np.stack([(w * 32767).astype(np.int16) for w in waves])
        file["audio_name"] = np.array([f"Y{name}.wav" for name in ids], "S20")
    with h5py.File(folder / "passt.h5", "w") as file:
        kind = h5py.vlen_dtype(np.dtype("uint8"))
        data = file.create_dataset("mp3", (count,), kind)
        for i, w in enumerate(waves):
            data[i] = np.frombuffer(encoded(w, kind="MP3"), np.uint8)
        file["audio_name"] = np.array([f"Y{name}.mp3" for name in ids], "S20")
    (folder / "files").mkdir()
    for name, w in zip(ids, waves, strict=True):
        (folder / "files" / f"Y{name}.wav").write_bytes(encoded(w, kind="WAV"))
    found = {}
    for form, kind, place in (
        ("parquet, FLAC", "parquet", "a.parquet"),
        ("tar, FLAC", "tar", "a.tar"),
        ("PANNs HDF5", "panns", "panns.h5"),
        ("PaSST HDF5, MP3", "passt", "passt.h5"),
        ("WAV files", "files", "files"),
    ):
        [unit] = readers.divided(readers.units(kind, str(folder / place))[0])
        found[form] = unit
    return found, flac


def cpu_s(work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    label_set = labels.get("audioset527")
    cases = [
        ("as they are", None),
        ("flac 32 kHz", Encoding("flac", RATE)),
        ("pcm16 32 kHz", Encoding("pcm16", RATE)),
        ("pcm16 16 kHz", Encoding("pcm16", 16_000)),
    ]
    print("| form | " + " | ".join(name for name, _ in cases) + " |")
    print("|---" * (len(cases) + 1) + "|")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        found, flac = sources(folder, args.clips)
        decode = min(
            cpu_s(lambda: [soundfile.read(io.BytesIO(data), dtype="float32") for data in flac])
            for _ in range(args.rounds)
        )
        cells = [f"{args.clips / decode:.0f}", *[""] * (len(cases) - 1)]
        print(f"| bare decoding of FLAC | {' | '.join(cells)} |")
        for form, unit in found.items():
            cells = []
            for _, encoding in cases:
                options = units.Options(label_set, encoding)
                wants = tuple(
                    units.Want(i, Clip(f"{i}", "", (label_set.ids[0],), "eval"))
                    for i in range(args.clips)
                )
                task = units.Task(unit, wants, options)
                make = lambda task=task: part.make(task, folder / "parts")  # noqa: E731
                best = min(cpu_s(make) for _ in range(args.rounds))
                cells.append(f"{args.clips / best:.0f}")
            print(f"| {form} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

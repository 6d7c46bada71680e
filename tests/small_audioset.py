"""A small AudioSet in every form in which people have it, with what must become of every clip.

The lines of the lists are real (tests/golden/audioset_lines.csv); the sound of a clip is noise. The
expected states are noted while the faults are made, so they do not depend on asjax.
"""

import io
import json
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sounds

from asjax import labels

LINES = Path(__file__).parent / "golden" / "audioset_lines.csv"
RATE = 8_000
LISTS = ("balanced_train", "unbalanced_train", "eval")
CLASSES = labels.get("audioset527")


def rows():
    """(list, id, start_s, end_s, mids) of the 400 lines."""
    found = []
    for line in LINES.read_text().splitlines()[1:]:
        name, rest = line.split(" ", 1)
        clip, start, end, mids = rest.split(", ", 3)
        found.append((name, clip, float(start), float(end), mids.strip('"').split(",")))
    return found


def write_lists(folder: Path, some=None):
    folder.mkdir()
    listed = rows() if some is None else some
    for name in LISTS:
        mine = [row for row in listed if row[0] == name]
        labels_ = sum(len(row[4]) for row in mine)
        lines = [
            "# Segments csv created for a test",
            f"# num_ytids={len(mine)}, num_segs={len(mine)}, num_unique_labels=527, "
            f"num_positive_labels={labels_}",
            "# YTID, start_seconds, end_seconds, positive_labels",
        ]
        lines += [f'{c}, {a:.3f}, {b:.3f}, "{",".join(m)}"' for _, c, a, b, m in mine]
        (folder / f"{name}_segments.csv").write_text("\n".join(lines) + "\n")
    return listed


def wave(seed: int, seconds=1.2, rate=RATE):
    return sounds.noise(seconds, rate=rate, seed=seed)


def flac(seed: int, **more):
    return sounds.encode(wave(seed, **more), more.get("rate", RATE), "FLAC", "PCM_16")


class Made:
    """The folder of a small AudioSet.

    Attributes:
      sources: the --from options. states: id -> the state that it must end in; the others are
        missing. seeds: id -> seed of the sound that must be kept. strangers, copies: counts.
    """

    def __init__(self, folder: Path):
        self.folder, self.states, self.seeds = folder, {}, {}
        self.strangers = self.copies = self.differ = 0
        self.listed = write_lists(folder / "lists")
        clips = [row[1:] for row in self.listed]
        order = np.random.default_rng(0).permutation(len(clips))
        self.clips = [clips[i] for i in order]
        self.index = {clip[0]: i for i, clip in enumerate(clips)}
        groups = np.split(np.arange(len(clips)), [55, 110, 160, 210, 260, 310, 380])
        self.parts = [[self.clips[i] for i in group] for group in groups]  # the last is missing
        self._parquet("a", self.parts[0])
        self._parquet("b", self.parts[1])
        self._tar("one.tar", self.parts[2])
        self._tar("two.tar.gz", self.parts[3])
        self._panns(self.parts[4])
        self._passt(self.parts[5])
        self._files(self.parts[6])
        place = lambda name: str(folder / name)  # noqa: E731
        self.sources = [
            f"parquet={place('hub')}", f"tar={place('tars')}", f"panns={place('panns.h5')}",
            f"passt={place('passt.h5')}", f"files={place('files')}",
        ]  # fmt: skip

    def command(self, out, *more):
        sources = [word for source in self.sources for word in ("--from", source)]
        lists = ["--lists", str(self.folder / "lists")]
        return ["prepare", "audioset", *sources, *lists, "--out", str(out), *more]

    def good(self, clip, **more):
        """FLAC of a clip that must be kept."""
        self.keep(clip)
        return flac(self.index[clip[0]], **more)

    def keep(self, clip):
        self.states[clip[0]], self.seeds[clip[0]] = "kept", self.index[clip[0]]

    def bad(self, clip, state):
        self.states[clip[0]] = state

    def _parquet(self, name, clips):
        (self.folder / "hub").mkdir(exist_ok=True)
        data, ids, mids = [], [], []
        for i, clip in enumerate(clips):
            ids.append(clip[0])
            mids.append(clip[3])
            if i == 0:  # cut
                data.append(flac(1)[:3000])
                self.bad(clip, "undecodable")
            elif i == 1:  # no bytes at all
                data.append(b"")
                self.bad(clip, "undecodable")
            elif i == 2:
                data.append(flac(2, seconds=0.2))
                self.bad(clip, "too short")
            elif i == 3:
                data.append(None)
                self.bad(clip, "undecodable")
            elif i == 4:  # stereo
                two = np.stack([wave(self.index[clip[0]])] * 2, axis=1)
                data.append(sounds.encode(two, RATE, "FLAC", "PCM_16"))
                self.keep(clip)
            else:
                data.append(self.good(clip))
            if i == 5:
                mids[-1] = ["/m/04rlf"] if clip[3] != ["/m/04rlf"] else ["/m/09x0r"]
                self.differ += 1
        ids += ["AAAAAAAAAAA", "not an id"]
        data += [flac(3), flac(4)]
        mids += [["/m/04rlf"]] * 2
        self.strangers += 2
        audio = pa.array(
            [{"bytes": d, "path": f"{i}.flac"} for d, i in zip(data, ids, strict=True)],
            pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        )
        table = pa.table({"video_id": ids, "audio": audio, "labels": mids})
        pq.write_table(table, self.folder / "hub" / f"{name}.parquet", row_group_size=10)

    def _tar(self, name, clips):
        (self.folder / "tars").mkdir(exist_ok=True)
        with tarfile.open(self.folder / "tars" / name, "w:gz" if name.endswith("gz") else "w") as t:

            def add(member, data, kind=tarfile.REGTYPE, link=""):
                info = tarfile.TarInfo(member)
                info.size, info.type, info.linkname = len(data), kind, link
                t.addfile(info, io.BytesIO(data))

            for i, clip in enumerate(clips):
                about = json.dumps({"labels": clip[3], "start": clip[1]}).encode()
                if i == 0:  # names that would leave a folder
                    add(f"../../../{clip[0]}.flac", self.good(clip))
                elif i == 1:
                    add(f"/tmp/asjax-must-not-exist/Y{clip[0]}.flac", self.good(clip))
                elif i == 2:  # another part of the recording
                    add(f"{clip[0]}_{clip[1] + 90:.0f}.flac", flac(5))
                    self.bad(clip, "other segment")
                elif i == 3:
                    add(f"{clip[0]}.flac", b"", tarfile.SYMTYPE, "/etc/passwd")
                    self.bad(clip, "missing")
                elif i == 4:  # 24 bit
                    self.keep(clip)
                    add(
                        f"{clip[0]}.wav",
                        sounds.encode(wave(self.index[clip[0]]), RATE, "WAV", "PCM_24"),
                    )
                elif i % 2:
                    add(f"{clip[0]}_{clip[1] * 1000:.0f}.flac", self.good(clip))
                    add(f"{clip[0]}_{clip[1] * 1000:.0f}.json", about)
                else:
                    add(f"{clip[0]}.json", about)
                    add(f"{clip[0]}.flac", self.good(clip))

    def _panns(self, clips):
        with h5py.File(self.folder / "panns.h5", "w") as file:
            samples = np.stack([wave(self.index[c[0]]) for c in clips])
            file["waveform"] = np.clip(samples * 32768, -32768, 32767).astype(np.int16)
            file["audio_name"] = np.array([f"Y{c[0]}.wav" for c in clips], "S20")
            target = np.zeros((len(clips), 527), bool)
            for i, clip in enumerate(clips):
                self.keep(clip)
                target[i, [CLASSES.index(mid) for mid in clip[3]]] = True
            file["target"] = target
            file.attrs["sample_rate"] = RATE

    def _passt(self, clips):
        with h5py.File(self.folder / "passt.h5", "w") as file:
            kind = h5py.vlen_dtype(np.dtype("uint8"))
            data = file.create_dataset("mp3", (len(clips),), kind)
            target = np.zeros((len(clips), 528), np.uint8)
            for i, clip in enumerate(clips):
                sound = (
                    b""
                    if i == 0
                    else sounds.mp3(wave(self.index[clip[0]], rate=32_000), rate=32_000)
                )
                data[i] = np.frombuffer(sound, np.uint8)
                self.states[clip[0]] = "kept" if sound else "undecodable"
                target[i, [CLASSES.index(mid) for mid in clip[3]]] = 1
            file["target"] = np.packbits(target[:, :527], axis=1)
            file["audio_name"] = np.array([f"Y{c[0]}.mp3" for c in clips], "S20")

    def _files(self, clips):
        place = self.folder / "files"
        (place / "unbalanced" / "part00").mkdir(parents=True)
        for i, clip in enumerate(clips):
            folder = place / "unbalanced" / "part00" if i % 2 else place
            name, data = f"Y{clip[0]}.wav", b""
            if i == 0:  # zero bytes
                self.bad(clip, "undecodable")
            elif i == 1:
                data = b"\0" * 5000
                self.bad(clip, "undecodable")
            elif i == 2:  # an MP3 with a wrong suffix
                data = sounds.mp3(wave(self.index[clip[0]], rate=32_000), rate=32_000)
                self.states[clip[0]] = "kept"
            elif i == 3:  # another rate
                data = sounds.encode(wave(self.index[clip[0]], rate=22_050), 22_050)
                self.states[clip[0]] = "kept"
            elif i == 4:
                name, data = f"{clip[0]}_{clip[1]:.3f}_{clip[2]:.3f}.flac", self.good(clip)
            elif i == 5:  # its container is read by ffmpeg only
                name = f"Y{clip[0]}.m4a"
                data = b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42isom\0\0\0\0" + b"\0" * 3000
                self.bad(clip, "needs ffmpeg")
            elif i == 6:  # not audio: never looked at
                name, data = f"Y{clip[0]}.txt", b"words"
                self.bad(clip, "missing")
            else:
                data = self.good(clip)
                name = f"Y{clip[0]}.flac"
            (folder / name).write_bytes(data)
        again = self.parts[0]  # second copies: of the cut clip, and of one that is sound already
        (place / f"Y{again[0][0]}.flac").write_bytes(self.good(again[0]))
        (place / f"Y{again[9][0]}.flac").write_bytes(flac(6))
        self.copies += 2

"""Small copies of published sets in their true layout, with bad clips among them.

Every maker returns {id: (split, labels, state)}; a kept clip has the state "kept". The recordings
are short noise.
"""

import csv
import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import sounds

from asjax import labels

RATE = 8_000
FAULTS = (
    ("cut", "undecodable"), ("zeros", "undecodable"), ("empty", "undecodable"),
    ("missing", "missing"), ("text", "undecodable"),
)  # fmt: skip
KINDS = ("plain", "stereo", "24 bit", "other rate", "mp3")


def wave(seed, seconds=0.3, rate=RATE):
    return sounds.noise(seconds, rate=rate, seed=seed)


def audio(i: int) -> tuple[bytes | None, str]:
    """(content of clip i, its state): every seventh clip has a fault, the others vary in kind."""
    if i % 7 == 3:
        kind, state = FAULTS[i // 7 % len(FAULTS)]
        whole = sounds.encode(wave(i), RATE)
        return {
            "cut": whole[:1000], "zeros": b"\0" * 4000, "empty": b"", "missing": None,
            "text": b"RIFF is not always sound",
        }[kind], state  # fmt: skip
    kind = KINDS[i % len(KINDS)]
    if kind == "stereo":
        return sounds.encode(np.stack([wave(i)] * 2, axis=1), RATE), "kept"
    if kind == "mp3":  # with the suffix of the set, which is wrong then
        return sounds.mp3(wave(i, rate=32_000), rate=32_000), "kept"
    if kind == "other rate":
        return sounds.encode(wave(i, rate=22_050), 22_050), "kept"
    return sounds.encode(wave(i), RATE, "WAV", "PCM_24" if kind == "24 bit" else "PCM_16"), "kept"


def put(path: Path, i: int) -> str:
    """Write clip i; returns its state."""
    data, state = audio(i)
    path.parent.mkdir(parents=True, exist_ok=True)
    if data is not None:
        path.write_bytes(data)
    return state


def write_csv(path: Path, rows, delimiter=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)


def esc50(folder: Path, count=400, esc10=False):
    """meta/esc50.csv and audio/, with rows like `1-100032-A-0.wav,1,0,dog,True,100032,A`."""
    names = [labels.get("esc50").names[i] for i in range(50)]
    ids = labels.get("esc50").ids
    ten = ("chainsaw", "clock_tick", "crackling_fire", "crying_baby", "dog", "helicopter", "rain",
           "rooster", "sea_waves", "sneezing")  # fmt: skip
    del names
    rows, made = [["filename", "fold", "target", "category", "esc10", "src_file", "take"]], {}
    for i in range(count):
        fold, target, src = i % 5 + 1, i % 50, 100_000 + i // 2
        name = f"{fold}-{src}-{'AB'[i % 2]}-{target}.wav"
        small = ids[target] in ten
        rows.append([name, fold, target, ids[target], small, src, "AB"[i % 2]])
        state = put(folder / "audio" / name, i)
        if small or not esc10:
            made[Path(name).stem] = (f"fold{fold}", {ids[target]}, state)
    write_csv(folder / "meta" / "esc50.csv", rows)
    return made


def urbansound8k(folder: Path, count=400):
    """metadata/UrbanSound8K.csv and audio/fold1 to fold10."""
    classes = ("air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling",
               "engine_idling", "gun_shot", "jackhammer", "siren", "street_music")  # fmt: skip
    header = ["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"]
    rows, made = [header], {}
    for i in range(count):
        fsid, k, fold = 100_032 + i // 4, i % 10, i // 4 % 10 + 1
        name = f"{fsid}-{k}-{i % 4}-{i}.wav"
        rows.append([name, fsid, 0.0, 0.3, 1, fold, k, classes[k]])
        state = put(folder / "audio" / f"fold{fold}" / name, i)
        made[Path(name).stem] = (f"fold{fold}", {classes[k]}, state)
    write_csv(folder / "metadata" / "UrbanSound8K.csv", rows)
    return made


def fsd50k(folder: Path, count=400):
    """FSD50K.ground_truth/dev.csv and eval.csv, with several labels per clip."""
    known = labels.get("fsd50k200")
    made, dev, test = {}, [["fname", "labels", "mids", "split"]], [["fname", "labels", "mids"]]
    for i in range(count):
        of = sorted({i % 200, (3 * i + 7) % 200})
        names = ",".join(known.names[c] for c in of)
        mids = ",".join(known.meanings(c)[0] for c in of)
        split = ("train", "train", "val", "eval")[i % 4]
        part = "eval" if split == "eval" else "dev"
        row = [64_760 + i, names, mids]
        (test if part == "eval" else dev).append(row if part == "eval" else [*row, split])
        state = put(folder / f"FSD50K.{part}_audio" / f"{64_760 + i}.wav", i)
        made[str(64_760 + i)] = (split, {known.ids[c] for c in of}, state)
    write_csv(folder / "FSD50K.ground_truth" / "dev.csv", dev)
    write_csv(folder / "FSD50K.ground_truth" / "eval.csv", test)
    return made


def desed(folder: Path, count=80):
    """Lists below metadata/ and folders below audio/; all parts have clips of the same names."""
    names = labels.get("desed10").names
    made, at = {}, 0
    parts = {
        "synthetic21_train": ("train/synthetic21_train/soundscapes", None),
        "weak": ("train/weak", None),
        "unlabel_in_domain": ("train/unlabel_in_domain", None),
        "validation": ("validation/validation", None),
        "eval": ("eval/public", None),
    }
    for split, (place, _) in parts.items():
        rows = [["filename", "onset", "offset", "event_label"]]
        rows = {"weak": [["filename", "event_labels"]], "unlabel_in_domain": [["filename"]]}.get(
            split, rows
        )
        for i in range(count):
            name = f"{i}.wav" if "synthetic" in split else f"Y{i:011d}_30.000_40.000.wav"
            first, second = names[i % 10], names[(i + 3) % 10]
            both = {first, second}
            if split == "weak":
                rows.append([name, f"{first},{second}"])
            elif split == "unlabel_in_domain":
                rows.append([name])
                both = set()
            elif i % 9 == 0:  # annotated, without events
                rows.append([name, "", "", ""])
                both = set()
            else:
                rows += [[name, 0.05, 0.15, first], [name, 0.1, 9.0, second]]
            state = put(folder / "audio" / place / name, at)
            made[f"{split}/{Path(name).stem}"] = (split, both, state)
            at += 1
        table = folder / "metadata" / f"{place}.tsv"
        write_csv(table, rows, "\t")
    table.with_name("public.tsv.gz").write_bytes(gzip.compress(table.read_bytes()))
    table.unlink()
    return made


def hear(path: Path, count=400, events=True):
    """The tar of a task: vocabulary, SPLIT.json, and 48000/SPLIT/*.wav."""
    words, made = ("clearthroat", "cough", "doorslam", "drawer"), {}
    task = "hear-2021.0.6/tasks/dcase2016_task2-hear2021-full"
    lists_, sound = {"train": {}, "valid": {}, "test": {}}, []
    for i in range(count):
        split = ("train", "train", "valid", "test")[i % 4]
        name, word = f"{i}.wav", words[i % 4]
        marks = [
            {"label": word, "start": 50.0, "end": 120.0},
            {"label": words[(i + 1) % 4], "start": 100.0, "end": 99_000.0},
        ]
        lists_[split][name] = marks if events else [word]
        data, state = audio(i)
        made[f"{split}/{i}"] = (split, {m["label"] for m in marks} if events else {word}, state)
        if data is not None:
            sound.append((f"{task}/48000/{split}/{name}", data))
    texts = {f"{task}/{k}.json": json.dumps(v) for k, v in lists_.items()}
    texts[f"{task}/task_metadata.json"] = json.dumps({"task_name": "made"})
    texts[f"{task}/labelvocabulary.csv"] = "idx,label\n" + "".join(
        f"{i},{word}\n" for i, word in enumerate(words)
    )
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name, data in [*sound, *((k, v.encode()) for k, v in texts.items())]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made

"""Build `asjax/assets/labels/*` from the official label files.

    python data_prep/labels.py FOLDER [--out asjax/assets/labels]

FOLDER is searched for `class_labels_indices.csv` and `ontology.json` (AudioSet),
`class_labels_indices_strong.csv` and `class_counts_weak_and_strong.tsv` (AudioSet Strong),
`vocabulary.csv` (FSD50K), `esc50.csv` (ESC-50), and our own maps `esc50_to_audioset.csv` and
`class_map.csv` (DESED). Each file must exist exactly once.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from asjax.config import AsjaxError
from asjax.hlp import parents_of, read_json
from asjax.labels import ASSETS, LabelSet, overlap, read_rows


def find(folder: Path, name: str) -> Path:
    """The only file with this name below `folder`."""
    files = sorted(Path(folder).rglob(name))
    if len(files) != 1:
        raise AsjaxError(f"{name} must exist once below {folder}, found {len(files)} times")
    return files[0]


def audioset(folder: Path) -> LabelSet:
    """AudioSet's 527 classes."""
    return LabelSet.from_csv(find(folder, "class_labels_indices.csv"), "audioset527")


def strong(folder: Path) -> list[LabelSet]:
    """AudioSet Strong: classes with events in training, in evaluation, in both, in either.

    The classes are sorted by display name, as in PretrainedSED's models.
    """
    with find(folder, "class_labels_indices_strong.csv").open(newline="", encoding="utf-8") as file:
        names = {mid: name for mid, name in csv.reader(file)}
    with find(folder, "class_counts_weak_and_strong.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    train = {row["class_id"] for row in rows if int(row["train_event_count"])}
    test = {row["class_id"] for row in rows if int(row["eval_event_count"])}
    if train | test != names.keys():
        raise AsjaxError("the classes of AudioSet Strong must be exactly the classes with events")
    sets = []
    for mids in (train, test, train & test, train | test):
        order = sorted(mids, key=names.get)
        label = f"audioset_strong{len(order)}"
        sets.append(LabelSet(label, tuple(order), tuple(names[mid] for mid in order)))
    return sets


def strong_only(strong: LabelSet, path: Path, known) -> int:
    """Write the classes of AudioSet Strong that are not in the ontology; returns their number."""
    rows = [row for row in zip(strong.ids, strong.names, strict=True) if row[0] not in known]
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["node", "name"])
        out.writerows(rows)
    return len(rows)


def desed(folder: Path) -> LabelSet:
    """DESED's ten classes, each with the nearest AudioSet mids."""
    columns = ("desed_label", "audioset_mid")
    mids: dict[str, list[str]] = {}
    for row in read_rows(find(folder, "class_map.csv"), columns, "DESED map"):
        mids.setdefault(row["desed_label"], []).append(row["audioset_mid"])
    words = tuple(sorted(mids))
    return LabelSet("desed10", words, words, tuple(tuple(mids[w]) for w in words))


def fsd50k(folder: Path) -> LabelSet:
    """FSD50K's 200 classes (`vocabulary.csv` has rows `index,name,mid` and no header)."""
    with find(folder, "vocabulary.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if [row[0] for row in rows] != [str(i) for i in range(len(rows))]:
        raise AsjaxError("FSD50K's vocabulary.csv must be numbered 0, 1, 2, ...")
    return LabelSet("fsd50k200", tuple(r[2] for r in rows), tuple(r[1] for r in rows))


def esc(folder: Path) -> tuple[LabelSet, LabelSet]:
    """ESC-50's categories, and the ten of ESC-10 in the order of their ESC-50 targets."""
    clips = read_rows(find(folder, "esc50.csv"), ("target", "category", "esc10"), "ESC-50")
    names = {int(row["target"]): row["category"] for row in clips}
    ten = sorted({int(row["target"]) for row in clips if row["esc10"] == "True"})
    columns = ("target", "category", "audioset_mids")
    rows = read_rows(find(folder, "esc50_to_audioset.csv"), columns, "ESC-50 map")
    mids = {row["category"]: tuple(row["audioset_mids"].split(";")) for row in rows}

    def subset(name: str, targets) -> LabelSet:
        words = tuple(names[t] for t in targets)
        return LabelSet(name, words, words, tuple(mids[w] for w in words))

    return subset("esc50", sorted(names)), subset("esc10", ten)


def ontology(folder: Path, path: Path) -> int:
    """Write `node,name,parents,restrictions`; returns the number of nodes.

    Several parents or restrictions are separated by blanks.
    """
    nodes = read_json(find(folder, "ontology.json"))
    parents = parents_of(nodes)
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["node", "name", "parents", "restrictions"])
        out.writerows(
            [n["id"], n["name"], " ".join(parents[n["id"]]), " ".join(n["restrictions"])]
            for n in nodes
        )
    return len(nodes)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with the official files")
    parser.add_argument("--out", type=Path, default=ASSETS)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    sets = [audioset(args.folder), fsd50k(args.folder), *esc(args.folder), desed(args.folder)]
    sets += strong(args.folder)
    for labels in sets:
        labels.to_csv(args.out / f"{labels.name}.csv")
        print(f"{labels.name}: {len(labels)} classes, hash {labels.hash}")
    print(f"ontology: {ontology(args.folder, args.out / 'ontology_parents.csv')} nodes")
    known = {n["id"] for n in read_json(find(args.folder, "ontology.json"))}
    alone = strong_only(sets[-1], args.out / "ontology_strong.csv", known)
    print(f"classes of AudioSet Strong that are not in the ontology: {alone}")
    shared, left_out = overlap(sets[1], sets[0])
    print(f"FSD50K classes in AudioSet: {len(shared)}; left out: {', '.join(left_out)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

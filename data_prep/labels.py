"""Build `asjax/assets/labels/*` from the official label files.

    python data_prep/labels.py FOLDER [--out asjax/assets/labels]

FOLDER is searched for `class_labels_indices.csv` and `ontology.json` (AudioSet), `vocabulary.csv`
(FSD50K), `esc50.csv` (ESC-50) and `esc50_to_audioset.csv` (our own map); each must be there once.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from asjax.config import AsjaxError
from asjax.hlp import parents_of, read_json
from asjax.labels import ASSETS, LabelSet, overlap, read_rows


def find(folder: Path, name: str) -> Path:
    """The one file of that name below `folder`."""
    found = sorted(Path(folder).rglob(name))
    if len(found) != 1:
        raise AsjaxError(f"{name} must be once below {folder}, found {len(found)} times")
    return found[0]


def audioset(folder: Path) -> LabelSet:
    """AudioSet's 527 classes."""
    return LabelSet.from_csv(find(folder, "class_labels_indices.csv"), "audioset527")


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
    """Write `node,name,parents,restrictions` (the last two separated by blanks); node count."""
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
    sets = [audioset(args.folder), fsd50k(args.folder), *esc(args.folder)]
    for labels in sets:
        labels.to_csv(args.out / f"{labels.name}.csv")
        print(f"{labels.name}: {len(labels)} classes, hash {labels.hash}")
    print(f"ontology: {ontology(args.folder, args.out / 'ontology_parents.csv')} nodes")
    shared, left_out = overlap(sets[1], sets[0])
    print(f"FSD50K classes in AudioSet: {len(shared)}; left out: {', '.join(left_out)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

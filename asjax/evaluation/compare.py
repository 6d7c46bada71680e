"""`asjax compare A B`: differences of two evaluations on their common clips, with intervals."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np

from asjax import labels, metrics, pages
from asjax.config import AsjaxError
from asjax.evaluation import compare_events
from asjax.store import clip_list
from asjax.store import scores as score_files
from asjax.store.files import write_atomic

LEVEL = 0.95
LISTED = 20  # classes in the printed table; also named at each end of the picture


def add_arguments(parser):
    parser.add_argument(
        "runs",
        nargs=2,
        metavar="RUN",
        help="workdir of a finished run, a folder with a scores.npz, or a scores.npz",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("compare"), help="folder (default: %(default)s)"
    )
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples")
    parser.add_argument(
        "--groups",
        metavar="CSV",
        help="lines of id,group: the clips of a group (e.g. a recording) are drawn together",
    )


def main(args) -> int:
    if args.bootstrap < 1:
        raise AsjaxError(f"--bootstrap must be 1 or more, got {args.bootstrap}")
    groups = read_groups(Path(args.groups)) if args.groups else None
    result = compare(*args.runs, n=args.bootstrap, seed=args.seed, groups=groups)
    print(text(result))
    written = write(result, args.out)
    print(f"\nwritten to {args.out}: {' '.join(written)}")
    return 0


# ----------------------------------------------------------------------------------- computation


def compare(first, second, *, n=1000, seed=0, groups=None) -> dict:
    """Paired differences, second minus first, on the clips that both have scored.

    If both have frame scores with events in time, PSDS1 is among the metrics, but not with groups.

    Args:
      first, second: as on the command line. n: bootstrap resamples, with the same clips for both.
      groups: {clip id: group}; if given, whole groups are drawn.

    Returns: dict with names, note (why the two are not of the same clips, or ""), clips, left_out
      (clips that only one has), single_label, metrics:
      {name: (first, second, difference, low, high, share of resamples above 0)}, and classes: names
      and n_positive, first, second, difference, low, high, an array [C] each.

    Raises:
      AsjaxError: no scores, different classes, no common clip, or different targets.
    """
    files = [scores_of(path) for path in (first, second)]
    a, b = map(score_files.load_scores, files)
    labels.check_hash(a["label_set"].hash, b["label_set"].hash, f"the scores of {second}")
    rows, other = _common(a["ids"], b["ids"], first, second)
    targets = a["targets"][rows]
    if not np.array_equal(targets, b["targets"][other]):
        raise AsjaxError(f"{first} and {second} have different labels for the same clips")
    ids = [a["ids"][i] for i in rows]
    member = None
    if groups is not None:
        missing = [i for i in ids if i not in groups]
        if missing:
            raise AsjaxError(
                f"--groups lacks {len(missing)} of {len(ids)} clips, first {missing[0]!r}"
            )
        member = [groups[i] for i in ids]
    note = clip_list.difference(*(clip_list.about(x["ids"], x["content"]) for x in (a, b)))
    if a["content"] is not None and b["content"] is not None:
        changed = (a["content"][rows] != b["content"][other]).any(axis=1)
        if changed.any():
            note += f"; {changed.sum():,} of {len(rows):,} common clips have other audio"
    pair = (a["scores"][rows], b["scores"][other])
    options = dict(n=n, seed=seed, groups=member)
    single = metrics.is_single_label(targets)
    out = {
        "names": (str(first), str(second)),
        "note": note,
        "clips": len(rows),
        "left_out": (len(a["ids"]) - len(rows), len(b["ids"]) - len(rows)),
        "single_label": single,
        "groups": len(set(member)) if member else 0,
        "bootstrap": n,
        "metrics": _whole(pair, targets, single, options),
        "classes": _classes(pair, targets, a["label_set"].names, options),
    }
    frames = [compare_events.folder_of(file) for file in files]
    if all(frames) and groups is None:
        found = compare_events.psds1(*frames, n=n, seed=seed)
        if found is not None:
            out["metrics"] = {
                "PSDS1": _difference(found["values"], found["drawn"]),
                **out["metrics"],
            }
            out["psds1_resamples"] = found["n"]
    return out


def scores_of(path) -> Path:
    """The scores file of a run or of a folder, or the given file itself."""
    path = Path(path)
    for place in (path, path / "scores.npz", path / "eval" / "scores.npz"):
        if place.is_file():
            return place
    raise AsjaxError(
        f"{path} holds no scores.npz; give a finished run, or run: asjax eval --model={path}"
    )


def read_groups(path: Path) -> dict[str, str]:
    """`id,group` lines, with or without a header, as {id: group}."""
    import csv

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AsjaxError(f"groups {path} cannot be read: {error}") from None
    bad = next((i for i, row in enumerate(rows, 1) if len(row) != 2), None)
    if bad or not rows:
        raise AsjaxError(f"groups {path}: line {bad or 1} must be id,group")
    groups = {}
    for number, (clip, group) in enumerate(rows, 1):
        if groups.setdefault(clip.strip(), group.strip()) != group.strip():
            raise AsjaxError(f"groups {path}: line {number} puts {clip} into a second group")
    return groups


def _common(ids, others, first, second):
    """Rows of the common clips in both files, sorted by id."""
    place = {clip: i for i, clip in enumerate(others)}
    common = sorted(clip for clip in ids if clip in place)
    if not common:
        raise AsjaxError(f"{first} and {second} have no clip in common")
    row_of = {clip: i for i, clip in enumerate(ids)}
    return np.array([row_of[c] for c in common]), np.array([place[c] for c in common])


def _whole(pair, targets, single, options) -> dict:
    """{name: (first, second, difference, low, high, share above 0)} of the means."""
    values = [metrics.tagging(scores=s, targets=targets) for s in pair]
    drawn = [metrics.resampled(scores=s, targets=targets, **options) for s in pair]
    out = {
        title: _difference([v[key] for v in values], [d[key] for d in drawn])
        for key, title in (("mean_ap", "mean AP"), ("mean_auc", "mean AUC"))
    }
    if single:
        values = [metrics.single_label(scores=s, targets=targets) for s in pair]
        drawn = [metrics.resampled_single_label(scores=s, targets=targets, **options) for s in pair]
        for key, title in (("accuracy", "accuracy"), ("macro_f1", "macro F1")):
            out[title] = _difference([v[key] for v in values], [d[key] for d in drawn])
    return out


def _difference(values, drawn):
    change = drawn[1] - drawn[0]
    known = change[np.isfinite(change)]
    low, high = metrics.interval(change, values[1] - values[0], LEVEL)
    above = float((known > 0).mean() + (known == 0).mean() / 2) if len(known) else float("nan")
    return (*map(float, values), float(values[1] - values[0]), low, high, above)


def _classes(pair, targets, names, options) -> dict:
    ap = [metrics.tagging(scores=s, targets=targets)["per_class_ap"] for s in pair]
    drawn = [metrics.resampled_per_class(scores=s, targets=targets, **options)["ap"] for s in pair]
    change = drawn[1] - drawn[0]
    ends = [metrics.interval(change[:, j], ap[1][j] - ap[0][j], LEVEL) for j in range(len(names))]
    return {
        "names": list(names),
        "n_positive": targets.sum(axis=0),
        "first": ap[0],
        "second": ap[1],
        "difference": ap[1] - ap[0],
        "low": np.array([low for low, _ in ends]),
        "high": np.array([high for _, high in ends]),
    }


# ---------------------------------------------------------------------------------------- showing


def text(result) -> str:
    """The differences as text tables: means, then the classes with the largest changes."""
    rows = [
        [name, f"{a:.4f}", f"{b:.4f}", f"{d:+.4f}", f"{low:+.4f} to {high:+.4f}", f"{share:.1%}"]
        for name, (a, b, d, low, high, share) in result["metrics"].items()
    ]
    header = ["", "A", "B", "B - A", f"{LEVEL:.0%} interval", "B above A"]
    parts = [f"A: {result['names'][0]}\nB: {result['names'][1]}\n{_about(result)}\n"]
    parts.append(pages.table_text("Means", header, rows))
    changed = result["classes"]["difference"]
    order = [j for j in np.argsort(-np.abs(changed), kind="stable") if np.isfinite(changed[j])]
    parts.append(
        pages.table_text(
            "AP of the classes that changed most",
            ["class", "clips", "A", "B", "B - A", f"{LEVEL:.0%} interval"],
            [_class_row(result["classes"], j) for j in order[:LISTED]],
        )
    )
    return "\n\n".join(parts)


def _about(result) -> str:
    grouped = f" in {result['groups']:,} groups" if result["groups"] else ""
    a, b = result["left_out"]
    only = f"; {a:,} only in A and {b:,} only in B are left out" if a or b else ""
    text = f"{result['clips']:,} common clips{grouped}{only}; {result['bootstrap']:,} paired"
    fewer = result.get("psds1_resamples", result["bootstrap"])
    few = f" ({fewer:,} for PSDS1)" if fewer != result["bootstrap"] else ""
    note = f"\nnote: {result['note']}" if result["note"] else ""
    return f"{text} resamples{few}{note}"


def _class_row(classes, j) -> list[str]:
    return [
        classes["names"][j],
        f"{classes['n_positive'][j]:,}",
        f"{classes['first'][j]:.3f}",
        f"{classes['second'][j]:.3f}",
        f"{classes['difference'][j]:+.3f}",
        f"{classes['low'][j]:+.3f} to {classes['high'][j]:+.3f}",
    ]


def write(result, out: Path) -> list[str]:
    """report.html, metrics.csv, classes.csv and the picture; returns their names."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AsjaxError(f"--out {out} must be a writable folder: {error}") from None
    header = ["metric", "a", "b", "difference", "low", "high", "share_b_above_a"]
    pages.write_csv(
        out / "metrics.csv", header, [[name, *row] for name, row in result["metrics"].items()]
    )
    classes = result["classes"]
    columns = ("n_positive", "first", "second", "difference", "low", "high")
    rows = [
        [name, int(classes["n_positive"][j]), *(float(classes[k][j]) for k in columns[1:])]
        for j, name in enumerate(classes["names"])
    ]
    pages.write_csv(out / "classes.csv", ["class", *columns], rows)
    pages.save(*_picture(classes), out / "classes")
    write_atomic(out / "report.html", _page(result, pages.svg(*_picture(classes))))
    return ["report.html", "metrics.csv", "classes.csv", "classes.png", "classes.svg"]


def _ends(classes) -> list[int]:
    """Classes with the largest gains first and the largest losses last."""
    order = [j for j in np.argsort(-classes["difference"], kind="stable")]
    order = [j for j in order if np.isfinite(classes["difference"][j])]
    return order if len(order) <= 2 * LISTED else [*order[:LISTED], *order[-LISTED:]]


def _picture(classes):
    rows = _ends(classes)

    def draw(figure):
        axes = figure.subplots()
        at = np.arange(len(rows))
        change = classes["difference"][rows]
        colors = [pages.BLUE if c > 0 else pages.ORANGE for c in change]
        axes.axvline(0, color=pages.INK, linewidth=0.8)
        axes.hlines(at, classes["low"][rows], classes["high"][rows], color=pages.GREY, linewidth=2)
        axes.scatter(change, at, color=colors, s=22, zorder=3)
        names = [classes["names"][j] for j in rows]
        axes.set_yticks(at, [pages.short(n) for n in names], fontsize=8)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("average precision of B minus A; grey: 95 % interval")

    return draw, 0.9 + 0.21 * max(len(rows), 2)


def _page(result, picture) -> str:
    rows = [
        [name, f"{a:.4f}", f"{b:.4f}", f"{d:+.4f}\n{low:+.4f} to {high:+.4f}", f"{share:.1%}"]
        for name, (a, b, d, low, high, share) in result["metrics"].items()
    ]
    a, b = map(escape, result["names"])
    classes = result["classes"]
    known = [j for j in range(len(classes["names"])) if np.isfinite(classes["difference"][j])]
    body = "\n".join(
        [
            f"<h1>{b} against {a}</h1><p>A is {a}, B is {b}: {escape(_about(result))}.</p>",
            pages.html_table(["", "A", "B", "B − A", "B above A"], rows),
            '<p class="note">Small figures: 95 % intervals of the difference. Each resample has '
            "the same clips for A and B, so clips that are easy or hard for both do not matter. "
            "The last column is the share of resamples in which B is better.</p>",
            "<h2>Classes</h2>",
            pages.figure(
                picture,
                "difference by class",
                "Average precision of B minus A for each class, largest gains first"
                + (f"; the first and last {LISTED} classes" if len(known) > 2 * LISTED else "")
                + ". With many classes some intervals miss 0 by chance.",
            ),
            "<details><summary>Table of all classes</summary>",
            pages.html_table(
                ["class", "clips", "A", "B", "B − A", "interval"],
                [_class_row(classes, j) for j in known],
            ),
            "</details>",
        ]
    )
    return pages.page(f"{result['names'][1]} against {result['names'][0]}", body)

"""Joins the parts of several machines, and says how far a preparation is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from asjax.config import AsjaxError, shown
from asjax.data import records
from asjax.data.bulk import merge, part, parts, report


def join(paths, out, *, partial: bool = False, overwrite: bool = False):
    """Merge folders of parts, and perhaps finished datasets, into the record dataset `out`.

    Args: partial: also if planned units are not done.

    Returns: (writer.Summary, report.Report).

    Raises:
      AsjaxError: no parts, parts of different settings, a unit is not done, a part is damaged, or
        the parts add to a dataset that is not given.
    """
    folders, found = [], {}
    for path in map(Path, paths):
        if records.is_dataset(path):
            found[str(path)] = part.of_dataset(path)
        else:
            folders.append(_opened(path))
    if not folders:
        raise AsjaxError("merge needs at least one folder of parts, OUT.parts")
    first = folders[0]
    _check_places(folders, out, {p.about["manifest_sha256"] for p in found.values()})
    plans: dict[Path, dict[str, int]] = {}
    for folder in folders:
        others = [k for k in first.settings if folder.settings.get(k) != first.settings[k]]
        if others:
            raise AsjaxError(
                f"{shown(folder.folder)} was made with another value of {', '.join(others)} than "
                f"{shown(first.folder)}; prepare all shards with the same options"
            )
        plans |= folder.plans()
        for name, made in folder.done().items():
            found.setdefault(name, made)
    planned = {name: count for plan in plans.values() for name, count in plan.items()}
    lacking = [name for name in planned if name not in found]
    if lacking and not partial:
        clips = sum(planned[name] for name in lacking)
        of = [shown(path) for path, plan in plans.items() if not plan.keys() <= found.keys()]
        raise AsjaxError(
            f"{len(lacking)} of {len(planned)} planned units, {clips:,} clips, are not done: of "
            f"{', '.join(of[:3])}{' and others' if len(of) > 3 else ''}; finish these shards, or "
            "merge what is there with --partial. If a plan is of an older command, with other "
            "sources or another number of shards, remove its file and merge again"
        )
    chosen = [made for name, made in found.items() if name in planned or not made.source]
    if lacking:
        print(f"--partial: {len(lacking)} of {len(planned)} planned units are not done")
    return merge.merge(
        chosen,
        out,
        first.label_set(),
        first.folder / "listed.csv",
        fields=first.about["fields"],
        name=first.about.get("name"),
        overwrite=overwrite,
    )


def _check_places(folders, out, datasets: set[str]) -> None:
    """Parts of --retry-missing alone would replace the dataset that they add to."""
    parts.check_out(out)
    for folder in folders:
        if folder.folder.resolve() in Path(out).resolve().parents:
            raise AsjaxError(f"--out {shown(out)} is inside of the parts; choose another folder")
        if (folder.about.get("base") or None) not in {None, *datasets}:
            raise AsjaxError(
                f"{shown(folder.folder)} adds clips to a record dataset (--retry-missing), which "
                "must be given too, and be unchanged: asjax prepare merge OUT.parts OUT --out NEW"
            )


def _opened(path: Path) -> parts.Parts:
    folder = path if (path / "listed.csv").is_file() else parts.folder_of(path)
    if not (folder / "parts.json").is_file():
        raise AsjaxError(f"{shown(path)} is neither a folder of parts nor a record dataset")
    return parts.Parts(folder)


def status(path: Path) -> list[str]:
    """Lines about a folder of parts or a finished dataset. AsjaxError: it is neither."""
    lines = []
    if records.is_dataset(path):
        manifest = records.Dataset(path).manifest
        counts = {name: Counter(states) for name, states in manifest.get("states", {}).items()}
        lines += report.lines(counts) if counts else []
        lines.append(f"{path} is complete: {manifest['clips']:,} clips")
        if not parts.folder_of(path).is_dir():
            return lines
    folder = _opened(path)
    done = folder.done()
    planned = {name: count for plan in folder.plans().values() for name, count in plan.items()}
    finished = [done[name] for name in planned if name in done]
    kept = sum(made.about["clips"] for made in finished)
    states = Counter(row[1] for made in finished for row in made.left_out)
    lines.append(
        f"{folder.folder}: {len(finished)} of {len(planned)} planned units are done, {kept:,} of "
        f"{sum(planned.values()):,} clips kept"
    )
    lines += [f"  {state}: {count:,}" for state, count in states.most_common()]
    return lines

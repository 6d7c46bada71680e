"""The walk of a preparation: plan, make the parts, merge them; the same command goes on."""

from __future__ import annotations

import os
from pathlib import Path

from asjax.config import AsjaxError, shown
from asjax.data import records, writer
from asjax.data.bulk import beam, engine, merge, named, parts
from asjax.data.bulk import listed as lists
from asjax.data.bulk import plan as plans
from asjax.data.bulk.part import Part
from asjax.data.bulk.plan import Plan
from asjax.data.bulk.units import Options, in_shard, parse_shard
from asjax.store import swap

WHOLE = (0, 1)


def prepare(
    out,
    plan: Plan,
    pool: engine.Pool,
    *,
    settings: dict,
    fields: dict,
    shard=WHOLE,
    threads: int | None = None,
    overwrite: bool = False,
    base: Part | None = None,
    name: str | None = None,
    extras: dict | None = None,
    drawn: bool = True,
    progress: bool = True,
    runner: beam.Runner | None = None,
):
    """Make the parts of a plan that are not there yet; without shards, merge them into `out`.

    Args:
      settings: what all parts of this output have in common.
      fields, name, extras, drawn: as in `merge.merge`.
      base: the dataset that the parts are added to.
      runner: of Apache Beam, which makes the parts.

    Returns: (writer.Summary, report.Report); None with shards.

    Raises:
      AsjaxError: as `parts.opened`, `engine.run` and `merge.merge`.
      engine.Stopped: Ctrl-C or SIGTERM. The finished parts stay.
    """
    with parts.opened(out, settings, shard, overwrite) as folder:
        about = {"settings": settings, "fields": fields, "name": name}
        about["base"] = None if base is None else base.about["manifest_sha256"]
        folder.describe(about, plan.options.labels)
        listed = folder.folder / "listed.csv"
        plan.listed.write(listed)
        have = frozenset() if base is None else frozenset(row[0] for row in base.rows())
        tasks, before = plan.tasks(have), folder.done()
        folder.plan({task.name: len(task.wants) for task in tasks}, shard)
        mine = [task for task in tasks if in_shard(task.unit, shard)]
        old = {task.name: before[task.name] for task in mine if task.name in before}
        if old:
            clips = sum(part.about["wanted"] for part in old.values())
            print(f"{len(old)} of {len(mine)} units, {clips:,} clips, are done already", flush=True)
        todo = [task for task in mine if task.name not in old]
        try:
            if runner is not None:
                made = named.run(todo, folder.folder, runner)
            else:
                made = engine.run(todo, folder.folder, pool, threads, progress)
        except AsjaxError:
            if not folder.done():  # leave nothing behind of a run that could not begin
                folder.remove()
            raise
        found = old | made
        if shard != WHOLE:
            return _shard_done(folder, shard, mine, found, out if base is not None else None)
        if not have and not any(part.about["clips"] for part in found.values()):
            reasons = [f"{row[0]}: {row[2]}" for part in found.values() for row in part.left_out]
            folder.remove()
            text = "; ".join(reasons[:3]) or "no source has any of them"
            raise AsjaxError(f"{out}: no clip could be stored ({text})")
        result = merge.merge(
            [*found.values(), *([base] if base else [])],
            out,
            plan.options.labels,
            listed,
            fields=fields,
            name=name,
            overwrite=overwrite or base is not None,
            trusted=frozenset(part.folder for part in made.values()),
            extras=extras,
            drawn=drawn,
            progress=progress,
        )
        folder.remove()
        return result


def of_clips(
    args, clips, label_set, encoding, *, name=None, description="", licence="", left_out=(),
    strong=False, notes=None, extras=None, root="", items=None, drawn=False,
):  # fmt: skip
    """Prepare clips that have paths, with the options in `args` of `prepare.add_writer_arguments`.

    Args:
      root: the folder of the audio, or the tar of the items.
      items: the number of each clip in a tar, for clips without a path.
      The others: as `writer.write` and `merge.merge`.

    Returns: (writer.Summary, number of clips left out); None with --shard.

    Raises:
      AsjaxError: as `prepare`, an id occurs twice, or `args.out` exists.
    """
    shard = parse_shard(getattr(args, "shard", None))
    if shard == WHOLE:
        writer.check_free(args.out, args.overwrite)
    listed = lists.of_clips(clips, left_out)
    settings = {
        "set": name or "clips",
        "lists": listed.hash,
        "labels": label_set.hash,
        "encoding": vars(encoding) if encoding else None,
    }
    fields = {
        "licence": licence,
        "description": description,
        "encoding": writer.as_json(encoding),
        "prepare": {"settings": settings},
        **({"notes": notes} if notes else {}),
    }
    options = Options(label_set, encoding, strong)
    if items is None:
        plan = plans.of_clips(listed, options, root)
    else:
        plan = plans.of_items(listed, options, root, items)
    with engine.Pool(workers_of(args)) as pool:
        done = prepare(
            args.out,
            plan,
            pool,
            settings=settings,
            fields=fields,
            shard=shard,
            threads=args.threads,
            overwrite=args.overwrite,
            name=name,
            extras=extras,
            drawn=drawn,
        )
    if done is None:
        return None
    summary, report = done
    return summary, report.lines - summary.clips


def _shard_done(folder, shard, tasks, found, base) -> None:
    wanted = sum(len(task.wants) for task in tasks)
    kept = sum(part.about["clips"] for part in found.values())
    rest = "--out DIR" if base is None else f"{shown(base)} --out {shown(base)} --overwrite"
    print(
        f"shard {shard[0]}/{shard[1]}: {len(tasks)} units are done, {kept:,} of {wanted:,} clips "
        f"kept; when all shards are: asjax prepare merge {shown(folder.folder)} {rest}"
    )


def stopped(out, signal_name, command: str = "the same command") -> int:
    """Say that a run was stopped and how it goes on; returns the exit code."""
    print(
        f"{signal_name}: stopped; finished units are in {shown(parts.folder_of(out))}, "
        f"{command} goes on",
        flush=True,
    )
    return engine.EXIT_STOPPED


def finished(out, settings: dict) -> bool:
    """Whether `out` is the complete set of these settings. AsjaxError: it is something else."""
    parts.check_out(out)
    out = Path(out)
    if swap.find(out) is None or not out.is_dir() or not any(out.iterdir()):
        return False
    writer.check_free(out, overwrite=True)
    theirs = (records.Dataset(out).manifest.get("prepare") or {}).get("settings") or {}
    others = [key for key in settings if theirs.get(key) != settings[key]]
    if others:
        raise AsjaxError(
            f"{shown(out)} holds records with another value of {', '.join(others)}; choose another "
            "--out, or replace it with --overwrite"
        )
    return True


def workers_of(args) -> int:
    """The number of processes. AsjaxError: less than one."""
    given = getattr(args, "workers", None)
    if given is not None and not 1 <= given <= 1024:
        raise AsjaxError(f"--workers must be 1 to 1024, got {given}")
    return given or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else [0])

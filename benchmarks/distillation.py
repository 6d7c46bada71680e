"""Does a small student gain from teachers? Clips of ESC-10, and events in soundscapes.

python benchmarks/distillation.py [--part clips|frames|all] [--folds 5] [--seeds 3] [--seed 0]
    [--minutes 40] [--out runs/distillation] [--search] [--tiny]

clips: for each fold of ESC-10, three teachers of different families learn from the other four. A
student with less than a tenth of any teacher's parameters learns from the labels, from the teachers
without labels, or from the labels of one of the four folds. The teachers are in the student's
training step and hear its mixed waves.

frames: three teachers with a BiGRU learn from scenes with recordings of folds 1 to 3. A student
without RNN, with less than a tenth of a teacher's parameters, learns from labels, from labels and
the stored mean logits of the teachers (PretrainedSED's loss), or from the logits alone, of scenes
that also have recordings of fold 4, without labels. All are scored on scenes of fold 5, once.

--search trains students of clips with the objectives of `TRIED` and scores them on fold 4, of which
their teachers know nothing. Every training is `asjax train` in this process. A
finished one is not repeated, and a stopped one continues. Folds that do not start within --minutes
are left out. results.json has all numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from distillation_configs import (
    CLIPS,
    CLIPS_KD,
    FRAMES_KD,
    LEARNING,
    TRIED,
    clips_config,
    frames_config,
    scenes,
)

from asjax import __main__ as verbs
from asjax import config, devices, metrics, pages, train
from asjax.evaluation import averages, detection_sets, detections, event_numbers


class Study:
    """Runs in the folder `out`: each is made once, with a line about it, and timed."""

    def __init__(self, out: Path):
        self.out, self.runs = out, {}
        out.mkdir(parents=True, exist_ok=True)

    def train(self, name: str, cfg) -> Path:
        """The workdir of a training with this config."""
        path = self.out / f"{name}-{config.fingerprint(config.to_plain(cfg))[:8]}"
        return self._once(name, path, lambda: train.run(cfg, _Options(str(path))))

    def logits(self, name: str, models, spec: dict) -> Path:
        """The folder of the mean logits of frames of models on a source."""
        fields = ", ".join(f"{key}={value!r}" for key, value in spec.items() if key != "name")
        sums = [json.loads((m / "model" / "card.json").read_text())["sha256"] for m in models]
        path = self.out / f"{name}-{config.fingerprint([sums, spec])[:8]}"
        command = ["logits", *map(str, models), "--frames", "--data", f"{spec['name']}({fields})"]
        return self._once(name, path, lambda: verbs.main([*command, "--out", str(path)]))

    def _once(self, name: str, path: Path, work) -> Path:
        """`path`, after `work` if it has not ended before. Its times are in NAME.json beside it."""
        times = path.with_name(f"{path.name}.json")
        if not times.exists():
            wall, cpu = time.perf_counter(), _cpu()
            log = path.with_name(f"{path.name}.log")
            with log.open("a") as f, contextlib.redirect_stdout(f), contextlib.redirect_stderr(f):
                code = work()
            if code:
                print(f"{name} ended with {code}; see {log}", file=sys.stderr)
                raise SystemExit(code)
            spent = {"wall_s": time.perf_counter() - wall, "cpu_s": _cpu() - cpu}
            times.write_text(json.dumps(spent))
        self.runs[name] = json.loads(times.read_text())
        wall, cpu = (self.runs[name][key] for key in ("wall_s", "cpu_s"))
        text = f"{len(self.runs):3d} {name}: {wall:.0f} s, {cpu:.0f} s of CPU{_last(path)}"
        print(text, file=sys.stderr, flush=True)
        return path


class _Options:
    """The options of `asjax train` that `train.run` reads."""

    allow_config_change = allow_data_change = multilabel = False

    def __init__(self, workdir: str):
        self.workdir = workdir


def _cpu() -> float:
    now = os.times()
    return now.user + now.system


def curve(path: Path) -> list[tuple[int, float]]:
    """(step, metric on the data.eval) of a training, or an empty list."""
    log = path / "train.jsonl"
    rows = map(json.loads, log.read_text().splitlines()) if log.exists() else ()
    keys = ("eval/psds1", "eval/mean_ap")
    found = [(row["step"], row[k]) for row in rows for k in keys if k in row]
    return [pair for i, pair in enumerate(found) if i == 0 or pair[0] != found[i - 1][0]]


def _last(path: Path) -> str:
    found = curve(path)
    return f", {100 * found[-1][1]:.1f}" if found else ""


def parameters(path: Path) -> int:
    return json.loads((path / "model" / "card.json").read_text())["parameters"]


# ---------------------------------------------------------------------------------------- results


def clips(study: Study, args) -> dict:
    """name -> parameters, folds (mean AP of each) and resamples of their mean."""
    found: dict = {}
    for fold in range(5, 5 - args.folds, -1):
        if time.monotonic() > args.until and found:
            print(f"time is up before fold {fold}", file=sys.stderr)
            break
        learning = [f"fold{k}" for k in range(1, 6) if k != fold]
        given = dict(learning=learning, held_out=f"fold{fold}", seed=args.seed, tiny=args.tiny)
        paths = _with_students(study, f"clips-fold{fold}", given, {"KD": CLIPS_KD})
        few = clips_config("student", **{**given, "learning": learning[:1]})
        run = study.train(f"clips-fold{fold}-student few labels", few)
        paths["student, a quarter of the labels"] = [run]
        for name, members in paths.items():
            files = [path / "eval" / "scores.npz" for path in members]
            loaded = averages.average_files(files)
            pair = {"scores": loaded["scores"], "targets": loaded["targets"]}
            row = found.setdefault(name, {"parameters": 0, "folds": [], "drawn": []})
            row["parameters"] = sum(map(parameters, members))
            row["folds"].append(metrics.tagging(**pair, only=("mean_ap",))["mean_ap"])
            row["drawn"].append(metrics.resampled(**pair, n=args.bootstrap, seed=0)["mean_ap"])
    for row in found.values():
        row["value"] = float(np.mean(row["folds"]))
        row["drawn"] = np.mean(row["drawn"], axis=0)
    return found


def _with_students(study: Study, prefix: str, given: dict, tried: dict) -> dict:
    """Teachers, ensemble, student without and with teachers: name -> workdirs."""
    teachers = [name for name in CLIPS if name != "student"]
    paths = {t: [study.train(f"{prefix}-{t}", clips_config(t, **given))] for t in teachers}
    paths["ensemble"] = [path for t in teachers for path in paths[t]]
    folders = [str(path) for path in paths["ensemble"]]
    paths["student"] = [study.train(f"{prefix}-student", clips_config("student", **given))]
    for name, fields in tried.items():
        taught = clips_config("student", **given, kd=dict(**fields, teacher=folders))
        paths[f"student, {name}"] = [study.train(f"{prefix}-student {name}", taught)]
    return paths


def frames(study: Study, args) -> dict:
    """name -> parameters, seeds (PSDS1 of each), event and segment F1, and resamples of each."""
    seeds, tiny = range(args.seed, args.seed + 3), args.tiny
    each = [
        study.train(f"frames-BiGRU {s}", frames_config("BiGRU", seed=s, tiny=tiny)) for s in seeds
    ]
    rows = {"BiGRU": [[path] for path in each], "ensemble": [each], "student": []}
    stored = {}
    for _, (folds, _) in FRAMES_KD.items():
        name = f"frames-logits {len(folds)} folds"
        stored[len(folds)] = str(study.logits(name, each, scenes(folds, tiny)))
    for seed in range(args.seed, args.seed + args.seeds):
        given = dict(seed=seed, tiny=tiny)
        run = study.train(f"frames-student {seed}", frames_config("student", **given))
        rows["student"].append([run])
        for name, (folds, fields) in FRAMES_KD.items():
            taught = dict(folds=folds, stored=stored[len(folds)], kd=fields)
            cfg = frames_config("student", **given, **taught)
            run = study.train(f"frames-student {seed}, {name}", cfg)
            rows.setdefault(f"student, {name}", []).append([run])
    return {name: _events(members, args.bootstrap) for name, members in rows.items()}


def _events(runs: list[list[Path]], n: int) -> dict:
    """The scores of repeated runs, each of one model or an ensemble, on the scenes of the test."""
    folders = [[path / "eval" / "frames" for path in members] for members in runs]
    values, drawn = {}, {}
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(runs), (n, len(runs)))  # the seeds of each resample
    for paths in folders:
        members = [detections.stored(path)[0] for path in paths]
        found = detection_sets.averaged(members, "logits", paths) if len(paths) > 1 else members[0]
        made = event_numbers.numbers(found, n_bootstrap=0)
        given, clips = made.given, len(made.ids)
        rows = [
            np.repeat(np.arange(clips), count) for count in metrics.resample_counts(clips, n, 0)
        ]
        boot = metrics.psds_bootstrap(**given, median=found.median, n=n, **metrics.PSDS1)
        one = {"PSDS1": (made.psds["psds1"]["macro"], boot["values"]["macro"])}
        for by, way in made.ways.get("tuned", {}).items():
            counts = np.asarray(way["counts"])
            again = [metrics.f1_of_counts(counts[:, r])["macro"] for r in rows]
            one[f"{by} F1"] = (way["f1"]["macro"], np.array(again))
        for key, (value, resamples) in one.items():
            values.setdefault(key, []).append(float(value))
            drawn.setdefault(key, []).append(resamples)
    mixed = {k: np.stack(v)[chosen, np.arange(n)[:, None]].mean(axis=1) for k, v in drawn.items()}
    return {
        "parameters": sum(map(parameters, runs[0])),
        "seeds": values["PSDS1"],
        "value": float(np.mean(values["PSDS1"])),
        "drawn": mixed["PSDS1"],
        "more": {k: (float(np.mean(values[k])), mixed[k]) for k in values if k != "PSDS1"},
        "curves": [curve(path) for path, *_ in runs],
    }


def search(study: Study, args) -> None:
    """Print the scores of `TRIED` on fold 4."""
    given = dict(learning=LEARNING, held_out="fold4", seed=args.seed, tiny=args.tiny)
    tried = {", ".join(f"{k} {v}" for k, v in fields.items()): fields for fields in TRIED}
    for name, paths in _with_students(study, "search", given, tried).items():
        print(f"{name}: {', '.join(f'{100 * curve(path)[-1][1]:.1f}' for path in paths)}")


# ----------------------------------------------------------------------------- tables and picture


def with_interval(value: float, drawn, least: float = 0.0) -> str:
    """A score in % with its interval, or a difference of scores with least=-1."""
    low, high = np.clip(metrics.interval(drawn, value), least, 1)
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def table(part: str, rows: dict) -> list[str]:
    """Lines of Markdown."""
    each = "folds" if part == "clips" else "seeds"
    more = list(next(iter(rows.values())).get("more", ()))
    metric = "mean AP" if part == "clips" else "PSDS1"
    heads = ["model", "parameters", metric, *more, f"single {each}"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, row in rows.items():
        cells = [name, f"{row['parameters']:,}", with_interval(row["value"], row["drawn"])]
        cells += [with_interval(*row["more"][key]) for key in more]
        cells.append(", ".join(f"{100 * value:.1f}" for value in row[each]))
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    plain = rows["student"]
    for name, row in rows.items():
        if name.startswith("student, "):
            pairs = [(metric, row["value"], row["drawn"], plain["value"], plain["drawn"])]
            pairs += [(key, *row["more"][key], *plain["more"][key]) for key in more]
            texts = [f"{key} {with_interval(a - b, x - y, -1.0)}" for key, a, x, b, y in pairs]
            lines.append(f"{name}, minus the student of the labels: {', '.join(texts)}")
    return lines


APART = 1.35  # factor between the marks of students, which have the same size
MARKS = ("s", "D", "^", "v")


def picture(parts: dict) -> bytes:
    """PNG: score against the number of parameters; a line joins the scores of the student."""
    titles = {"clips": "clips: mean AP in %", "frames": "events in time: PSDS1 in %"}
    colors = (pages.BLUE, pages.ORANGE, pages.GREEN)

    def draw(figure):
        axes = figure.subplots(1, len(parts), squeeze=False)[0]
        for axis, (part, rows) in zip(axes, parts.items(), strict=True):
            students = [name for name in rows if name.startswith("student")]
            others = [name for name in rows if name not in students]
            middle = (len(students) - 1) / 2
            at = [rows[n]["parameters"] * APART ** (i - middle) for i, n in enumerate(students)]
            axis.plot(at, [100 * rows[n]["value"] for n in students], color=pages.GREY, zorder=2)
            looks = [(n, rows[n]["parameters"], pages.INK, MARKS[i]) for i, n in enumerate(others)]
            looks += [(n, at[i], colors[i], "o") for i, n in enumerate(students)]
            for name, x, color, mark in looks:
                y, (low, high) = 100 * rows[name]["value"], ends(rows[name])
                bars = [[y - 100 * low], [100 * high - y]]
                label = "student, labels" if name == "student" else name
                how = dict(color=color, capsize=3, ms=6, elinewidth=1.3, zorder=3, label=label)
                axis.errorbar([x], [y], yerr=bars, fmt=mark, **how)
            axis.set_xscale("log")
            ticks = [10_000, 30_000, 100_000, 300_000, 1_000_000]
            axis.set_xticks(ticks, ["10 k", "30 k", "100 k", "300 k", "1 M"])
            axis.minorticks_off()
            axis.set_xlabel("parameters (marks of the student side by side)")
            axis.set_title(titles[part])
            axis.margins(x=0.12)
            axis.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.17), fontsize=8)

    return pages.png(draw, 4.6)


def ends(row: dict):
    """Interval of the score of a row; no score is outside [0, 1]."""
    return np.clip(metrics.interval(row["drawn"], row["value"]), 0, 1).tolist()


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("clips", "frames", "all"), default="all")
    parser.add_argument("--folds", type=int, default=5, choices=range(1, 6), help="from fold 5")
    parser.add_argument("--seeds", type=int, default=3, help="of the students of frames")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--minutes", type=float, default=40, help="no fold starts after them")
    parser.add_argument("--bootstrap", type=int, default=500)
    parser.add_argument("--search", action="store_true", help="try objectives on fold 4")
    parser.add_argument("--tiny", action="store_true", help="two steps each, for a test")
    parser.add_argument("--out", type=Path, default=Path("runs/distillation"))
    args = parser.parse_args(argv)
    args.until = time.monotonic() + 60 * args.minutes
    devices.setup()
    study, parts = Study(args.out), {}
    if args.search:
        search(study, args)
        return 0
    for part, work in (("frames", frames), ("clips", clips)):
        if args.part in (part, "all"):
            parts[part] = work(study, args)
            print("\n".join(["", f"{part}:", "", *table(part, parts[part])]))
    spent = {key: sum(run[key] for run in study.runs.values()) for key in ("wall_s", "cpu_s")}
    plain = {p: {n: _plain(row) for n, row in rows.items()} for p, rows in parts.items()}
    text = json.dumps({"parts": plain, "runs": study.runs, **spent}, indent=1)
    (args.out / "results.json").write_text(text + "\n")
    (args.out / "distillation.png").write_bytes(picture(parts))
    minutes = [f"{spent[key] / 60:.1f}" for key in ("wall_s", "cpu_s")]
    print(f"\n{len(study.runs)} runs: {minutes[0]} minutes, {minutes[1]} minutes of CPU")
    return 0


def _plain(row: dict) -> dict:
    """A row without its resamples, with intervals."""
    out = {key: value for key, value in row.items() if key not in ("drawn", "more")}
    out["interval"] = ends(row)
    more = row.get("more", {}).items()
    return out | {key: [value, *metrics.interval(drawn, value)] for key, (value, drawn) in more}


if __name__ == "__main__":
    sys.exit(main())

"""`asjax train`: one function, read top to bottom.

Exit codes: 0 finished; 75 stopped by SIGTERM or Ctrl-C after saving everything (the same command
resumes the run); 2 an error that one line explains.
"""

from __future__ import annotations

import contextlib
import signal
from functools import partial
from pathlib import Path

from asjax import build
from asjax.data import prefetch
from asjax.evaluation import infer
from asjax.store import model_dir

EXIT_STOPPED = 75
MAX_NONFINITE_IN_A_ROW = 10


def add_arguments(parser):
    from asjax.own import options

    parser.set_defaults(takes_fields=True)
    parser.add_argument(
        "--config",
        help="FILE.py or FILE.py:key=value, the name of a recipe (asjax configs list), or the "
        "config.json of a workdir",
    )
    parser.add_argument("--workdir", required=True, help="folder of this run; resumed if it exists")
    parser.add_argument(
        "--allow-config-change", action="store_true", help="resume with a changed config"
    )
    parser.add_argument("--allow-data-change", action="store_true", help="resume with changed data")
    parser.add_argument(
        "--multilabel",
        action="store_true",
        help="objective auto: one sigmoid per class, also if every clip has exactly one label",
    )
    parser.add_argument("--cpu-devices", type=int, help="devices on CPU (default: one per core)")
    parser.add_argument("--coordinator", help="host:port of process 0, for several processes")
    parser.add_argument("--num-processes", type=int, help="how many processes train together")
    parser.add_argument("--process-id", type=int, help="number of this process, from 0")
    parser.add_argument_group(
        "config fields", "options such as --config.optim.lr=3e-4 override any field of the config"
    )
    own = parser.add_argument_group("your own clips, in place of --config")
    options.add_data(own)
    own.add_argument("--model", help="mini (default), or a variant such as cnn14 (asjax models)")
    own.add_argument("--clip-s", type=float, help="seconds of a clip (default: from the data)")
    options.add_training(own)


def main(args) -> int:
    import jax

    from asjax import devices
    from asjax.own import options

    devices.setup(
        cpu_devices=args.cpu_devices,
        coordinator=args.coordinator,
        num_processes=args.num_processes,
        process_id=args.process_id,
    )
    return run(options.load(args, print if jax.process_index() == 0 else _silent), args)


def run(cfg, args) -> int:
    """Train by a complete config (`build.finished`) in `args.workdir`; returns the exit code.

    Args:
      args: has workdir, allow_config_change and allow_data_change.
    """
    # ------------------------------------------------------------------ start-up
    import jax

    from asjax import config, hlp, pages, sharding, step
    from asjax.data import pipeline, quarantine
    from asjax.evaluation import evaluate, probe
    from asjax.optim import groups
    from asjax.store import checkpoint, files, log, workdir
    from asjax.weights import start as init_from

    first_process = jax.process_index() == 0
    accumulate = build.read(cfg, "optim.accumulate_steps")
    rows = (cfg.batch_size // accumulate, cfg.eval.batch_size)
    mesh = sharding.make_mesh(cfg.mesh, batch_sizes=rows)
    say = partial(print, flush=True) if first_process else (lambda *a, **k: None)

    # ------------------------------------------------------------------ data
    label_set = build.label_set(cfg)
    closure = hlp.closure_if_known(label_set, strict=cfg.labels.strict)
    if cfg.labels.hlp and closure is None:
        raise config.AsjaxError(
            f"labels.hlp: the classes of {label_set.name} are in no ontology that asjax has; set "
            "--config.labels.hlp=False, use classes with AudioSet mids, or give their ontology as "
            "--config.labels.parents=FILE.csv (rows child,parent)"
        )
    train_source = build.source(cfg.data.train, label_set)
    eval_source = build.source(cfg.data.eval, label_set)
    # In training and in evaluation, a process decodes only the rows of its own devices.
    train_rows = sharding.local_rows(mesh, cfg.batch_size, "batch_size")
    step.check_parts(cfg.batch_size, accumulate, mesh.size)
    eval_rows = sharding.local_rows(mesh, cfg.eval.batch_size, "eval.batch_size")
    fields = {**build.data_fields(cfg), "num_classes": len(label_set)}
    caches = pipeline.cache_shares(cfg.data.cache, (len(train_source), len(eval_source)))
    train_data = build.pipeline(
        train_source,
        batch_size=cfg.batch_size,
        train=True,
        seed=cfg.seed,
        rows=train_rows,
        **{**fields, "cache": caches[0]},
    )
    eval_data = build.pipeline(
        eval_source,
        batch_size=cfg.eval.batch_size,
        train=False,
        rows=eval_rows,
        **{**fields, "cache": caches[1]},
    )
    taxonomy = [label_set.taxonomy] if label_set.taxonomy else []
    parts = [train_data.fingerprint, eval_data.fingerprint, label_set.hash, *taxonomy]
    data_id = config.fingerprint(parts)

    # ------------------------------------------------------------------ model and objective
    frontend = build.make("frontend", cfg.frontend)
    model = build.make("model", cfg.model, num_classes=len(label_set))
    freeze = build.read(cfg, "optim.freeze")
    objective = build.make(
        "objective",
        cfg.objective,
        model=groups.still(model, freeze),
        frontend=frontend,
        augment={place: build.augment(text) for place, text in cfg.augment.items()},
        closure=closure if cfg.labels.hlp else None,
    )
    tx, schedule = build.make(
        "optim",
        cfg.optim,
        total_steps=cfg.total_steps,
        steps_per_epoch=train_data.steps_per_epoch,
    )
    decay = build.read(cfg, "optim.layer_decay")
    tx = groups.grouped(tx, model, freeze=freeze, layer_decay=decay)
    average = build.make("average", cfg.average) if cfg.average else None

    work = workdir.Workdir.open(
        args.workdir,
        config=cfg,
        data_fingerprint=data_id,
        allow_config_change=args.allow_config_change,
        allow_data_change=args.allow_data_change,
        primary=first_process,
    )
    with work, eval_data:  # the evaluation's decoding workers run until the end
        # -------------------------------------------------------------- state
        wave_shape = (cfg.batch_size, round(cfg.data.clip_s * cfg.data.sample_rate))
        create = partial(
            step.init_state,
            model=model,
            frontend=frontend,
            tx=tx,
            wave_shape=wave_shape,
            average=average is not None,
        )
        key = jax.random.key(cfg.seed)
        shapes = jax.eval_shape(create, key)
        state_sharding = sharding.state_sharding(mesh, shapes)
        batch_sharding = sharding.batch_sharding(mesh)
        replicated = sharding.replicated(mesh)
        checkpoints = checkpoint.Checkpoints(work.path / "checkpoints")
        restored = checkpoints.restore(sharding.with_sharding(shapes, state_sharding))
        if restored is None:
            state = jax.jit(create, out_shardings=state_sharding)(key)
            spec = {**cfg.model, "num_classes": len(label_set)}
            state = init_from.start(
                state, cfg.init_from, model=model, spec=spec, label_set=label_set, cfg=cfg
            )
            start = 0
        else:
            start, state, _ = restored
            say(f"resuming at step {start} of {cfg.total_steps} in {work.path}")
        train_step = jax.jit(
            step.make_train_step(
                objective=objective,
                tx=tx,
                average=average,
                lr=schedule,
                accumulate=accumulate,
            ),
            in_shardings=(state_sharding, batch_sharding),
            out_shardings=(state_sharding, replicated),
            donate_argnums=0,
        )
        forward = infer.Forward(model, frontend, mesh)
        # state -> ids, logits and targets of the evaluation set, with averaged weights if any
        predict = lambda state, **how: infer.scores(  # noqa: E731
            forward, step.weights(state), eval_data, len(label_set), **how
        )

        # -------------------------------------------------------------- loop
        n_params = sum(x.size for x in jax.tree.leaves(state.params))
        say(
            f"{cfg.model.name} {cfg.model.get('variant', '')}: {n_params:,} parameters, "
            f"{len(train_source)} clips to train on, {len(eval_source)} to evaluate, "
            f"{train_data.draws_per_epoch} draws an epoch, {mesh.size} devices, "
            f"HLP {'on' if cfg.labels.hlp else 'off'}, {cfg.data.draw}"
        )
        if first_process:
            with contextlib.suppress(ImportError, OSError):  # this file is only for people to read
                table = pages.parameter_table(state.params, sharding=True)
                files.write_atomic(work.path / "parameters.txt", table + "\n")
        writer = log.Writer(work.path, start_step=start, active=first_process)
        share = "" if first_process else f"-{jax.process_index()}"  # each process reads other clips
        bad_clips = quarantine.Quarantine(
            work.path / f"quarantine{share}.csv", len(train_source), cfg.data.max_bad
        )
        stop = _StopSignal()
        place = partial(sharding.place, mesh, owned=True)
        batches = prefetch.prefetch(train_data.iterate(start), place)
        progress = log.Progress(
            cfg.total_steps, start, batch_size=cfg.batch_size, active=first_process
        )
        pending = None  # scalars of the last step, fetched while the next step runs
        stopped = False
        with stop, batches, progress, checkpoints, bad_clips:
            for i in range(start, cfg.total_steps):
                batch, host = next(batches)
                state, scalars = train_step(state, batch)
                bad_clips.add(host["bad"])
                if pending is not None:
                    _report(writer, progress, *pending, cfg, batches)
                pending = (i + 1, scalars)
                done = i + 1
                evaluating = done % cfg.eval.every_steps == 0 or done == cfg.total_steps
                asked = _asked_to_stop(stop, done, cfg.log.every_steps)
                metrics = None
                if evaluating:
                    _report(writer, progress, *pending, cfg, batches)
                    pending = None
                    metrics = evaluate.trace(*predict(state, progress=False)[1:])
                    writer.write_scalars(done, {f"eval/{k}": v for k, v in metrics.items()})
                    progress.note(**metrics)
                if evaluating or asked or done % cfg.log.save_steps == 0:
                    checkpoints.save(done, state, metrics=metrics, meta={"data": data_id})
                if asked and done < cfg.total_steps:
                    stopped = True
                    break
            if pending is not None:
                _report(writer, progress, *pending, cfg, batches)
        if stopped:
            writer.close()
            if not checkpoints.wait():
                raise config.AsjaxError(
                    f"stopped at step {done}, which could not be saved: {checkpoints.last_error}; "
                    f"the last saved step is {checkpoints.latest_step()}"
                )
            say(f"stopped at step {done}, everything is saved; run the same command to resume")
            return EXIT_STOPPED

        # -------------------------------------------------------------- best weights, report, model
        best = checkpoints.best_step()
        if best not in (None, int(state.step)):
            _, state, _ = checkpoints.restore(
                sharding.with_sharding(shapes, state_sharding), step=best
            )
        variables = sharding.gather(step.weights(state))
        say(f"best step {int(state.step)}; scoring it and writing the report")
        unread = []  # (id, reason) of evaluation clips that cannot be decoded
        ids, logits, targets = predict(state, progress=first_process, bad=unread)
        record = _record(cfg, label_set, train_source, eval_source, state, n_params)
        if cfg.eval.baseline and first_process:
            record |= probe.baseline(cfg, label_set, train_source, eval_source)
        out = work.path / "eval"
        if first_process:
            evaluate.save_scores(
                out / "scores.npz",
                ids=ids,
                scores=logits,
                targets=targets,
                label_set=label_set,
                extra={"left_out": sorted(set(unread))},
            )
            summary = evaluate.evaluate_scores(
                out / "scores.npz",
                out,
                label_set=label_set,
                closure=closure,
                mappings=list(cfg.eval.mappings),
                n_bootstrap=cfg.eval.bootstrap,
                history=log.read_jsonl(work.path / "train.jsonl"),
                train_counts=train_source.labels.sum(axis=0),
                record=record,
            )
            saved = config.to_plain(cfg)
            saved["model"]["num_classes"] = len(label_set)
            model_dir.save_model(
                work.path / "model",
                config=saved,
                label_set=label_set,
                variables=variables,
                record={**record, "scores": evaluate.headline(summary)},
            )
            say(evaluate.table(summary))
            say(_where(work.path, bad_clips))
        writer.close()
        return 0


def _silent(text: str) -> None:
    """Print nothing: the first process of many speaks for all."""


class _StopSignal:
    """Turns SIGTERM and Ctrl-C into a flag that the loop reads between two steps."""

    def __init__(self):
        self.requested = False
        self._before = {}

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C stops at once; the last save remains
        self.requested = True


def _asked_to_stop(stop, done: int, every_steps: int) -> bool:
    """Whether to stop. Processes must stop at the same step, so they ask each other at times."""
    import jax
    import numpy as np

    if jax.process_count() == 1:
        return stop.requested
    if done % every_steps:
        return False
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(stop.requested)).any())


def _report(writer, progress, number, scalars, cfg, batches):
    """Fetch, show and log the scalars of step `number`. AsjaxError: too many nonfinite steps."""
    from asjax.config import AsjaxError

    values = {k: float(v) for k, v in scalars.items()}
    in_a_row = int(values.pop("nonfinite_in_a_row"))
    progress.update(number, loss=values["loss"], waited_s=batches.waited_s)
    if in_a_row >= MAX_NONFINITE_IN_A_ROW:
        raise AsjaxError(
            f"step {number}: loss or gradient not finite {in_a_row} steps in a row (first "
            f"{number - in_a_row + 1}); lower --config.optim.lr or set --config.optim.clip_norm"
        )
    if number % cfg.log.every_steps == 0 or in_a_row:
        writer.write_scalars(number, {**values, **progress.rates()})


def _record(cfg, label_set, train_source, eval_source, state, n_params) -> dict:
    """The record in a model folder: how the model was trained and on what data."""
    from asjax import config

    return {
        "hlp": bool(cfg.labels.hlp),
        "draw": cfg.data.draw,
        "seed": int(cfg.seed),
        "step": int(state.step),
        "skipped_steps": int(state.nonfinite[0]),
        "parameters": int(n_params),
        "train_data": {
            "name": train_source.name,
            "clips": len(train_source),
            "hash": train_source.hash,
        },
        "eval_data": {
            "name": eval_source.name,
            "clips": len(eval_source),
            "hash": eval_source.hash,
        },
        "labels": {"name": label_set.name, "hash": label_set.hash},
        "config_hash": config.fingerprint(cfg),
    }


def _where(path: Path, bad_clips) -> str:
    lines = [
        f"report      {path / 'eval' / 'report.html'}",
        f"metrics     {path / 'eval' / 'metrics.json'}, per_class.csv, scores.npz",
        f"model       {path / 'model'}",
        f"log         {path / 'train.jsonl'}",
    ]
    if bad_clips.count:
        lines.append(f"quarantine  {path / 'quarantine.csv'} ({bad_clips.count} clips)")
    lines.append(f"try it:     asjax tag YOUR_FILE.wav --model={path / 'model'}")
    return "\n".join(lines)

"""`asjax train`: one function, read top to bottom.

Exit codes: 0 finished; 75 stopped by SIGTERM or Ctrl-C after saving everything (the same command
resumes the run); 76 another process, the data or a device hung or died (the same command goes on
from the last checkpoint); 2 an error that one line explains.
"""

from __future__ import annotations

import contextlib
import math
from functools import partial

from asjax import build, checks, hosts
from asjax.data import costs, patience, prefetch
from asjax.evaluation import infer, tasks
from asjax.fit import advice
from asjax.hosts import cluster, watchdog
from asjax.store import files, model_dir

EXIT_STOPPED = 75


def add_arguments(parser):
    from asjax.own import options

    parser.set_defaults(takes_fields=True)
    parser.add_argument(
        "--config",
        help="FILE.py or FILE.py:key=value, the name of a recipe (asjax configs list), or the "
        "config.json of a workdir",
    )
    parser.add_argument(
        "--workdir",
        required=True,
        help="folder of this run; resumed if it exists. Several processes need the same folder, on "
        "a disk that all hosts share",
    )
    parser.add_argument(
        "--allow-config-change", action="store_true", help="resume with a changed config"
    )
    parser.add_argument("--allow-data-change", action="store_true", help="resume with changed data")
    parser.add_argument(
        "--multilabel",
        action="store_true",
        help="objective auto: one sigmoid per class, also if every clip has exactly one label",
    )
    cluster.add_arguments(parser)
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

    cluster.check_asked(args.coordinator)
    devices.setup(
        cpu_devices=args.cpu_devices,
        coordinator=args.coordinator,
        num_processes=args.num_processes,
        process_id=args.process_id,
        watchdog_s=args.watchdog_s,
    )
    say = print if jax.process_index() == 0 else lambda text: None
    return run(options.load(args, say), args)


def run(cfg, args) -> int:
    """Train by a complete config (`build.finished`) in `args.workdir`; returns the exit code.

    Args:
      args: has workdir, allow_config_change, allow_data_change, and perhaps watchdog_s.
    """
    how = dict(decode_timeout_s=cfg.data.decode_timeout_s, doing=patience.described)
    watch = watchdog.Watchdog(getattr(args, "watchdog_s", None), **how)
    with watch, advice.on_full_memory(cfg):
        return _run(cfg, args)


def _run(cfg, args) -> int:
    # ------------------------------------------------------------------ start-up
    import jax

    from asjax import config, hlp, objectives, pages, sharding, step
    from asjax.data import pipeline, quarantine, resident, unlabelled
    from asjax.evaluation import listen, probe
    from asjax.hosts import watch
    from asjax.optim import groups
    from asjax.store import checkpoint, choice, log, result, workdir
    from asjax.teachers import online
    from asjax.weights import start as init_from

    first_process = jax.process_index() == 0
    hosts.check_start(cfg)
    accumulate = build.read(cfg, "optim.accumulate_steps")
    rows = (cfg.batch_size // accumulate, cfg.eval.batch_size)
    mesh = sharding.make_mesh(cfg.mesh, batch_sizes=rows, hosts=(names := hosts.names()))
    say = partial(print, flush=True) if first_process else (lambda *a, **k: None)
    if hosts.several():
        say(sharding.described(mesh, names))

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
    final_source = build.source(cfg.data.test, label_set) if cfg.data.test else eval_source
    if not cfg.labels.hlp:  # with HLP, clips of a subclass train a class too
        pipeline.say_untrained(label_set, train_source, eval_source, final_source)
    objective, why = objectives.choose(
        cfg.objective, train_source, hlp=cfg.labels.hlp, multilabel=args.multilabel
    )
    if why:  # the config of the run names the objective that is used
        with cfg.unlocked(), cfg.ignore_type():
            cfg.objective = objective
        say(why)
    unlabelled.check(train_source, train=True, objective=config.split_spec(objective)[0])
    task = tasks.of(cfg)
    metric = task.metric(eval_source)
    # In training and in evaluation, a process decodes only the rows of its own devices.
    train_rows = sharding.local_rows(mesh, cfg.batch_size, "batch_size")
    step.check_parts(cfg.batch_size, accumulate, mesh.size)
    eval_rows = sharding.local_rows(mesh, cfg.eval.batch_size, "eval.batch_size")
    fields = {**build.data_fields(cfg), "num_classes": len(label_set)}
    clips = (len(train_source), len(eval_source))  # the test set is read once, so it is not cached
    caches = pipeline.cache_shares(cfg.data.cache, clips)
    train_data = build.pipeline(
        train_source,
        batch_size=cfg.batch_size,
        train=True,
        seed=cfg.seed,
        rows=train_rows,
        label_set=label_set,
        **{**fields, "cache": caches[0]},
    )
    scored = partial(
        build.pipeline, batch_size=cfg.eval.batch_size, train=False, rows=eval_rows, **fields
    )
    eval_data = scored(eval_source, cache=caches[1])
    final_data = scored(final_source, cache=False) if cfg.data.test else eval_data
    taxonomy = [label_set.taxonomy] if label_set.taxonomy else []
    parts = [train_data.fingerprint, eval_data.fingerprint, label_set.hash, *taxonomy]
    data_id = config.fingerprint(parts + [final_data.fingerprint] * bool(cfg.data.test))
    epoch = train_data.draws_per_epoch / cfg.batch_size  # in steps
    total_steps = cfg.total_steps or math.ceil(cfg.total_epochs * epoch)
    eval_steps = cfg.eval.every_steps
    if cfg.eval.every_epochs:
        eval_steps = max(1, round(cfg.eval.every_epochs * epoch))

    # ------------------------------------------------------------------ model and objective
    frontend = build.make("frontend", cfg.frontend)
    checks.rate(frontend, cfg)
    model = build.make("model", cfg.model, num_classes=len(label_set))
    freeze = build.read(cfg, "optim.freeze")
    objective = build.make(
        "objective",
        cfg.objective,
        model=groups.still(model, freeze),
        frontend=frontend,
        augment={place: build.augment(text) for place, text in cfg.augment.items()},
        closure=closure if cfg.labels.hlp else None,
        source=train_source,
        load=partial(online.load, cfg=cfg, label_set=label_set),
    )
    for line in (*train_data.notes, *getattr(objective, "notes", ())):
        say(line)
    if taught_by := getattr(objective, "identity", ""):
        data_id = config.fingerprint([data_id, taught_by])
    whole = {"train": train_data.fingerprint, "eval": eval_data.fingerprint}
    whole |= {"test": final_data.fingerprint if cfg.data.test else "", "labels": label_set.hash}
    whole = {key: text[:12] for key, text in (whole | {"teachers": taught_by}).items()}
    hosts.check_same("set of data", whole, "give all hosts the same lists, labels and records")
    tx, schedule = build.make(
        "optim",
        cfg.optim,
        total_steps=total_steps,
        steps_per_epoch=train_data.steps_per_epoch,
    )
    layers = {key: build.read(cfg, f"optim.{key}") for key in ("layer_decay", "layer_rule")}
    tx = groups.grouped(tx, model, freeze=freeze, **layers)
    average = build.make("average", cfg.average) if cfg.average else None

    work = workdir.Workdir.open(
        args.workdir,
        config=cfg,
        data_fingerprint=data_id,
        allow_config_change=args.allow_config_change,
        allow_data_change=args.allow_data_change,
        primary=first_process,
    )
    hosts.meet(work.path)
    stop = watch.StopSignal()
    with work, eval_data, stop:  # the evaluation's decoding workers run until the end
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
        checkpoints = checkpoint.Checkpoints(
            work.path / "checkpoints",
            metric=metric,
            rule=build.make("choice", cfg.eval.select),
        )
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
            say(f"resuming at step {start} of {total_steps} in {work.path}")
        frozen = getattr(objective, "frozen", None)  # weights of a teacher in the step
        frozen_sharding = sharding.state_sharding(mesh, frozen)
        frozen = jax.device_put(frozen, frozen_sharding)
        run = step.make_train_step(
            objective=objective, tx=tx, average=average, lr=schedule, accumulate=accumulate
        )
        place = partial(sharding.place, mesh, owned=True)
        if train_data.table is not None:  # the batches have numbers of waves
            waves = resident.placed(train_data.table.waves, mesh)
            run, batch_sharding = resident.reading(run, mesh, waves), None
            place = lambda rows: {**sharding.place(mesh, rows, owned=True), "table": waves}  # noqa: E731
        train_step = jax.jit(
            run,
            in_shardings=(state_sharding, batch_sharding, frozen_sharding),
            out_shardings=(state_sharding, replicated),
            donate_argnums=0,
        )
        forward = infer.Forward(model, frontend, mesh, task.outputs)
        # state, data -> scores of the data, with averaged weights if any
        predict = lambda state, data, **how: task.predict(  # noqa: E731
            forward, step.weights(state), data, len(label_set), **how
        )

        # -------------------------------------------------------------- loop
        n_params = sum(x.size for x in jax.tree.leaves(state.params))
        say(
            f"{cfg.model.name} {cfg.model.get('variant', '')}: {n_params:,} parameters, "
            f"{config.counted(len(train_source), 'clip')} to train on, "
            f"{len(eval_source)} to evaluate, {train_data.draws_per_epoch} draws an epoch, "
            f"{mesh.size} devices, HLP {'on' if cfg.labels.hlp else 'off'}, {cfg.data.draw}"
        )
        if first_process:
            with contextlib.suppress(ImportError, OSError):  # this file is only for people to read
                table = pages.parameter_table(state.params, sharding=True)
                files.write_atomic(work.path / "parameters.txt", table + "\n")
        writer = log.Writer(work.path, start_step=start, active=first_process)
        about = (len(train_source), cfg.data.max_bad, hosts.index())
        bad_clips = quarantine.in_folder(work.path, *about)
        batches = prefetch.prefetch(train_data.iterate(start), place)
        progress = log.Progress(total_steps, start, batch_size=cfg.batch_size, active=first_process)
        pace = watch.Pace(cfg.eval.max_share)
        # Several processes stop only together, after a step or a batch of an evaluation.
        asked_waiting = None if hosts.several() else stop.asked
        compiling = {"training": "the training step's compilation", "scoring": "the first scoring"}

        def evaluated(done, state) -> dict:
            watchdog.beat(done, "eval")
            with progress.paused(), pace.measure(), stop.during(compiling.pop("scoring", "")):
                found = predict(state, eval_data, progress=False, stop=stop.asked)
                metrics = hosts.from_first(lambda: task.trace(found))
            writer.write_scalars(done, {f"eval/{k}": v for k, v in metrics.items()})
            progress.note(**{("eval_" * (k == "loss") + k): v for k, v in metrics.items()})
            values.append(metrics[checkpoints.metric])
            return metrics

        def report(number, scalars) -> None:
            every = cfg.log.every_steps
            busy = costs.busy(max(1, cfg.data.workers) * cfg.data.threads)
            times = dict(waited_s=batches.waited_s, busy=busy)
            log.report(writer, progress, number, scalars, every, **times)

        def save(step, *args, **metrics):
            watchdog.beat(step, "save")
            return checkpoints.save(step, *args, meta={"data": data_id}, **metrics)

        values = [value for _, value in checkpoints.history]
        stale = partial(choice.stale, patience=cfg.eval.patience)
        due = lambda step: step == total_steps or step % eval_steps == 0  # noqa: E731
        done, stopped, skipped = start, False, False
        pending = None  # scalars of the last step, fetched while the next step runs
        with batches, progress, checkpoints, bad_clips:
            try:
                if start and due(start) and start not in dict(checkpoints.history):
                    save(start, state, metrics=evaluated(start, state))  # it was stopped in there
                ended = start >= total_steps or stale(values)
                while not (stopped or ended):
                    watchdog.beat(done + 1, "data")
                    batch, host = batches.wait(asked_waiting)
                    bad_clips.add(host["bad"])
                    with stop.during(compiling.pop("training", "")):
                        if done == start:
                            train_step = step.ahead(train_step, state, batch, frozen)
                        watchdog.beat(done + 1, "step")
                        state, scalars = train_step(state, batch, frozen)
                    done += 1
                    if pending is not None:
                        report(*pending)
                    pending = (done, scalars)
                    ended = done == total_steps
                    stopped = stop.asked() and not ended
                    metrics = None
                    evaluating = due(done) and (ended or hosts.from_first(pace.allows))
                    if due(done) and not evaluating and not skipped:
                        say(f"some evaluations are left out: eval.max_share={cfg.eval.max_share:g}")
                        skipped = True
                    if evaluating:
                        report(*pending)
                        pending = None
                        metrics = evaluated(done, state)
                        if stale(values) and not ended:
                            say(f"{cfg.eval.patience} evaluations without a better metric")
                            ended = True
                    if metrics is not None or stopped or done % cfg.log.save_steps == 0:
                        save(done, state, metrics=metrics)
            except prefetch.Stopped:  # asked while it waited for data or evaluated
                stopped = True
                if done > start:
                    save(done, state)
            except log.Diverged:
                raise
            except config.AsjaxError as error:  # of the data
                raise result.saved_before(error, done, start, save, checkpoints, state) from None
            if pending is not None:
                report(*pending)
            if not stopped:
                watchdog.beat(done, "eval")
                abstract = sharding.with_sharding(shapes, state_sharding)
                state, record = result.chosen(checkpoints, state, abstract, say)
                final = tuning = None  # scores of the final data, and of data that chose the step
                unread = []  # (id, reason) of clips that cannot be decoded
                with contextlib.suppress(prefetch.Stopped):
                    if cfg.data.test and task.tunes:
                        tuning = predict(state, eval_data, progress=False, stop=stop.asked)
                    final = predict(
                        state, final_data, progress=first_process, bad=unread, stop=stop.asked
                    )
                stopped = final is None or stop.asked()
        if stopped:
            writer.close()
            say(result.stopped(checkpoints, done))
            return EXIT_STOPPED

        # -------------------------------------------------------------- report, model
        stop.busy, stop.then = "the report", "run has ended as usual."
        variables = sharding.gather(step.weights(state))
        watchdog.beat(phase="report")
        sources = {"train_data": train_source, "eval_data": eval_source}
        if cfg.data.test:
            sources["test_data"] = final_source
        record |= model_dir.training_record(cfg, label_set, sources, state, n_params)
        if cfg.eval.baseline and first_process:
            record |= probe.baseline(cfg, label_set, train_source, final_source)
        out = work.path / "eval"
        about_model = {key: cfg.model.get(key) for key in ("name", "variant")}
        if first_process:
            card, table, tables = task.write(
                final,
                out,
                label_set=label_set,
                tuning=tuning,
                extra={"left_out": sorted(set(unread)), "strict": bool(cfg.labels.strict)},
                closure=closure,
                mappings=list(cfg.eval.mappings),
                n_bootstrap=cfg.eval.bootstrap,
                history=log.read_jsonl(work.path / "train.jsonl"),
                train_counts=train_source.labels.sum(axis=0),
                record={**record, "run": work.path.resolve().name, "model": about_model},
                listen=listen.listener(final_source),
                source=final_source,
            )
            saved = config.to_plain(cfg)
            saved["model"]["num_classes"] = len(label_set)
            model_dir.save_model(
                work.path / "model",
                config=saved,
                label_set=label_set,
                variables=variables,
                record={**record, **card},
            )
            say(table)
            if not cfg.data.test and cfg.eval.select != "last":
                say("the step was chosen by the scores of these clips; data.test gives others")
            say(result.where(work.path, bad_clips, tables, task.option))
        writer.close()
        return 0

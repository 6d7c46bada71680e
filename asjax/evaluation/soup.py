"""`asjax soup`: the mean of the weights of several models, as a new model folder.

Models of one config and one start that differ in their seed often lie in one basin of the loss.
Then the mean of their weights is as good as an ensemble and costs one model (Wortsman et al. 2022,
"Model soups"). The greedy soup of that paper adds one model after the other, the best first, and
keeps it only if the score on validation data rises.

The statistics of batch norms are averaged with the weights. `--statistics DATA` estimates them
again: one pass in training mode, the mean of the batches' statistics, as torch's `update_bn`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from asjax import config, labels
from asjax.config import TRUST, AsjaxError, shown, trust_named, warn
from asjax.evaluation import averages, mean
from asjax.store import files, logits, model_dir
from asjax.store.scores import activation_of
from asjax.weights import hub

STATS = "batch_stats"
_FREE = ("seed", "log", "eval", "mesh", "init_from", "data.eval", "data.test", "data.workers",
         "data.threads", "data.cache", "data.max_bad", "data.decode_timeout_s")  # fmt: skip
_PATHS = ("path", "root", "csv", "events", "audio", "folder", "file", "labels_csv")
_MORE = """more examples:
  asjax soup runs/seed0 runs/seed1 --weights 2,1 --out models/soup
  asjax soup runs/seed* --greedy --data "esc10(splits=['fold5'])" --out models/soup
  asjax soup runs/seed* --statistics train.csv --out models/soup"""


def add_arguments(parser):
    parser.epilog = f"{parser.epilog}\n\n{_MORE}"
    parser.add_argument(
        "paths", nargs="+", metavar="MODEL", help="model folders, or workdirs of finished runs"
    )
    parser.add_argument("--out", required=True, help="folder for the model with the mean weights")
    parser.add_argument("--overwrite", action="store_true", help="replace a model folder in --out")
    parser.add_argument("--weights", help="one weight for each model, such as 1,2 (default: equal)")
    parser.add_argument(
        "--any-training",
        action="store_true",
        help="also models whose training differs in more than the seed, such as the learning rate",
    )
    parser.add_argument(
        "--statistics",
        metavar="DATA",
        help="estimate the statistics of batch norms on this data, such as the training data "
        "(default: the mean of those of the models)",
    )
    greedy = parser.add_argument_group("greedy soup")
    greedy.add_argument(
        "--greedy",
        action="store_true",
        help="add a model only if the score on --data rises; the best model is the first",
    )
    greedy.add_argument("--data", help="validation data of --greedy; for its forms see asjax eval")
    greedy.add_argument(
        "--metric",
        help="of --greedy: mean_ap, mean_auc, d_prime, accuracy, psds1 (default: psds1 of a "
        "detector on data with events, accuracy of one label per clip, else mean_ap)",
    )
    greedy.add_argument("--labels", help="label set of the data, if it is not the model's")
    parser.add_argument("--batch-size", type=int, help="clips per batch (default: the model's)")
    parser.add_argument("--trust", **TRUST)


def main(args) -> int:
    if args.greedy and not args.data:
        raise AsjaxError("--greedy needs --data, the validation data that chooses the models")
    if not args.greedy and (args.data or args.metric or args.labels):
        raise AsjaxError(
            "--data, --metric and --labels are of --greedy; --statistics DATA estimates the batch "
            "norms"
        )
    if args.greedy and args.weights is not None:
        raise AsjaxError("--greedy chooses the models, so it takes no --weights")
    if args.batch_size is not None and args.batch_size < 1:
        raise AsjaxError(f"--batch-size must be 1 or more, got {args.batch_size}")
    given = mean.numbers(args.weights)
    weights = None if given is None else mean.weights(given, len(args.paths))
    trust_named(args.trust)
    mean.say_twice(args.paths)
    args.paths = hub.local(args.paths)
    heads = [_head(path) for path in args.paths]
    _check_out(args.out, args.paths, args.overwrite)
    differ = _check(args.paths, heads, args.any_training)
    files.prove_writable(Path(args.out).absolute().parent, "the folder of --out")
    chosen, greedy = list(range(len(args.paths))), None
    if args.greedy:
        chosen, greedy = _greedy(args, heads)
    paths = [args.paths[k] for k in chosen]
    variables = _mean(paths, weights)
    has_norms = bool(variables.get(STATS))
    statistics = {"of": "mean of the models' statistics"} if has_norms else {"of": "none"}
    if args.statistics:
        variables, statistics = _estimated(args, variables, has_norms)
    used = [1.0] * len(paths) if weights is None else weights
    record = _record(args.paths, heads, chosen, used, statistics, greedy, differ)
    cfg, label_set, _ = heads[chosen[0]]
    model_dir.save_model(
        args.out, config=cfg, label_set=label_set, variables=variables, record=record
    )
    how = f" of {len(args.paths)}, chosen on {greedy['data']['name']}" if greedy else ""
    count = config.counted(len(paths), "model")
    print(f"soup         the mean weights of {count}{how}: {', '.join(paths)}")
    if differ:
        print(f"training     the models differ in {'; '.join(differ[:5])}")
    print(f"statistics   batch norms: {statistics['of']}")
    print(f"model        {args.out}\ntry it:      asjax eval --model {args.out}")
    return 0


# ----------------------------------------------------------------------------------- the models


def _head(path):
    """(config, label set, card) of a model."""
    if logits.is_folder(path):
        raise AsjaxError(f"{shown(path)} holds stored logits, which have no weights")
    cfg, label_set, _, card = model_dir.load_model(path)
    return config.to_plain(cfg), label_set, card


def _check_out(out: str, paths, overwrite: bool) -> None:
    """Raise AsjaxError if the model cannot go there, before anything is computed."""
    place = Path(out)
    if not out.strip() or (place.exists() and not place.is_dir()):
        raise AsjaxError(f"--out must be a folder, got {shown(out) or 'nothing'}; choose another")
    members = {Path(path, sub).resolve() for path in paths for sub in ("", "model")}
    if place.resolve() in members:
        raise AsjaxError(f"--out {shown(out)} is one of the models; choose another folder")
    if place.is_dir() and any(place.iterdir()):
        if not (place / "card.json").is_file():
            raise AsjaxError(f"--out {shown(out)} has other contents than a model; choose another")
        if not overwrite:
            raise AsjaxError(
                f"--out {shown(out)} is a model; add --overwrite to replace it, or choose another"
            )


def _check(paths, heads, any_training: bool) -> list[str]:
    """How the trainings differ. AsjaxError: the models cannot be averaged."""
    (first_cfg, first_labels, _), found = heads[0], []
    for path, (cfg, label_set, _) in zip(paths[1:], heads[1:], strict=True):
        labels.check_same(first_labels, label_set, shown(path), shown(paths[0]))
        if activation_of(cfg) != activation_of(first_cfg):
            raise AsjaxError(
                f"{shown(path)} has another objective than {shown(paths[0])}: one has one label "
                "per clip (softmax), the other several (sigmoid)"
            )
        if fatal := averages.architecture_differs(first_cfg, cfg):
            raise AsjaxError(
                f"{shown(path)} has another config than {shown(paths[0])}: {fatal[0]}; only models "
                "of one architecture and one input have a mean of weights"
            )
        changed = config.differences(*map(_trained, (first_cfg, cfg)))
        if changed and not any_training:
            raise AsjaxError(
                f"{shown(path)} was trained in another way than {shown(paths[0])}: {changed[0]}; "
                "--any-training takes such models too"
            )
        found += [line for line in changed if line not in found]
    starts = {str(cfg.get("init_from") or "") for cfg, *_ in heads}
    if len(set(map(str, paths))) > 1 and (starts == {""} or len(starts) > 1):
        warn(
            "the models did not start from one set of weights (init_from); the mean of such "
            "models is often useless, so evaluate it"
        )
    return found


def _trained(cfg) -> dict:
    """The fields of a config that say how a model was trained, without seed and paths."""
    flat = config.flatten(cfg)
    free = lambda key: any(key == f or key.startswith(f"{f}.") for f in _FREE)  # noqa: E731
    return {
        key: value
        for key, value in flat.items()
        if not free(key) and key.rpartition(".")[2] not in _PATHS
    }


def _mean(paths, weights=None) -> dict:
    parts = (model_dir.load_model(path)[2] for path in paths)
    return averages.average_weights(parts, weights, [shown(path) for path in paths])


def _record(paths, heads, chosen, weights, statistics, greedy, differ) -> dict:
    """The card of the soup: what its members share, and the members."""
    cards = [heads[k][2] for k in chosen]
    keys = ("hlp", "objective", "draw", "train_data", "labels", "parameters", "test_data")
    same = {key: cards[0][key] for key in keys if key in cards[0]}
    same = {k: v for k, v in same.items() if all(card.get(k) == v for card in cards)}
    members = [
        {
            "path": str(paths[k]),
            "sha256": heads[k][2]["sha256"]["card.json"],
            "weight": weight,
            "seed": heads[k][2].get("seed"),
            "step": heads[k][2].get("step"),
        }
        for k, weight in zip(chosen, weights, strict=True)
    ]
    soup = {"members": members, "statistics": statistics, "trained_differently": differ}
    return {**same, "soup": {**soup, **({"greedy": greedy} if greedy else {})}}


# -------------------------------------------------------------------------------------- greedy


def _greedy(args, heads):
    """The indices of the chosen models, the best first, and how they were chosen."""
    from tqdm import tqdm

    from asjax.evaluation import data_specs, scoring

    spec, _ = data_specs.data_spec(args.data)
    models = scoring.Models([args.paths[0]], batch_size=args.batch_size)
    about, tried = {}, []

    def score(paths) -> float:
        values, described = _values(models, spec, _mean(paths), args.labels)
        about.update(described)
        name = args.metric or _metric(models, values)
        if values.get(name) is None:
            raise config.unknown("--metric", name, values)
        about["metric"] = name
        return values[name]

    bar = tqdm(total=2 * len(args.paths) - 1, desc="soup", unit="model", disable=None)
    with bar:
        alone = []
        for path in args.paths:
            alone.append(score([path]))
            bar.update()
        if not any(value == value for value in alone):
            raise AsjaxError(f"--data {shown(args.data)}: {about['metric']} is not defined there")
        order = sorted(range(len(alone)), key=lambda k: -alone[k] if alone[k] == alone[k] else 9e9)
        chosen, best = order[:1], alone[order[0]]
        for k in order[1:]:
            value = score([args.paths[i] for i in [*chosen, k]])
            tried.append({"path": str(args.paths[k]), "value": value, "added": value > best})
            if value > best:
                chosen, best = [*chosen, k], value
            bar.update()
    name = about["metric"]
    for path, value in zip(args.paths, alone, strict=True):
        print(f"alone        {name} {value:.4f}  {path}")
    for one in tried:
        what = "added" if one["added"] else "left out"
        print(f"{what:<12} {name} {one['value']:.4f}  {one['path']}")
    print(f"chosen       {name} {best:.4f}: of the clips that chose it, so it is too high")
    data = {key: about[key] for key in ("name", "clips", "hash")}
    alone = dict(zip(map(str, args.paths), alone, strict=True))
    return chosen, {"data": data, "metric": name, "value": best, "alone": alone, "tried": tried}


def _metric(models, values) -> str:
    if models.found is not None and "psds1" in values:
        return "psds1"
    return "accuracy" if models.activation == "softmax" and "accuracy" in values else "mean_ap"


def _values(models, spec, variables, data_labels):
    """The metrics of weights on data, and what the data is."""
    from asjax.evaluation import detections, evaluate
    from asjax.store.scores import load_scores

    models.take(variables)
    with tempfile.TemporaryDirectory() as folder:
        about = models.score(spec, folder, data_labels=data_labels)
        found = load_scores(Path(folder, "scores.npz"))
    values = evaluate.trace(found["scores"], found["targets"], found["activation"])
    values.pop("loss")
    if models.found is not None:
        values = {**values, "psds1": detections.trace(models.found)["psds1"]}
    return values, about


# ---------------------------------------------------------------------------------- statistics


def _estimated(args, variables, has_norms: bool):
    """The variables with statistics of batch norms from --statistics, and a line about it."""
    from asjax import build
    from asjax.evaluation import data_specs, scoring

    if not has_norms:
        raise AsjaxError("--statistics: the model has no batch norm; leave it out")
    spec, _ = data_specs.data_spec(args.statistics)
    models = scoring.Models([args.paths[0]], batch_size=args.batch_size)
    theirs = data_specs.fit(spec, None, models.label_set)[0]
    if spec["name"] == "annotated":
        spec = {"piece_s": float(models.cfg["data"]["clip_s"]), **spec}
    source = build.source(spec, theirs)
    member = models.take(variables)

    def run(forward, placed, stream, classes):
        with stream.iterate() as batches:
            return estimate(member.model, member.frontend, variables, batches, stream)

    made, clips = models.run(member, run, ("logits",), source, len(theirs))
    what = f"estimated on {clips} clips of {source.name}"
    about = {"name": source.name, "clips": clips, "hash": source.hash}
    return {**variables, STATS: made}, {"of": what, "data": about}


def estimate(model, frontend, variables, batches, stream=None):
    """(statistics of the batch norms, number of clips): the mean of those of the batches.

    The batches pass in training mode, so with dropout, as in torch's `update_bn`. Each batch counts
    by its number of clips; padding and clips that cannot be decoded are left out.

    Raises:
      AsjaxError: a norm whose momentum is not known, or no batch of two clips.
    """
    import jax
    import numpy as np
    from flax import linen as nn
    from flax.traverse_util import flatten_dict, unflatten_dict
    from tqdm import tqdm

    from asjax.frontends import to_float

    keep, others = {}, {k: v for k, v in variables.items() if k != STATS}
    others = jax.device_put(others)
    zeros = jax.tree.map(np.zeros_like, variables[STATS])

    def note(call, args, kwargs, context):
        if hasattr(context.module, "momentum"):
            keep["/".join(context.module.path)] = context.module.momentum
        return call(*args, **kwargs)

    @jax.jit
    def run(others, wave, key):  # the weights are an argument, else the program holds a copy
        return model.apply(
            {**others, STATS: zeros}, frontend(to_float(wave)), train=True,
            mutable=list(set(variables) - {"params"}), rngs={"dropout": key},
        )[1][STATS]  # fmt: skip

    total, clips, key = None, 0, jax.random.key(0)
    steps = None if stream is None else stream.steps_per_epoch
    with nn.intercept_methods(note):
        for number, batch in enumerate(tqdm(batches, "statistics", steps, disable=None)):
            wave = batch["wave"][batch["mask"] > 0]
            if len(wave) < 2:
                continue
            found = flatten_dict(run(others, wave, jax.random.fold_in(key, number)), sep="/")
            found = {k: len(wave) * np.asarray(v, np.float64) for k, v in found.items()}
            total = found if total is None else {k: total[k] + found[k] for k in total}
            clips += len(wave)
    if total is None:
        raise AsjaxError("--statistics needs a batch of two or more clips that can be decoded")
    out = {}
    for name, value in total.items():
        path = name.rpartition("/")[0]
        if path not in keep:
            raise AsjaxError(f"--statistics: {name} is of a norm whose momentum is not known")
        out[name] = (value / clips / (1 - keep[path])).astype(np.float32)
    return unflatten_dict(out, sep="/"), clips

"""`asjax probe`: a linear model on fixed features of your clips, as a baseline in seconds.

The features are the embeddings of a stored model. Without a model they are log-mel statistics: the
mean and the deviation over time of each of 64 bins, without frames of digital silence.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from scipy.special import logsumexp

from asjax import build, metrics
from asjax.config import AsjaxError, counted, to_json
from asjax.evaluation import infer, linear
from asjax.store import files, model_dir
from asjax.weights import hub

LOGMEL = {"name": "panns_logmel", "sample_rate": 16_000, "n_mels": 64, "n_fft": 512, "hop": 160}
MOST_CLIPS = 5000  # of a baseline that `asjax train` computes by itself
BATCH = 32


def statistics():
    """The linen module of the features without a model: [B, T, F] -> embedding [B, 2 F]."""
    import flax.linen as nn
    import jax.numpy as jnp

    class Statistics(nn.Module):
        @nn.compact
        def __call__(self, feats, *, train: bool = False):
            # Zeros give the smallest value of all bins: padding, and silence in the recording.
            heard = (feats.max(2, keepdims=True) > -99.0).astype(jnp.float32)  # dB
            count = jnp.maximum(heard.sum(1, keepdims=True), 1.0)
            mean = (feats * heard).sum(1, keepdims=True) / count
            deviation = jnp.sqrt((jnp.square(feats - mean) * heard).sum(1) / count[:, 0])
            return {"embedding": jnp.concatenate([mean[:, 0], deviation], 1)}

    return Statistics()


class Features:
    """Clips of a source -> (ids, features [N, D], targets [N, C], clips left out).

    Args:
      model: a model folder, or None for log-mel statistics.
      clip_s: seconds of each clip; with a model its own length is the default.
    """

    def __init__(self, model=None, clip_s: float | None = None):
        from asjax import sharding

        self.mesh = sharding.make_mesh(batch_sizes=(BATCH,), local=True)
        if model is None:
            cfg = {"frontend": LOGMEL, "data": {"sample_rate": LOGMEL["sample_rate"]}}
            self.name, module, variables = "log-mel statistics", statistics(), {}
        else:
            cfg, label_set, variables, _ = model_dir.load_model(model)
            module = build.make("model", {**cfg["model"], "num_classes": len(label_set)})
            self.name = f"the embeddings of {cfg['model'].get('variant') or cfg['model']['name']}"
        self.rate = cfg["data"]["sample_rate"]
        self.clip_s = clip_s or cfg["data"]["clip_s"]
        frontend = build.make("frontend", cfg["frontend"])
        self.forward = infer.Forward(module, frontend, self.mesh, ("embedding",))
        self.variables = self.forward.put(variables)

    def __call__(self, source, num_classes: int, **data):
        stream = build.pipeline(
            source,
            batch_size=BATCH,
            train=False,
            num_classes=num_classes,
            sample_rate=self.rate,
            clip_s=self.clip_s,
            **{**data, "cache": False},
        )
        ids, rows, targets, bad = [], [], [], []
        with stream, stream.iterate() as batches:
            for out, rest in self.forward.over(self.variables, batches):
                real = rest["mask"] > 0
                ids += [clip for clip, keep in zip(rest["id"], real, strict=True) if keep]
                rows.append(out["embedding"][real])
                targets.append(rest["target"][real] > 0.5)
                bad += rest["bad"]
        targets = np.concatenate(targets).astype(np.uint8)
        return ids, np.concatenate(rows).reshape(len(ids), -1), targets, bad


def accuracy(logits, targets) -> float:
    """Share of clips whose highest score is at their label."""
    return float((np.argmax(logits, 1) == np.argmax(targets, 1)).mean())


def mean_ap(logits, targets) -> float:
    """Mean over the classes of average precision."""
    return float(metrics.tagging(scores=logits, targets=targets, only=("mean_ap",))["mean_ap"])


def fitted(features: Features, train, final, num_classes: int, **data) -> dict:
    """Fit on a training source, score another source.

    The penalty is chosen by cross-validation within the training source. Its groups stay together.

    Returns: dict with ids, scores [N, C], targets, left_out, single (one label per clip in both
      sources), penalty, name ("accuracy" or "mean_ap") and value.

    Raises:
      AsjaxError: no clip can be read, or features that are not finite.
    """
    ids, x, y, bad = features(train, num_classes, **data)
    final_ids, z, targets, left_out = features(final, num_classes, **data)
    if not len(x) or not len(z):
        raise AsjaxError("the probe needs clips to fit and to score, and none could be read")
    single = bool((y.sum(1) == 1).all() and (targets.sum(1) == 1).all())
    group = dict(zip(train.ids, train.group or train.ids, strict=True))
    score = accuracy if single else mean_ap
    model, penalty, _ = linear.fit_best(
        x, y, single_label=single, score=score, groups=[group[clip] for clip in ids]
    )
    scores = model(z)
    if single:  # log-probabilities
        scores = scores - logsumexp(scores, axis=1, keepdims=True)
    return {
        "ids": final_ids,
        "scores": scores,
        "targets": targets,
        "left_out": sorted({tuple(map(str, item)) for item in [*bad, *left_out]}),
        "single": single,
        "penalty": penalty,
        "name": "accuracy" if single else "mean_ap",
        "value": score(scores, targets),
    }


def described(features_name: str, result: dict) -> dict:
    """The baseline for `record["baseline"]` of a report: name, accuracy or mean_ap, and text."""
    word = {"accuracy": "accuracy", "mean_ap": "mean AP"}[result["name"]]
    text = f"a linear model on {features_name} reaches {result['value']:.3f} {word}"
    return {"name": features_name, result["name"]: result["value"], "text": text}


def baseline(cfg, label_set, train, final) -> dict:
    """`{"baseline": ...}` for the record of a run, or {} if the set is large or unusable."""
    if len(train) + len(final) > MOST_CLIPS:
        return {}
    data = {k: v for k, v in build.data_fields(cfg).items() if k in ("threads", "decode_timeout_s")}
    data["max_bad"] = 1.0  # the run itself has judged the clips
    try:
        features = Features(clip_s=cfg.data.clip_s)
        result = fitted(features, train, final, len(label_set), **data)
    except AsjaxError as error:
        print(f"no baseline: {error}", flush=True)
        return {}
    return {"baseline": described(features.name, result)}


# ------------------------------------------------------------------------------------ the verb


def add_arguments(parser):
    from asjax.own import options

    options.add_data(parser, required=True)
    parser.add_argument(
        "--model", help="model folder or workdir: use its embeddings (default: log-mel statistics)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("probe"), help="folder for the results (default probe)"
    )
    parser.add_argument("--clip-s", type=float, help="seconds of a clip (default: as in training)")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples for the interval")
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples")


def main(args) -> int:
    import time

    from asjax import devices
    from asjax.data import content, pipeline
    from asjax.evaluation import evaluate
    from asjax.own import options
    from asjax.store.scores import save_scores

    if args.bootstrap < 0 or args.bootstrap == 1:
        raise AsjaxError(f"--bootstrap must be 0 or at least 2, got {args.bootstrap}")
    if args.clip_s is not None and not 0 < args.clip_s <= 3600:
        raise AsjaxError(f"--clip-s must be a number of seconds above 0, got {args.clip_s}")
    begun = time.monotonic()
    devices.setup()
    own = options.read(args)
    label_set = own.label_set
    for line in own.lines:
        print(line)
    files.prove_writable(args.out, "--out")
    source = partial(build.source, label_set=label_set)
    train, final = source(own.specs["train"]), source(own.specs.get("test", own.specs["eval"]))
    pipeline.say_untrained(label_set, train, final)
    args.model = args.model and hub.local([args.model])[0]
    features = Features(args.model, args.clip_s or (None if args.model else own.clip_s))
    result = fitted(features, train, final, len(label_set))
    extra = {"left_out": result["left_out"], "penalty": result["penalty"]}
    kept = {key: result[key] for key in ("ids", "scores", "targets")}
    kept["activation"] = "softmax" if result["single"] else "sigmoid"
    kept["content"] = content.of_source(final, kept["ids"])
    save_scores(args.out / "scores.npz", label_set=label_set, extra=extra, **kept)
    known = described(features.name, result)
    low, high = interval(result, n=args.bootstrap, seed=args.seed)
    sets = {"train_data": train, "eval_data": final}
    summary = evaluate.evaluate_scores(
        args.out / "scores.npz",
        args.out,
        label_set=label_set,
        closure=None,
        n_bootstrap=args.bootstrap,
        seed=args.seed,
        record={
            "model": {"name": "linear", "variant": features.name},
            "baseline": known,
            **{k: {"name": s.name, "clips": len(s), "hash": s.hash} for k, s in sets.items()},
        },
    )
    files.write_atomic(args.out / "baseline.json", to_json(known))
    if not result["single"]:
        print(evaluate.table(summary))
    where = "test" if "test" in own.specs else "eval"
    between = f" [{low:.3f}, {high:.3f}]" if args.bootstrap else ""
    word = result["name"].replace("mean_ap", "mean AP")
    print(
        f"{word} {result['value']:.3f}{between} on {counted(len(result['ids']), 'clip')} of {where}"
    )
    print(f"{known['text']} (penalty {result['penalty']:g}, {time.monotonic() - begun:.1f} s)")
    if result["left_out"]:
        print(f"left out     {counted(len(result['left_out']), 'clip')} that could not be read")
    print(f"written to {args.out}: scores.npz metrics.json report.html baseline.json")
    return 0


def interval(result: dict, n: int, seed: int, level: float = 0.95) -> tuple[float, float]:
    """The bootstrap interval of the value over clips; NaN without resamples."""
    if not n:
        return float("nan"), float("nan")
    scores, targets = result["scores"], result["targets"]
    draw = metrics.bootstrap_single_label if result["single"] else metrics.bootstrap
    return draw(scores=scores, targets=targets, n=n, level=level, seed=seed)[result["name"]]

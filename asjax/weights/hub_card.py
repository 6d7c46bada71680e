"""README.md of a model on the Hub: the model card, made from config.json and card.json.

The head is YAML that the Hub reads: licence, tags and `model-index`, which has every number of
card.json's scores with its interval. The text has the same numbers as tables, the number of clips
and the hash of the evaluation data.
"""

from __future__ import annotations

import re

from asjax.config import counted, printable, split_spec
from asjax.store import model_dir
from asjax.weights import hub_errors, hub_licence, published
from asjax.weights.hub_licence import Licence

_HASH = "model hash: `{}`"
_COUNTS = {"n_clips", "n_classes", "n_events", "k", "hours", "median_s"}  # of an evaluation
# key of a score -> (the Hub's word for the metric, its name)
_METRICS = {
    "mean_ap": ("mean_average_precision", "mAP"),
    "mean_auc": ("roc_auc", "mean AUC"),
    "d_prime": ("d_prime", "d'"),
    "accuracy": ("accuracy", "accuracy"),
    "f1_macro": ("f1", "macro F1"),
    "f1_weighted": ("f1", "weighted F1"),
    "mean_recall": ("recall", "mean recall"),
    "top_k": ("top_k_accuracy", "top-k accuracy"),
    "psds1": ("psds1", "PSDS1"),
    "psds2": ("psds2", "PSDS2"),
}


def text(config: dict, label_set, card: dict, licence: Licence | None, name: str) -> str:
    """The model card. `name`: of the model, org/name or a folder's name.

    Raises:
      AsjaxError: huggingface_hub is not installed.
    """
    library = hub_errors.library("to write a model card for the Hub")
    data, results = _data(card), []
    for view, numbers in views(card).items():
        for key, value in scores(numbers).items():
            kind, title = _METRICS.get(key, (key, key.replace("_", " ")))
            ci = _interval(numbers, key)
            results.append(
                library.EvalResult(
                    task_type="audio-classification",
                    task_name=_task(config),
                    dataset_type=data.get("name") or "unknown",
                    dataset_name=data.get("name") or "unknown",
                    dataset_config=view,
                    dataset_revision=data.get("hash"),
                    dataset_args={k: numbers[k] for k in sorted(_COUNTS) if k in numbers} or None,
                    metric_type=kind,
                    metric_name=title,
                    metric_config=key,
                    metric_args={"interval_95": ci} if ci else None,
                    metric_value=value,
                )
            )
    head = library.ModelCardData(
        **(licence.fields if licence else {}),
        library_name="asjax",
        pipeline_tag="audio-classification",
        datasets=_datasets(card),
        tags=["audio", "audio-tagging", "jax", "flax", "asjax", *_detects(config)],
        model_name=name.rpartition("/")[2],
        eval_results=results or None,
    ).to_yaml()
    parts = [f"---\n{head}\n---", *_body(config, label_set, card, licence, name)]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def hash_in(readme: str) -> str | None:
    """The hash of the model that a README of ours is about, or None."""
    found = re.search(_HASH.format("([0-9a-f]{64})"), readme)
    return found[1] if found else None


def views(card: dict) -> dict[str, dict]:
    """Name of a view of the evaluation -> its numbers: `scores` and `events` of card.json."""
    found = card.get("scores") or {}
    flat = {key: value for key, value in found.items() if not isinstance(value, dict)}
    found = {key: value for key, value in found.items() if isinstance(value, dict) and key != "ci"}
    if isinstance(card.get("events"), dict):
        found["events"] = card["events"]
    found = dict(sorted(found.items(), key=lambda pair: pair[0] != "labels"))  # the main view
    return ({"all": flat} if scores(flat) else {}) | found


def scores(numbers: dict) -> dict[str, float]:
    """The scores among the numbers of a view: no counts, and nothing that is undefined."""
    order = {key: i for i, key in enumerate(_METRICS)}
    return {
        key: value
        for key, value in sorted(numbers.items(), key=lambda pair: order.get(pair[0], 99))
        if key not in _COUNTS and isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _interval(numbers: dict, key: str) -> list[float] | None:
    ci = numbers.get("ci")
    found = ci.get(key) if isinstance(ci, dict) else None
    fits = isinstance(found, list) and len(found) == 2
    return found if fits and None not in found else None


def _data(card: dict) -> dict:
    """The data of the scores: name, clips, hash."""
    return card.get(f"{card.get('evaluated_on') or 'eval'}_data") or card.get("eval_data") or {}


def _task(config: dict) -> str:
    return "sound event detection" if _detects(config) else "audio tagging"


def _detects(config: dict) -> list[str]:
    objective = config.get("objective")
    detects = objective is not None and split_spec(objective)[0] == "detection"
    detects = detects or split_spec(config["model"])[1].get("frames")
    return ["sound-event-detection"] if detects else []


def _datasets(card: dict) -> list[str] | None:
    """The data of the training; a published checkpoint of AudioSet was trained on AudioSet."""
    data, row = card.get("train_data"), _row(card)
    if isinstance(data, dict) and data.get("name"):
        return [data["name"]]
    return ["AudioSet"] if row is not None and row.data.startswith("AudioSet") else None


def _row(card: dict):
    """The row of the published checkpoint that was converted, or None."""
    ported = card.get("ported_from")
    return published.find(ported.get("checkpoint") or "") if isinstance(ported, dict) else None


# ------------------------------------------------------------------------------------- the text


def _body(config, label_set, card, licence, name):
    family, fields = split_spec(config["model"])
    variant, data = fields.get("variant") or family, config["data"]
    size = card.get("parameters")
    size = f", {size:,} parameters" if isinstance(size, int) else ""
    yield f"# {name.rpartition('/')[2]}"
    yield (
        f"A model for {_task(config)} in JAX: `{variant}`{size}, {len(label_set):,} classes of "
        f"{label_set.name}. It hears mono audio at {data['sample_rate']:,} Hz in windows of "
        f"{data['clip_s']:g} s. Other rates, channels and lengths are converted."
    )
    yield f"## Use\n\n```bash\npip install 'asjax[hub]'\nasjax tag dog.wav --model={name}\n```"
    yield (
        f'```python\nimport asjax\n\ntagger = asjax.from_pretrained("{name}")\n'
        'print(tagger("dog.wav").top(5))\n```'
    )
    yield "\n".join(_scores(card))
    yield "\n".join(_training(config, card))
    yield "\n".join(_licence(card, licence))
    yield (
        "## Files\n\n`asjax` checks every file against the hashes in `card.json` before use. This "
        f"README and `preprocessor_config.json` have no hash.\n\n- {_HASH.format(_own(card))}\n"
        f"- asjax {card.get('asjax', '')}\n- label hash: `{card.get('label_hash')}`"
    )


def _own(card) -> str:
    return card["sha256"]["card.json"]


def _scores(card):
    data, found = _data(card), views(card)
    yield "## Scores\n"
    row = _row(card)
    if row is not None:
        yield f"Published: {row.claim}. asjax did not measure this score.\n"
    if not found:
        yield "card.json has no scores of asjax."
        return
    role = "the clips that also chose the step" if card.get("evaluated_on") == "eval" else ""
    yield (
        f"Measured by asjax on {_cell(data.get('name', 'data that the card does not name'))}"
        + (f": {data['clips']:,} clips" if isinstance(data.get("clips"), int) else "")
        + (f" ({role})" if role else "")
        + (f", manifest hash `{data['hash']}`" if data.get("hash") else "")
        + "."
    )
    if any(_interval(numbers, key) for numbers in found.values() for key in numbers):
        yield "In brackets: 95 % bootstrap intervals over the clips."
    if tuned := (card.get("events") or {}).get("tuned_on"):
        yield f"Thresholds and windows of events were tuned on: {_cell(tuned)}."
    yield ""
    yield "| view | clips | classes | metric | value |\n|---|---|---|---|---|"
    for view, numbers in found.items():
        for key, value in scores(numbers).items():
            title = _METRICS.get(key, ("", key.replace("_", " ")))[1]
            if key == "top_k" and "k" in numbers:
                title = f"top-{numbers['k']} accuracy"
            ci = _interval(numbers, key)
            within = f" [{ci[0]:.4g}, {ci[1]:.4g}]" if ci else ""
            counts = " | ".join(str(numbers.get(k, "")) for k in ("n_clips", "n_classes"))
            yield f"| {_cell(view)} | {counts} | {_cell(title)} | {value:.4g}{within} |"


def _training(config, card):
    yield "## Training\n"
    ported, start = card.get("ported_from"), config.get("init_from")
    if isinstance(ported, dict):
        yield (
            f"Not trained by asjax: converted from `{_cell(ported.get('file'))}` "
            f"(SHA-256 `{_cell(ported.get('sha256'))}`). Entries of that file without a use here "
            f"are in `{model_dir.EXTRA}`."
        )
    data = card.get("train_data")
    if isinstance(data, dict):
        yield (
            f"- data: {_cell(data.get('name'))}, {data.get('clips', 0):,} clips, manifest hash "
            f"`{data.get('hash')}`"
        )
    facts = {"hlp": "HLP on labels", "draw": "draw", "seed": "seed", "step": "step"}
    yield from (f"- {name}: {_cell(card[key])}" for key, name in facts.items() if key in card)
    if isinstance(card.get("soup"), dict):
        count = len(card["soup"].get("members") or ())
        yield f"- a soup: the mean of the weights of {counted(count, 'model')}"
    if start:
        yield f"- started from the weights of `{_cell(start)}`{_start_licence(str(start))}"


def _start_licence(start: str) -> str:
    """The licence of the weights that a training started from, if it is known."""
    row, theirs = published.find(start.rpartition(":")[2]), None
    if row is not None:
        theirs = row.licence
    elif model_dir.is_model(start):
        found = hub_licence.stated(model_dir.card_of(start))
        theirs = found and found.text
    return f", licence of those weights: {theirs}" if theirs else ""


def _licence(card, licence):
    yield "## Licence\n"
    if licence is None:
        yield "No licence is stated for these weights."
        return
    yield f"{licence.text}, {licence.by}. The code of asjax is Apache-2.0."


def _cell(value) -> str:
    """A value for a table or a list of the text: one line, no markup that ends a cell."""
    return printable(str(value)).replace("|", "/").replace("`", "'")[:200]

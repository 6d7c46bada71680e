"""report.html: a self-contained page about one evaluation, with tables, pictures and sounds.

Its size is bounded: lists and pictures have a largest number of entries, sounds a largest number of
bytes. With 527 classes it is below 5 MB.
"""

from __future__ import annotations

import math
from html import escape

from asjax import __version__
from asjax.config import flatten, quoted, shown
from asjax.evaluation import class_page, clip_page, decide, hierarchy, plots
from asjax.pages import figure, html_table, number, page, wide

TILES = (  # key, title, digits
    ("accuracy", "accuracy", 3),
    ("f1_macro", "macro F1", 3),
    ("mean_ap", "mean AP", 3),
    ("mean_auc", "mean AUC", 3),
    ("d_prime", "d′", 2),
)
MOST = 1000  # entries of a list
TITLES = {**{key: title for key, title, _ in TILES}, "psds1": "PSDS1"}
COLUMNS = (
    ("mean_ap", "mAP", 3),
    ("mean_auc", "AUC", 3),
    ("d_prime", "d′", 2),
    ("accuracy", "accuracy", 3),
    ("f1_macro", "macro F1", 3),
    ("f1_weighted", "weighted F1", 3),
    ("top_k", "top-k", 3),
    ("mean_of_d_prime", "mean of d′", 2),
    ("micro_ap", "micro AP", 3),
    ("lrap", "LRAP", 3),
)


def render(
    *,
    summary,
    results,
    found,
    closure=None,
    history=None,
    train_counts=None,
    decisions=None,
    clips=None,
    listen=None,
) -> str:
    """The page as a string.

    The page of a run that was trained without HLP (`record["hlp"]` is False) has no views and no
    words about HLP. Those views are in metrics.json all the same.

    Args:
      summary: the content of metrics.json. Its record may have `run` (the title), `model`, `hlp`,
        `train_data`, `test_data` or else `eval_data` (the evaluated clips), `baseline` (name,
        accuracy or mean_ap, text), `chosen` (step, rule, metric, value, last_step, last_value) and
        `evaluated_on` ("eval", "test").
      results: metrics by view, with the arrays per class.
      found: the views. closure: bool [C, C] or None. history: rows of train.jsonl or None.
      train_counts: positives per class in the training set [C], or None.
      decisions: of `decide.decisions`; default: computed here.
      clips: ids [N] for the lists of wrong clips. listen: id -> (sound, mime type) or None, where
        the sound is the bytes of a file, or a path to link to.
    """
    record = summary["record"]
    if record.get("hlp") is False:
        kept = lambda views: {k: v for k, v in views.items() if not k.startswith("hlp_")}  # noqa: E731
        closure, results, found = None, kept(results), kept(found)
        summary = {**summary, "views": kept(summary["views"])}
    decisions = decisions or decide.decisions(found, record)
    names = found["labels"].names
    prior = class_page.against_prior(results["labels"], names, train_counts, record)
    sections = [
        ("Results", _results(summary)),
        *class_page.average_precision(results, found, train_counts, record),
        ("Training", training(history, record)),
        *clip_page.confusion(results, found),
        ("Wrong clips", clip_page.mistakes(decisions, found, clips, listen)),
        ("Thresholds", class_page.thresholds(decisions, found)),
        ("Calibration", class_page.calibration(decisions)),
        *(prior if results["labels"]["n_classes"] else ()),
        ("Parent and child classes", hierarchy.section(found, closure)),
        ("Every class", class_page.every_class(results, found)),
        ("What was evaluated", about(summary, "hlp_labels" in found) + _bad(summary)),
    ]
    body = "\n".join(f"<h2>{escape(title)}</h2>\n{html}" for title, html in sections if html)
    head = f"<h1>{escape(title(record))}</h1>\n{_summary(summary, 'hlp_labels' in found)}"
    return page(f"{title(record)}: asjax evaluation", f"{head}\n{body}")


# ------------------------------------------------------------------------------ the main numbers


def title(record) -> str:
    run = record.get("run")
    if isinstance(run, str) and run:
        return shown(run, 100)
    return shown(data_name(record, "test_data", "eval_data"), 100) or "evaluation"


def data_name(record, *keys) -> str:
    """The name of the first of these data sets that the record has."""
    for data in map(record.get, keys):
        if isinstance(data, dict) and isinstance(data.get("name"), str):
            return data["name"]
    return ""


def _summary(summary, with_hlp: bool) -> str:
    """What the run is, its main numbers with intervals, the baseline, and how it was chosen."""
    record, views = summary["record"], summary["views"]
    first = next(iter(views.values()))
    tiles = [(key, title, digits, first) for key, title, digits in TILES if key in first]
    if "hlp_labels_scores" in views:
        tiles.insert(1, ("mean_ap", "mean AP with HLP", 3, views["hlp_labels_scores"]))
    boxes = "".join(_tile(*tile) for tile in tiles)
    notes = [_baseline(record), chosen(record)]
    text = "".join(f"<p>{escape(note)}</p>" for note in notes if note)
    return f'<p>{escape(_what(summary, with_hlp))}</p>\n<dl class="tiles">{boxes}</dl>\n{text}'


def _tile(key, title, digits, view) -> str:
    ends = view["ci"].get(key, (math.nan, math.nan))
    small = f"<small>{_range(ends, digits)}</small>" if not math.isnan(ends[0]) else ""
    return f"<div><dt>{title}</dt><dd>{number(view[key], digits)}{small}</dd></div>"


def _range(ends, digits) -> str:
    return f"{number(ends[0], digits)} to {number(ends[1], digits)}"


def _what(summary, with_hlp: bool) -> str:
    """`cnn mini trained on esc10, evaluated on 80 clips of esc10 with 527 classes ...`"""
    record, classes = summary["record"], summary["label_set"]
    n_clips = next(iter(summary["views"].values()))["n_clips"]
    left = len(summary["left_out_clips"])
    data = data_name(record, "test_data", "eval_data")
    text = f"{model_name(record, with_hlp)} evaluated on {n_clips:,} clips"
    text += f" of {shown(data)}" if data else ""
    text += f" with {classes['classes']} classes ({shown(classes['name'])})."
    if left:
        clips = "1 more clip" if left == 1 else f"{left:,} more clips"
        text += f" {clips} could not be read; the end of the page says why."
    draws = summary["bootstrap"]
    if draws["n"]:
        text += f" Ranges are {draws['level']:.0%} intervals."
    return text


def model_name(record, with_hlp: bool = False) -> str:
    """`cnn mini trained on esc10,`"""
    model = record.get("model")
    if isinstance(model, dict):
        name, variant = (str(model.get(key) or "") for key in ("name", "variant"))
        model = variant if variant.startswith(name) else f"{name} {variant}".strip()
    text = shown(model) if isinstance(model, str) and model else "Model"
    if trained := data_name(record, "train_data"):
        hlp = {True: " with HLP", False: " without HLP"}.get(record.get("hlp"), "")
        text += f" trained on {shown(trained)}{hlp if with_hlp else ''},"
    return text


def _baseline(record) -> str:
    found = baseline(record)
    if not found:
        return ""
    key, value, text = found
    title = TITLES[key]
    if " reaches " in text:  # the text of `asjax probe` has the number
        return f"For comparison: {text}."
    return f"For comparison: {text} reaches {title} {number(value)}."


def baseline(record):
    """(key, value, text) of the record's baseline, such as ("accuracy", 0.7, "a linear model")."""
    found = record.get("baseline")
    if not isinstance(found, dict):
        return None
    text = found.get("text") or found.get("name") or "a baseline"
    for key in ("accuracy", "mean_ap"):
        if _is_number(found.get(key)):
            return key, float(found[key]), shown(text)
    return None


def _is_number(value) -> bool:
    """A finite number of usual size; a card from elsewhere may hold anything."""
    return type(value) in (int, float) and -1e15 < value < 1e15


def _is_step(value) -> bool:
    return type(value) is int and 0 <= value < 10**15


def chosen(record) -> str:
    """How the step of the weights was chosen, and whether on the clips that are reported here."""
    found = record.get("chosen")
    if not isinstance(found, dict) or not _is_step(found.get("step")):
        return ""
    step, rule = found["step"], shown(found.get("rule", ""))
    if rule == "last":
        return f"The weights are those of the last step, {step:,}."
    metric = str(found.get("metric", "the metric"))
    metric = TITLES.get(metric, shown(metric))
    why = f"because it has the best {metric}"
    if rule != "best":
        why = f"chosen by the rule {rule} on {metric}"
    wanted = found.get("wanted_step", step)
    if _is_step(wanted) and wanted != step:
        why = f"because step {wanted:,}, which the rule {rule} chose by {metric}, was not kept"
    text = f"The weights are those of step {step:,}, {why}"
    if _is_number(found.get("value")):
        text += f" ({found['value']:.4g}"
        if _is_number(found.get("last_value")) and _is_step(found.get("last_step")):
            text += f"; the last step, {found['last_step']:,}, has {found['last_value']:.4g}"
        text += ")"
    where = {
        "eval": " The step was chosen on the same clips that are reported here, because there is "
        "no test set (data.test), so the numbers are a little too good.",
        "test": " The clips of this report had no part in the choice.",
    }
    return f"{text}.{where.get(str(record.get('evaluated_on')), '')}"


def _results(summary) -> str:
    views = summary["views"].values()
    columns = [column for column in COLUMNS if any(column[0] in view for view in views)]
    rows, left = [], []
    for view in views:
        cells = [shown(view["title"])]
        for key, _, digits in columns:
            ends = view["ci"].get(key, (math.nan, math.nan))
            small = f"\n{_range(ends, digits)}" if not math.isnan(ends[0]) else ""
            cells.append(number(view.get(key), digits) + small)
        rows.append([*cells, str(view["n_classes"])])
        if view["left_out"]:
            names = ", ".join(escape(shown(n)) for n in view["left_out"][:MOST])
            more = len(view["left_out"]) - MOST
            names += f" and {more:,} more" if more > 0 else ""
            left.append(
                f"<details><summary>{escape(view['title'])}: {len(view['left_out'])} classes "
                f"without a positive clip are left out</summary><p class=note>{names}</p></details>"
            )
    heads = ["view", *(title for _, title, _ in columns), "classes"]
    caption = "Metrics of each view of the labels and scores"
    if len(rows) == 1:  # a row for each metric fits on a narrow screen
        rows, heads = list(zip(heads, rows[0], strict=True))[1:], ["metric", "value"]
        caption = "All metrics"
    table = html_table(heads, rows, caption=caption)
    return f'{table}\n<p class="note">{_meaning(summary)}</p>{"".join(left)}'


def _meaning(summary) -> str:
    views, draws = summary["views"], summary["bootstrap"]
    text = ""
    if draws["n"]:
        text = (
            f"Small figures: {draws['level']:.0%} intervals from {draws['n']:,} bootstrap "
            f"resamples of the clips (seed {draws['seed']}; the same resamples in every row), "
            "centred on the estimate. "
        )
    text += (
        "mAP: mean over classes of average precision, not interpolated. d′ = √2 Φ⁻¹ of the mean "
        "AUC, as in PANNs. The mean of per-class d′ is another convention. It is larger, so the "
        "two cannot be compared."
    )
    ks = {view["k"] for view in views.values() if isinstance(view.get("k"), int)}
    if ks:
        of = " or ".join(map(str, sorted(ks)))
        text += f" Top-k: the label is among the {of} highest scores."
    if "hlp_labels" in views:
        text += (
            " HLP on labels adds all ancestors of a label. HLP on scores raises every class to the "
            "score of its best-scoring descendant."
        )
    return text


# ------------------------------------------------------------------------------ training, details


def training(history, record) -> str:
    found = record.get("chosen")
    step = found.get("step") if isinstance(found, dict) else record.get("step")
    step = step if _is_step(step) else None
    reference = baseline(record)
    if reference:
        reference = (f"eval/{reference[0]}", *reference[1:])
    picture = plots.training_curves(history or [], step, reference)
    if picture is None:
        return ""
    caption = (
        "As logged during training. The training loss is that of single batches, with "
        "augmentation. The evaluation values are those of the evaluation set, labels as they are."
    )
    if step is not None:
        caption += " The dotted line marks the step of the weights that are evaluated here."
    if reference:
        caption += f" Dashed: {escape(reference[2])}."
    return figure(picture, "training curves", caption)


def about(summary, with_hlp: bool = False) -> str:
    """The record as a folded table. summary: has label_set and record."""
    rows = {f"labels {k}": v for k, v in summary["label_set"].items()}
    record = {k: v for k, v in summary["record"].items() if k != "labels"}  # already in rows
    if not with_hlp:
        record.pop("hlp", None)
    for key, value in flatten(record).items():
        rows[key.replace("_", " ").replace(".", " · ")] = value
    rows["asjax"] = __version__
    cells = "".join(
        f"<tr><td>{escape(shown(k))}</td><td>{escape(shown(_plain(v), 400))}</td></tr>"
        for k, v in list(rows.items())[:MOST]
    )
    caption = "<caption>Model, data and their hashes</caption>"
    table = wide(f'<table class="about">{caption}{cells}</table>', "model, data and their hashes")
    return f"<details><summary>Model, data and their hashes</summary>{table}</details>"


def _plain(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if 10_000 <= abs(value) < 10**15 else quoted(value)
    return str(value)


def _bad(summary) -> str:
    clips = summary["left_out_clips"]
    if not clips:
        return ""
    items = "".join(f"<li>{escape(shown(': '.join(map(str, c)), 400))}</li>" for c in clips[:100])
    more = f"<li>and {len(clips) - 100:,} more</li>" if len(clips) > 100 else ""
    title = f"<summary>clips left out: {len(clips):,}</summary>"
    return f"<details>{title}<ul>{items}{more}</ul></details>"

"""The result of a run: the step that is chosen, and where its files are."""

from __future__ import annotations

import math
from pathlib import Path

from asjax import hosts
from asjax.config import AsjaxError, counted


def chosen(checkpoints, state, abstract, say):
    """The state of the step that `eval.select` chooses, and how it was chosen, for the record.

    Args:
      state: the last state. abstract: its shapes and shardings, as Checkpoints.restore takes them.
      say: prints a line.

    Returns: (state, `{"chosen": {step, wanted_step, rule, metric, value, last_step, last_value}}`).
      The record is empty if the metric was never a number; then the last state is the result.
    """
    history, metric = dict(checkpoints.history), checkpoints.metric
    step = checkpoints.best_step()
    if step is None:  # the metric was never a number
        say(f"the last step is the result, because {metric} was never a number")
        return state, {}
    if step != int(state.step):
        _, state, _ = checkpoints.restore(abstract, step=step)
    last, wanted = max(history), checkpoints.wanted_step()
    rule = checkpoints.rule.about.format(metric=metric)
    damaged = "" if wanted == step else f"; step {wanted} cannot be read or was not kept"
    among = counted(len(history), "evaluation")
    say(
        f"step {step} is the result ({rule}; {among}{damaged}): {metric} "
        f"{history[step]:.4g}; the last evaluated step, {last}, has {history[last]:.4g}"
    )
    as_json = lambda value: value if math.isfinite(value) else str(value)  # noqa: E731
    about = dict(step=step, wanted_step=wanted, rule=checkpoints.rule.text, metric=metric)
    about |= dict(value=as_json(history[step]), last_step=last)
    return state, {"chosen": {**about, "last_value": as_json(history[last])}}


def where(path: Path, bad_clips, tables: str, option: str = "") -> str:
    """The files of a finished run, for its last lines.

    Args: tables: names of its CSV files. option: of `asjax tag`, such as --events.
    """
    lines = [
        f"report      {path / 'eval' / 'report.html'}",
        f"metrics     {path / 'eval' / 'metrics.json'}, {tables}, scores.npz",
        f"model       {path / 'model'}",
        f"log         {path / 'train.jsonl'}",
    ]
    if bad_clips.count:
        lines.append(f"quarantine  {bad_clips.listed} ({counted(bad_clips.count, 'clip')})")
    words = ["asjax tag YOUR_FILE.wav", option, f"--model={path / 'model'}"]
    lines.append(f"try it:     {' '.join(filter(None, words))}")
    return "\n".join(lines)


def stopped(checkpoints, done: int) -> str:
    """The line about a run that was stopped after step `done`. AsjaxError: it is not saved."""
    if not checkpoints.wait():
        raise AsjaxError(
            f"stopped at step {done}, which could not be saved: {checkpoints.last_error}; "
            f"the last saved step is {checkpoints.latest_step()}"
        )
    what = "everything is saved" if done else "no step was finished"
    return f"stopped at step {done}, {what}; run the same command to resume"


def saved_before(error, done, start, save, checkpoints, state) -> AsjaxError:
    """`error` of the data after step `done`, with a word about the save of that step."""
    if hosts.several() or done == start:  # other processes do not know of the error
        return error
    saved = save(done, state) and checkpoints.wait()
    what = "is saved" if saved else f"could not be saved ({checkpoints.last_error})"
    return AsjaxError(f"{error}. Step {done} {what}; the same command resumes the run")

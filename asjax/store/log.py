"""The log of a running training: metric files, a progress line, the step clock."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
import time
from pathlib import Path
from typing import Protocol

from asjax.config import AsjaxError
from asjax.store import files
from asjax.store.schema import parse_json

MAX_NONFINITE_IN_A_ROW = 10
_log = logging.getLogger("asjax")


class Diverged(AsjaxError):
    """The loss or the gradients were not finite for too many steps."""


class MetricWriter(Protocol):
    """The methods of every writer."""

    def write_scalars(self, step: int, scalars: dict) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class Writer:
    """Writes `train.jsonl`, and TensorBoard files if tensorboardX is installed.

    Rows after `start_step` are removed first, so that a resumed run has no step twice.

    Args:
      folder: the workdir.
      start_step: the step at which the run resumes (0: a new run).
      tensorboard: None: write TensorBoard files if tensorboardX is installed. True: also log one
        line if it is missing. False: never write them.
      active: False makes every call do nothing; for all processes except the first.
    """

    def __init__(
        self,
        folder,
        *,
        start_step: int = 0,
        tensorboard: bool | None = None,
        active: bool = True,
    ):
        self._writers: list[MetricWriter] = []
        if active:
            self._writers.append(JsonlWriter(Path(folder) / "train.jsonl", start_step))
            if tensorboard is not False:
                self._add_tensorboard(Path(folder), start_step, asked=bool(tensorboard))

    def _add_tensorboard(self, folder: Path, start_step: int, asked: bool) -> None:
        try:
            self._writers.append(TensorBoardWriter(folder / "tensorboard", start_step))
        except ImportError:
            if asked:
                _log.info("no TensorBoard files: pip install 'asjax[tensorboard]'")
        except OSError as error:
            _log.warning("no TensorBoard files: %s", files.reason(error))

    def write_scalars(self, step: int, scalars: dict) -> None:
        for writer in self._writers:
            writer.write_scalars(step, scalars)

    def flush(self) -> None:
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class JsonlWriter:
    """One JSON object per line: `{"step": 10, "loss": 0.5}`. NaN and infinity are null.

    If the log cannot be written (disk full), the run continues and the error is logged once.
    """

    def __init__(self, path, start_step: int = 0):
        self.path = Path(path)
        self._failed = False
        if self.path.exists():
            rows = [row for row in _rows(self.path) if row["step"] <= start_step]
            files.write_atomic(self.path, "".join(_line(row) for row in rows))
        self._file = self.path.open("a", encoding="utf-8")

    def write_scalars(self, step: int, scalars: dict) -> None:
        row = {"step": int(step), **{k: float(v) for k, v in scalars.items()}}
        self._guarded(lambda: self._file.write(_line(row)))
        self.flush()

    def _guarded(self, work) -> None:
        try:
            work()
        except OSError as error:
            if not self._failed:
                _log.error("%s cannot be written: %s", self.path, files.reason(error))
            self._failed = True

    def flush(self) -> None:
        if not self._file.closed:
            self._guarded(self._file.flush)

    def close(self) -> None:
        self._guarded(self._file.close)


class TensorBoardWriter:
    """Writes the same scalars for TensorBoard. Raises ImportError without tensorboardX."""

    def __init__(self, folder, start_step: int = 0):
        from tensorboardX import SummaryWriter

        purge = start_step + 1 if start_step else None
        self._writer = SummaryWriter(str(folder), purge_step=purge)

    def write_scalars(self, step: int, scalars: dict) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, float(value), int(step))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def read_jsonl(path) -> list[dict]:
    """Rows of a log, oldest first: scalars by name, and `step`. null is read as nan.

    Lines that are not rows of a log are left out, for example an incomplete last line. Values that
    are not numbers are left out too.
    """
    path = Path(path)
    rows = _rows(path) if path.exists() else []
    return [{k: math.nan if v is None else v for k, v in row.items()} for row in rows]


def _rows(path: Path) -> list[dict]:
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = parse_json(line)
        except ValueError:  # an incomplete line, if the process was killed while writing it
            continue
        if isinstance(row, dict):
            row = {k: v for k, v in row.items() if v is None or _scalar(v)}
            if isinstance(row.get("step"), int) and row["step"] >= 0:
                rows.append(row)
    return rows


def _scalar(value) -> bool:
    """Whether a value is a float or an integer below 2^63."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _line(row: dict) -> str:
    return json.dumps(files.finite(row)) + "\n"


# ---------------------------------------------------------------------------------- progress


def report(writer, progress, number: int, scalars: dict, every: int, **input_s) -> None:
    """Fetch, show and log the scalars of step `number`; the log gets every `every`-th step.

    `input_s`: waited_s and busy, as of `StepClock.tick`.

    Raises:
      Diverged: the loss or a gradient was not finite for too many steps in a row.
    """
    values = {k: float(v) for k, v in scalars.items()}
    in_a_row = int(values.pop("nonfinite_in_a_row"))
    progress.update(number, loss=values["loss"], **input_s)
    if in_a_row >= MAX_NONFINITE_IN_A_ROW:
        raise Diverged(
            f"step {number}: loss or gradient not finite {in_a_row} steps in a row (first "
            f"{number - in_a_row + 1}); lower --config.optim.lr or set --config.optim.clip_norm"
        )
    if number % every == 0 or in_a_row:
        writer.write_scalars(number, {**values, **progress.rates()})


class StepClock:
    """Mean step time, clips per second and share of time spent waiting for data since `reset`."""

    def __init__(self, batch_size: int = 0, now=time.perf_counter):
        self._now, self._batch_size = now, batch_size
        self._waited, self._busy = 0.0, {}
        self.reset()

    def reset(self) -> None:
        self._start, self._steps, self._waited_before = self._now(), 0, self._waited
        self._busy_before = self._busy

    def tick(self, steps: int = 1, waited_s: float | None = None, busy: dict | None = None) -> None:
        """Count `steps` more steps.

        Args:
          waited_s: total seconds of waiting for data. busy: total seconds that the parts of the
            input worked, by name (asjax.data.costs.busy).
        """
        self._steps += steps
        if waited_s is not None:
            self._waited = waited_s
        if busy is not None:
            self._busy_before = self._busy_before or busy
            self._busy = busy

    def skip(self, seconds: float) -> None:
        """Leave a time without steps out of the rates."""
        self._start += seconds

    def rates(self) -> dict[str, float]:
        """`{"step_s", "clips_per_s", "data_wait"}`; data_wait is 0 to 1. Empty before a step.

        With `busy` also "data_NAME", the share of the time in which this part was busy.
        """
        spent = self._now() - self._start
        if not self._steps or spent <= 0:
            return {}
        return {
            "step_s": spent / self._steps,
            "clips_per_s": self._steps * self._batch_size / spent,
            "data_wait": min(1.0, max(0.0, self._waited - self._waited_before) / spent),
            **{
                f"data_{name}": min(1.0, max(0.0, total - self._busy_before[name]) / spent)
                for name, total in self._busy.items()
            },
        }


class Progress:
    """A bar on a terminal, else a line every `every_s` seconds: loss, clips/s, time left, wait.

    Args:
      total_steps: steps of the whole run. start_step: the step at which this process begins.
      batch_size: clips per step.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int = 0,
        *,
        batch_size: int = 0,
        every_s: float = 15.0,
        stream=None,
        active: bool = True,
        now=time.perf_counter,
    ):
        self._total, self._step, self._now = total_steps, start_step, now
        self._stream, self._every_s, self._active = stream or sys.stderr, every_s, active
        self._clock, self._shown = StepClock(batch_size, now), StepClock(batch_size, now)
        self._notes: dict[str, float] = {}
        self._last_line = now()
        self._bar = None
        if active and self._stream.isatty():
            self._bar = _bar(total_steps, start_step, self._stream)

    def update(self, step: int, *, loss: float, **input_s) -> None:
        """Show that `step` steps of the run are done. `input_s`: as of `StepClock.tick`."""
        done, self._step = step - self._step, step
        if done <= 0:
            return
        self._clock.tick(done, **input_s)
        self._shown.tick(done, **input_s)
        self._notes["loss"] = loss
        if self._bar is not None:
            self._bar.set_postfix_str(self._text(), refresh=False)
            self._bar.update(done)
        elif self._active and self._now() - self._last_line >= self._every_s:
            self._print_line()

    @contextlib.contextmanager
    def paused(self):
        """Leave the time inside, an evaluation or a save, out of all rates and of the time left."""
        begin = self._now()
        yield
        for clock in (self._clock, self._shown):
            clock.skip(self._now() - begin)

    def note(self, **values: float) -> None:
        """Add other numbers (of an evaluation) to the display from now on."""
        self._notes.update(values)
        if self._bar is not None:
            self._bar.set_postfix_str(self._text())
        elif self._active:
            self._print_line()

    def rates(self) -> dict[str, float]:
        """Step time, clips per second and data wait since the last call, for the log."""
        rates = self._clock.rates()
        self._clock.reset()
        return rates

    def _text(self) -> str:
        rates = self._shown.rates()
        parts = [f"{k} {v:.4g}" for k, v in self._notes.items()]
        if rates:
            parts += [f"{rates['clips_per_s']:.0f} clips/s", _waits(rates)]
        return ", ".join(parts)

    def _print_line(self) -> None:
        self._last_line = self._now()
        rates = self._shown.rates()
        left = f", {_clock(rates['step_s'] * (self._total - self._step))} left" if rates else ""
        print(f"step {self._step}/{self._total}: {self._text()}{left}", file=self._stream)
        self._stream.flush()
        self._shown.reset()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _waits(rates: dict) -> str:
    """The share of waiting for data; above a tenth also what is busiest: read, decode or copy."""
    text, parts = f"data {rates['data_wait']:.0%}", {*rates} - {"data_wait"}
    parts = [name for name in parts if name.startswith("data_")]
    if rates["data_wait"] <= 0.1 or not parts:
        return text
    ceiling = max(sorted(parts), key=rates.get)
    return f"{text} ({ceiling.removeprefix('data_')} {rates[ceiling]:.0%} busy)"


def _bar(total: int, start: int, stream):
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    shape = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
    return tqdm(total=total, initial=start, file=stream, bar_format=shape, dynamic_ncols=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

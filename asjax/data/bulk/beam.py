"""Units on Apache Beam: one pipeline for Flink, Spark, Dataflow and this machine.

The elements are names of units, so no audio and no list crosses the engine. A worker makes a unit
from its name and writes it where the results are. So all workers need the sources and that folder
at the same paths, on a shared disk. Beam comes with `pip install "asjax[beam]"`.

Beam's own DirectRunner first seeks Prism, a program that it downloads and that ignores the number
of processes. Here `DirectRunner` is Beam's FnApiRunner, which is in the package. Its processes are
started anew (`beam_worker`), never forked, so they may use jax.
"""

from __future__ import annotations

import _thread
import contextlib
import io
import logging
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from asjax.config import AsjaxError, quoted, shown
from asjax.store.files import reason

_LOOK_S = 1.0
_DIRECT = ("direct", "directrunner")
_FAULT = re.compile(r"AsjaxError: (.*)")


def add_arguments(parser) -> None:
    """Add --runner and --runner-options."""
    parser.add_argument(
        "--runner",
        metavar="NAME",
        help="make the units on Apache Beam: DirectRunner, FlinkRunner, SparkRunner, "
        "DataflowRunner, ...",
    )
    parser.add_argument(
        "--runner-options",
        default="",
        metavar="TEXT",
        help='of the runner, such as "--direct_num_workers=4 '
        '--direct_running_mode=multi_processing"',
    )


@dataclass(frozen=True)
class Runner:
    """A runner of Beam and its `PipelineOptions`; see `of`."""

    name: str
    options: object

    @property
    def direct(self) -> bool:
        return self.name.lower() in _DIRECT


def of(args) -> Runner | None:
    """The runner of the options of `add_arguments`, or None.

    Raises:
      AsjaxError: Beam is not installed, or does not know the runner or an option.
    """
    if not args.runner:
        if args.runner_options or args.runner is not None:
            raise AsjaxError("--runner-options needs --runner NAME, such as DirectRunner")
        return None
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it warns of clouds whose packages are not there
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise AsjaxError(
            '--runner needs Apache Beam, which is not installed; pip install "asjax[beam]"'
        ) from None
    finally:
        logging.disable(before)
    try:
        words = shlex.split(args.runner_options)
    except ValueError as error:
        raise AsjaxError(f"--runner-options {quoted(args.runner_options)}: {error}") from None
    for word in words:
        if not word.startswith("--") or word.startswith("--runner="):
            raise AsjaxError(f"--runner-options: write each as --name=value, got {quoted(word)}")
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), _quiet():
            options = PipelineOptions([*words, f"--runner={args.runner}"])
            known = options.get_all_options()
            strange = options.get_all_options(retain_unknown_options=True).keys() - known.keys()
    except SystemExit:
        line = told.getvalue().strip().rpartition("error: ")[2]
        raise AsjaxError(f"--runner-options {quoted(args.runner_options)}: {line}") from None
    made = Runner(args.runner, options)
    if strange and made.direct:  # other runners take options that Beam's Python does not know
        raise AsjaxError(f"--runner-options: {made.name} has no option --{min(strange)}")
    _runner(made, "")
    return made


def _runner(made: Runner, alive: str):
    """Beam's runner. `alive`: the file that ends its processes, see `beam_worker`."""
    from apache_beam.options.pipeline_options import DirectOptions
    from apache_beam.runners import create_runner

    if not made.direct:
        try:
            return create_runner(made.name)
        except (ValueError, ImportError, AttributeError) as error:
            raise AsjaxError(f"--runner {made.name}: {reason(error)}") from None
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    direct = made.options.view_as(DirectOptions)
    if not alive or direct.direct_running_mode != "multi_processing":
        return FnApiRunner()
    direct.direct_running_mode = "in_memory"  # else it takes the worker of Beam
    words = [sys.executable, "-m", "asjax.data.bulk.beam_worker", alive]
    return FnApiRunner(
        default_environment=SubprocessSDKEnvironment.from_command_string(
            f"exec {shlex.join(words)}"
        )
    )


def run(
    runner: Runner, names: list[str], make: Callable[[str], str], finished: Callable[[], int]
) -> None:
    """Call `make(name)` on workers for each name.

    Args:
      make: a function of a module, or a `partial` of one; workers import it by its name. An engine
        may call it twice for a name.
      finished: how many units of the folder are there, for the progress bar.

    Raises:
      AsjaxError: that of `make`, or the engine failed, or a worker of DirectRunner died.
      engine.Stopped: Ctrl-C or SIGTERM.
    """
    import apache_beam as beam

    from asjax.data.bulk import engine

    if not names:
        return
    with tempfile.TemporaryDirectory(prefix="asjax-beam-") as place:
        alive = Path(place) / "alive"
        alive.touch()
        end = partial(alive.unlink, missing_ok=True)  # before Beam waits for its processes
        with engine.stoppable(end), _watched(alive, len(names), finished) as dead, _quiet():
            try:
                with beam.Pipeline(_runner(runner, str(alive)), runner.options) as pipeline:
                    elements = pipeline | beam.Create(names) | beam.Reshuffle()
                    _ = elements | "Make" >> beam.Map(make)
            except engine.Stopped:
                if not dead:
                    raise
                raise AsjaxError(
                    "a worker process died; is the memory used up? The same command goes on; "
                    "fewer workers need less memory"
                ) from None
            except Exception as error:
                raise AsjaxError(_line(error, runner.name)) from error


def prove(lacking: list, count: int, folder) -> None:
    """AsjaxError if units are lacking that workers have made."""
    if lacking:
        raise AsjaxError(
            f"{len(lacking)} of {count} units were not made in {shown(folder)}; do all workers see "
            "the same disk?"
        )


def _line(error: Exception, runner: str) -> str:
    """The line of an AsjaxError inside of what an engine says, else its last line."""
    text = re.sub(r" \[while running '[^']*'\]", "", str(error))
    if isinstance(error, AsjaxError):
        return text
    if found := _FAULT.findall(text):
        return found[-1]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"--runner {runner}: {lines[-1][:300] if lines else type(error).__name__}"


@contextlib.contextmanager
def _quiet():
    """Beam tells every error with a traceback for each of its layers. ASJAX_DEBUG=1 shows them."""
    logger = logging.getLogger("apache_beam")
    before, hook = logger.level, threading.excepthook
    if os.environ.get("ASJAX_DEBUG", "0") in ("", "0"):
        logger.setLevel(logging.CRITICAL + 1)
        # The thread of a process that died; `_watched` finds it.
        threading.excepthook = lambda e: e.thread and e.thread.name == "run_worker" or hook(e)
    try:
        yield
    finally:
        logger.setLevel(before)
        threading.excepthook = hook


@contextlib.contextmanager
def _watched(alive: Path, total: int, finished):
    """A progress bar, and a watch over the processes of DirectRunner, whose death Beam awaits for
    ever. Gives a list, which gets the number of a dead process before the program is stopped."""
    from tqdm import tqdm

    dead, ended = [], threading.Event()
    before = finished()

    def watch():
        while not ended.wait(_LOOK_S):
            bar.n = min(total, finished() - before)
            bar.refresh()
            numbers = set(map(int, alive.read_text().split())) if alive.exists() else set()
            # A process that has ended as it should has written its number with a minus, too.
            ended_well = {-number for number in numbers}
            dead.extend(pid for pid in numbers - ended_well if pid > 0 and not _lives(pid))
            if dead:
                _thread.interrupt_main(signal.SIGTERM)
                return

    with tqdm(total=total, unit="unit", disable=None) as bar:
        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield dead
        finally:
            ended.set()
            thread.join()
            bar.n = min(total, finished() - before)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

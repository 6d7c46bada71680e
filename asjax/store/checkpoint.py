"""Checkpoints of a run: orbax files with a list of SHA-256 hashes, written during the training.

A step folder `checkpoints/<step>/` has `state/` (orbax), `run.json` (metrics, history, meta,
shapes) and `SHA256SUMS`. It is written under a temporary name, hashed, synced and then renamed. So
a folder with the name of a step is complete. The hashes are needed because orbax loads flipped bits
without an error.

`save` blocks only while the state is copied from the devices. A thread, the finisher, does the
rest. There is one save at a time: the next save, and every method that looks at the steps, waits
for it first. On CPU the copy is a view of the state's memory. jax does not donate memory that has
such a view, but copies it. So the next step cannot change the data that is being written.

orbax's CheckpointManager (0.12) is not used, for three reasons. It renames a step before its files
could be hashed. Its preservation policies know the metrics of the steps on disk only, but the rule
below needs the metrics of every evaluated step. After a failed save, it forgets the older steps
that it wanted to delete: it neither lists nor deletes them later.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from asjax import hosts
from asjax.config import AsjaxError, to_plain, unknown
from asjax.store import choice, describe, files

TEMPORARY = ".orbax-checkpoint-tmp"
_ANOTHER = "another process failed"
_log = logging.getLogger("asjax")


class Checkpoints:
    """The checkpoints of one run. All processes call its methods; the first process writes.

    Three kinds of steps are kept:
    1. The newest `keep` steps.
    2. The best step: the evaluated step that `rule` chooses by the values of `metric`.
    3. The last `rule.pending` evaluated steps, which the rule may choose after later evaluations.

    Use it in a `with` statement, or call `wait` before the program ends.

    Attributes:
      damaged: one line per damaged step, with the name of the file.
      last_error: why the last save failed, or None. Call `wait` first.
    """

    def __init__(
        self,
        directory,
        *,
        metric: str = "mean_ap",
        rule: choice.Rule | None = None,
        keep: int = 2,
    ):
        if keep < 1:
            raise AsjaxError(f"keep must be at least 1, got {keep}")
        self.directory = Path(directory).absolute()
        self.metric, self.rule, self.keep = metric, rule or choice.best(), keep
        self.damaged: list[str] = []
        self.last_error: str | None = None
        self._history: list[tuple[int, dict]] | None = None  # (step, its metrics)
        self._proven: int | None = None  # the step that was written or restored last
        self._finisher = ThreadPoolExecutor(1, "checkpoint")
        self._pending = None  # (step, history, future) of a save in progress
        if _primary():
            files.prove_writable(self.directory, "checkpoint folder")
            self._clean()
        for name in ("absl", "asyncio"):
            logging.getLogger(name).addFilter(_not_orbax)
        self._orbax = _orbax()

    # ------------------------------------------------------------------------------ looking

    def steps(self) -> list[int]:
        """Steps on disk, ascending, damaged ones included."""
        self.wait()
        return hosts.from_first(self._on_disk)

    def _on_disk(self) -> list[int]:
        if not self.directory.is_dir():
            return []
        return sorted(int(p.name) for p in self.directory.iterdir() if p.name.isdecimal())

    def latest_step(self) -> int | None:
        return max(self.steps(), default=None)

    @property
    def history(self) -> list[tuple[int, float]]:
        """(step, value of `metric`) of every evaluated step so far, also of deleted steps.

        The value is NaN where that metric was not measured.
        """
        return self._values(self._evaluated())

    def _values(self, history) -> list[tuple[int, float]]:
        return [(s, found.get(self.metric, math.nan)) for s, found in history]

    def _evaluated(self) -> list[tuple[int, dict]]:
        self.wait()
        if self._history is None:
            self._history = [(step, found) for step, found in hosts.from_first(self._newest)]
        return self._history

    def _newest(self) -> list:
        """The history in the newest step whose run.json is undamaged."""
        for step in reversed(self._on_disk()):
            if not self.problems(step, only="run.json"):
                return self._read(step)["history"]
        return []

    def wanted_step(self) -> int | None:
        """The step that the rule chooses, even if its files are damaged."""
        return self._chosen(self.history)

    def best_step(self) -> int | None:
        """The step that the rule chooses and that can be read; None before the first evaluation.

        If its files are damaged, the nearest undamaged evaluated step is used, with a warning. The
        same holds if it was deleted before another metric or rule was asked for.
        """
        history, chosen = self.history, self.wanted_step()
        if chosen is None:
            return None
        evaluated = {s for s, v in history if not math.isnan(v) or s == chosen} & set(self.steps())
        return hosts.from_first(lambda: self._readable(chosen, evaluated))

    def _readable(self, chosen: int, evaluated: set[int]) -> int | None:
        """The undamaged step nearest to `chosen`. Process 0 alone reads and hashes."""
        for step in sorted(evaluated, key=lambda s: abs(s - chosen)):
            problems = self.problems(step)
            if not problems:
                if step != chosen:
                    gone = "is damaged" if chosen in evaluated else "was not kept"
                    _log.warning("best step %d %s, using step %d", chosen, gone, step)
                return step
            self._note_damage(step, problems)
        return None

    def problems(self, step: int, only: str | None = None) -> list[str]:
        """Faults of a step, one line per file. An empty list means that all hashes are right."""
        return files.check_sums(self.directory / str(step), only)

    # ------------------------------------------------------------------------------- saving

    def save(self, step: int, state, *, metrics: dict | None = None, meta: dict | None = None):
        """Begin to write a step. All processes must call it. The state may be donated afterwards.

        Returns:
          True: the state is copied, and `wait` returns whether it reached the disk. False: the save
          could not begin (disk full, no folder). A failure is logged in one line, older steps are
          untouched, and the run may go on.

        Raises:
          AsjaxError: `metrics` has no `metric`, or `meta` is not JSON.
        """
        step, history = int(step), list(self._evaluated())
        if metrics is not None:
            if self.metric not in metrics:
                raise unknown("checkpoint metric", self.metric, metrics)
            history = [(s, v) for s, v in history if s != step]
            history.append((step, {k: float(v) for k, v in metrics.items()}))
        elif step == self._proven:
            return True  # this step is on disk already, with the same content
        history.sort(key=lambda entry: entry[0])
        text = files.to_strict_json(
            {
                "step": step,
                "metrics": to_plain(metrics or {}),
                "history": [[s, describe.as_json(found)] for s, found in history],
                "meta": to_plain(meta or {}),
                "tree": describe.describe(state),
            }
        )
        self.last_error = self._begin(step, state, text)
        if self.last_error is not None:
            return False
        future = self._finisher.submit(self._finish, step, history)
        self._pending = (step, history, future)
        return True

    def wait(self) -> bool:
        """Wait until the current save is on disk. All processes must call it.

        Returns:
          Whether the last save succeeded; True before the first save.
        """
        if self._pending is not None:
            (step, history, future), self._pending = self._pending, None
            error = future.result()
            if hosts.agree(error is None):
                self._history, self._proven = history, step
            else:
                self.last_error = error or self._failed(step, _ANOTHER)
                self._orbax = _orbax()
        return self.last_error is None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.wait()
        else:  # only this process may have failed, so it cannot wait for the others
            self._finisher.shutdown()

    def _begin(self, step: int, state, text: str) -> str | None:
        """Copy the state and start orbax. Returns None, or the reason of a failure."""
        temporary = self._temporary(step)

        def make_room():
            if not self.directory.is_dir():
                raise OSError(f"{self.directory} does not exist any more")
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            need, free = describe.size(state), shutil.disk_usage(self.directory).free
            if need > free:
                raise OSError(f"No space left on device: {need:,} bytes needed, {free:,} free")
            (temporary / "run.json").write_text(text)

        def copy():
            self._orbax.save(temporary / "state", args=ocp.args.StandardSave(state))

        for work, everywhere in ((make_room, False), (copy, True)):
            error = None
            if everywhere or _primary():
                try:
                    work()
                except Exception as caught:  # orbax raises plain ValueErrors for a full disk
                    error = files.reason(caught)
            if not hosts.agree(error is None):
                self._orbax = _orbax()
                return self._failed(step, error or _ANOTHER)
        return None

    def _finish(self, step: int, history) -> str | None:
        """The finisher: all work up to the rename. Returns None, or the reason of a failure."""
        try:
            self._orbax.wait_until_finished()
            if _primary():
                temporary = self._temporary(step)
                if not (temporary / "run.json").is_file():  # orbax would create a missing folder
                    raise OSError(f"{temporary} does not exist any more")
                files.write_sums(temporary)
                self._swap_in(temporary, step)
                self._prune(history)
        except Exception as caught:
            return self._failed(step, files.reason(caught))
        return None

    def _failed(self, step: int, error: str) -> str:
        _log.error(
            "checkpoint of step %d NOT saved: %s. Older checkpoints are intact. Free space or fix "
            "the folder; the next checkpoint is saved as usual",
            step,
            error,
        )
        if _primary():
            for _ in range(20):  # another thread of orbax may still write
                shutil.rmtree(self._temporary(step), ignore_errors=True)
                if not self._temporary(step).exists():
                    break
                time.sleep(0.05)
        return error

    def _temporary(self, step: int) -> Path:
        return self.directory / f"{step}{TEMPORARY}"

    def _swap_in(self, temporary: Path, step: int) -> None:
        final, old = self.directory / str(step), self.directory / f"{step}.old{TEMPORARY}"
        if final.exists():  # the step was saved before without metrics
            final.rename(old)
        temporary.rename(final)
        files.sync(self.directory)
        shutil.rmtree(old, ignore_errors=True)

    def _chosen(self, values) -> int | None:
        """The step that the rule chooses among (step, value) pairs, damaged or not."""
        place = self.rule.choose([v for _, v in values])
        return None if place is None else values[place][0]

    def _prune(self, history) -> None:
        steps = self._on_disk()
        evaluated = [s for s, _ in history]
        pending = evaluated[-self.rule.pending :] if self.rule.pending else []
        kept = {*steps[-self.keep :], *pending, self._chosen(self._values(history))}
        for step in set(steps) - kept:
            # Rename first: if the process is killed here, no incomplete step has a step's name.
            gone = self.directory / f"{step}.deleted{TEMPORARY}"
            try:
                (self.directory / str(step)).rename(gone)
                shutil.rmtree(gone)
            except OSError as error:
                _log.warning("old checkpoint %d could not be deleted: %s", step, error)

    def _clean(self) -> None:
        """Clean up after a killed process: remove unfinished steps, restore a replaced step."""
        for leftover in sorted(self.directory.glob(f"*{TEMPORARY}")):
            step, _, rest = leftover.name.partition(".")
            if rest.startswith("old.") and not (self.directory / step).exists():
                leftover.rename(self.directory / step)
            else:
                _log.info("removing unfinished checkpoint %s", leftover.name)
                shutil.rmtree(leftover, ignore_errors=True)

    # ---------------------------------------------------------------------------- restoring

    def restore(self, abstract_state, step: int | None = None):
        """`(step, state, meta)` of the newest undamaged step, or of `step`; None without any step.

        Damaged newer steps are listed in `damaged`, renamed to `<step>.damaged` and skipped.

        Args:
          abstract_state: tree of `jax.ShapeDtypeStruct`, with the shardings to restore to.

        Raises:
          AsjaxError: all steps are damaged, or the step has the shapes of another model.
        """
        steps = self.steps()
        if step is None and not steps:
            return None
        for candidate in [step] if step is not None else reversed(steps):
            problems = self.problems(candidate) if _primary() else []
            if hosts.agree(not problems):
                run = self._read(candidate)
                describe.check_fits(run["tree"], abstract_state, f"checkpoint step {candidate}")
                try:
                    path = self.directory / str(candidate) / "state"
                    args = ocp.args.StandardRestore(abstract_state)
                    state = self._orbax.restore(path, args=args)
                except Exception as error:
                    problems = [f"state: {files.reason(error)}"]
                if hosts.agree(not problems):
                    self._proven = candidate
                    if step is None:
                        self._set_aside_newer(candidate)
                        self._history = run["history"]
                    return candidate, state, run["meta"]
            self._note_damage(candidate, problems or ["state: another process could not read it"])
        listed = "; ".join(self.damaged[-3:])
        raise AsjaxError(
            f"no undamaged checkpoint in {self.directory}: {listed}; choose another --workdir, or "
            "delete the checkpoints folder to start again"
        )

    def _read(self, step: int) -> dict:
        run = json.loads((self.directory / str(step) / "run.json").read_text())
        run["history"] = [(int(s), describe.from_json(found)) for s, found in run["history"]]
        return run

    def _note_damage(self, step: int, problems: list[str]) -> None:
        self._proven = None if step == self._proven else self._proven
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        line = f"step {step}: {problems[0]}{more}"
        if line not in self.damaged:
            self.damaged.append(line)
            _log.warning("damaged checkpoint skipped: %s", line)

    def _set_aside_newer(self, step: int) -> None:
        """Rename the steps newer than `step`: they are damaged, but the user may inspect them."""
        for newer in [s for s in self._on_disk() if s > step] if _primary() else []:
            aside = self.directory / f"{newer}.damaged"
            shutil.rmtree(aside, ignore_errors=True)
            try:
                (self.directory / str(newer)).rename(aside)
            except OSError as error:
                _log.warning("damaged checkpoint %d could not be renamed: %s", newer, error)
        hosts.agree(True)  # a barrier: no process lists the steps before they are renamed


# ------------------------------------------------------------------------------------- small


def _primary() -> bool:
    return jax.process_index() == 0


def _orbax() -> ocp.AsyncCheckpointer:
    return ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())


def _not_orbax(record: logging.LogRecord) -> bool:
    """Hide orbax's log of a failure (several tracebacks), because we raise it or log one line."""
    theirs = "orbax" in record.pathname or "/orbax/" in record.getMessage()
    return not theirs or record.levelno < logging.WARNING

"""The folder of a run: for one process at a time, with one config and one set of data."""

from __future__ import annotations

import json
import os
import platform
import secrets
import socket
import time
from pathlib import Path

from asjax.config import AsjaxError, differences, fingerprint, to_json, to_plain
from asjax.store import files, formats, schema

MARKER = "run.json"
LOCK = ".lock"
OWN = (LOCK, ".probe-", f".{MARKER}.")  # files that remain if a run is killed at its start


class Workdir:
    """A locked workdir; use `Workdir.open` in a with statement.

    Attributes:
      path: the folder.
      resumed: True if the folder already has this run.
    """

    def __init__(self, path: Path, resumed: bool, lock):
        self.path, self.resumed, self._lock = path, resumed, lock

    @classmethod
    def open(
        cls,
        path,
        *,
        config,
        data_fingerprint: str,
        allow_config_change: bool = False,
        allow_data_change: bool = False,
        primary: bool = True,
    ) -> Workdir:
        """Create the folder, or open it again after a check that it is the same run.

        Args:
          config, data_fingerprint: must equal those of the run in the folder. If a change is
            allowed, it is recorded in run.json.
          primary: False in all processes except the first. They do not lock, check or write.

        Raises:
          AsjaxError: not writable, in use by another process, not a workdir, or another config or
            other data. The message lists the differences and what to do.
        """
        files.refuse_url(path, "workdir")
        path = Path(path).absolute()
        if not primary:
            return cls(path, (path / MARKER).exists(), None)
        if path.exists() and not path.is_dir():
            raise AsjaxError(f"workdir {path} must be a folder, it is a file")
        # Check before anything is written, so that a user's other folder stays unchanged.
        names = {p.name for p in path.iterdir()} if path.is_dir() else set()
        foreign = any(not name.startswith(OWN) for name in names)
        if MARKER not in names and foreign and not _steps(path):
            raise AsjaxError(
                f"workdir {path} is not empty and no run of asjax (it has no {MARKER}); choose "
                "another --workdir"
            )
        files.prove_writable(path, "workdir")
        lock = _take_lock(path)
        try:
            resumed = (path / MARKER).exists() or bool(_steps(path))
            run, changes = {"created": _now(), "changes": []}, []
            if resumed:
                run, changes = _take_up(path, config, allow_config_change)
                changes += _data_changes(path, run, data_fingerprint, allow_data_change)
                if "config" not in run and (path / MARKER).exists():  # damaged; the user may look
                    (path / MARKER).rename(path / f"{MARKER}.{secrets.token_hex(4)}.damaged")
            _write_run(path, run, config, data_fingerprint, changes)
        except BaseException:
            _release(lock)
            raise
        return cls(path, resumed, lock)

    def close(self) -> None:
        """Release the lock of the folder. A second call does nothing."""
        _release(self._lock)
        self._lock = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _take_lock(path: Path):
    """An open file with the lock. The system releases it when the process ends, also if killed."""
    handle = (path / LOCK).open("a+", encoding="utf-8")
    if not files.lock(handle):
        handle.seek(0)
        holder = handle.read().strip() or "another process"
        handle.close()
        raise AsjaxError(
            f"workdir {path} is in use by {holder}; wait for it, stop it, or choose another "
            "--workdir"
        )
    handle.seek(0)
    handle.truncate()
    handle.write(f"process {os.getpid()} on {socket.gethostname()} since {_now()}\n")
    handle.flush()
    return handle


def _release(lock) -> None:
    if lock is not None and not lock.closed:
        lock.close()  # releases the lock; the file stays, because deleting it would be a race


def _take_up(path: Path, config, allow_change: bool) -> tuple[dict, list[str]]:
    """The content of run.json and the changes since. Rebuilt from the checkpoints if allowed.

    Raises:
      AsjaxError: another config, or run.json cannot be read. The message names the option to pass.
    """
    try:
        run = schema.read_json(path / MARKER)
        schema.require(run, formats.RUN, path / MARKER)
    except AsjaxError as error:
        steps = _steps(path)
        if not allow_change:
            names = ", ".join(p.name for p in steps) or "none"
            raise AsjaxError(
                f"{error}; to resume from the checkpoints ({names}) with the current config, pass "
                "--allow-config-change; or choose another --workdir"
            ) from None
        run = _rebuilt(steps)
        unknown = "" if run["data_fingerprint"] else "; the data of the run are unknown"
        return run, [
            f"{MARKER} could not be read and was written again{unknown}",
            *_by_copy(path, config),
        ]
    return run, _config_changes(path, run, config, allow_change)


def _by_copy(path: Path, config) -> list[str]:
    """The differences between `config` and the copy in config.json, if that can be read."""
    try:
        copy = schema.read_json(path / "config.json")
        schema.require(copy, formats.RUN_CONFIG, path)
    except AsjaxError:
        return []
    return differences(copy, json.loads(to_json(config)))


def _rebuilt(steps: list[Path]) -> dict:
    """A new content of run.json, with data from the newest undamaged checkpoint."""
    data = None
    for step in reversed(steps):
        if not files.check_sums(step, MARKER):
            data = (schema.read_json(step / MARKER).get("meta") or {}).get("data")
            break
    return {"created": _now(), "changes": [], "data_fingerprint": data}


def _steps(path: Path) -> list[Path]:
    """The step folders of a run, the newest last."""
    places = path.glob(f"checkpoints/*/{files.SUMS}")
    return sorted(
        (p.parent for p in places if p.parent.name.isdecimal()), key=lambda p: int(p.name)
    )


def _config_changes(path: Path, run: dict, config, allowed: bool) -> list[str]:
    changed = differences(run["config"], json.loads(to_json(config)))
    if changed and not allowed:
        more = f" and {len(changed) - 10} more" if len(changed) > 10 else ""
        raise AsjaxError(
            f"workdir {path} holds a run with another config: {'; '.join(changed[:10])}{more}; "
            "choose another --workdir, or pass --allow-config-change to use the new config"
        )
    return changed


def _data_changes(path: Path, run: dict, data_fingerprint: str, allowed: bool) -> list[str]:
    old = run["data_fingerprint"]
    if old in (None, data_fingerprint):
        return []
    if not allowed:
        raise AsjaxError(
            f"workdir {path} holds a run on other data: before {old}, now {data_fingerprint}; "
            "choose another --workdir, or pass --allow-data-change to use the new data"
        )
    return [f"data: {old} -> {data_fingerprint}"]


def _write_run(path: Path, run: dict, config, data_fingerprint: str, changes: list[str]) -> None:
    from asjax import __version__

    now = _now()
    run = {
        **run,
        "asjax": __version__,
        "python": platform.python_version(),
        "started": now,
        "config": to_plain(config),
        "config_fingerprint": fingerprint(config),
        "data_fingerprint": data_fingerprint,
        "changes": [*run.get("changes", []), *({"at": now, "what": line} for line in changes)],
    }
    try:
        # A resume compares with run.json only. config.json is a copy for people to read.
        files.write_atomic(path / MARKER, to_json(run))
        files.write_atomic(path / "config.json", to_json(config))
    except OSError as error:
        raise AsjaxError(f"workdir {path} cannot be written: {files.reason(error)}") from None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

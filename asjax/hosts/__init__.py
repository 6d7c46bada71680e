"""What the processes of one training tell each other, through JAX's key-value store.

No device takes part. So it works before the first collective, while devices compute or hang, and in
threads. With one process every function does nothing, or returns its own value. All processes must
call these functions in the same order, except `publish` and `published`.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from asjax.config import AsjaxError, differences, to_json

_WAIT_MS = 7 * 24 * 3600 * 1000  # the watchdog ends a wait that lasts too long, and says why
_SHARED_S = 20.0  # a network disk may show a new file late
_calls = itertools.count()
waits = False  # whether this process waits for the others in a function of this module


def _state():
    """jax.distributed has no public key-value store. None: nothing has loaded jax."""
    module = sys.modules.get("jax._src.distributed")
    return module and module.global_state


def client():
    """JAX's client of the key-value store; None before `jax.distributed.initialize`."""
    state = _state()
    return state and state.client


def several() -> bool:
    """Whether several processes train together. It does not start a backend of jax."""
    return bool(client()) and _state().num_processes > 1


def index() -> int:
    """The number of this process, from 0."""
    return _state().process_id if several() else 0


def count() -> int:
    """How many processes train together."""
    return _state().num_processes if several() else 1


@contextlib.contextmanager
def waiting():
    """A process in this `with` statement waits for the others, so it is not the one that hangs."""
    global waits
    waits = True
    try:
        yield
    finally:
        waits = False


def barrier(name: str) -> None:
    """Wait until all processes are here."""
    if several():
        with waiting():
            client().wait_at_barrier(f"asjax/{name}/{next(_calls)}", _WAIT_MS)


def meet(folder: Path) -> None:
    """Wait for all processes, check that `folder` is shared, and run a first small collective.

    The reason for the collective: on CPU, gloo joins the processes in the first one and gives them
    30 s for it. Later collectives have no such limit.

    Raises:
      AsjaxError: as check_shared.
    """
    if several():
        from jax.experimental import multihost_utils

        check_shared(folder)
        multihost_utils.sync_global_devices("asjax")


def from_first(make: Callable):
    """The value of `make()` on process 0, on every process. Only process 0 calls `make`.

    The value must be JSON. NaN and infinity are kept, a tuple becomes a list.
    """
    if not several():
        return make()
    key = f"asjax/first/{next(_calls)}"
    if index() == 0:
        client().key_value_set(key, json.dumps(make()))
    with waiting():
        return json.loads(client().blocking_key_value_get(key, _WAIT_MS))


def from_all(value) -> list:
    """The values of all processes, by their numbers, on every process. They must be JSON."""
    if not several():
        return [value]
    key = f"asjax/all/{next(_calls)}"
    client().key_value_set(f"{key}/{index()}", json.dumps(value))
    with waiting():
        client().wait_at_barrier(key, _WAIT_MS)
    found = published(key)
    return [found[number] for number in range(count())]


def agree(fine: bool) -> bool:
    """True if `fine` is True on every process. It is also a barrier."""
    return all(from_all(bool(fine)))


def publish(folder: str, value) -> None:
    """Set this process's value (JSON) in a folder of the store; it replaces the one before."""
    key = f"{folder}/{index()}"
    client().key_value_set(key, json.dumps(value), allow_overwrite=True)


def published(folder: str) -> dict[int, object]:
    """Process number -> value, of the processes that have set one in this folder."""
    pairs = client().key_value_dir_get(f"{folder}/")
    return {int(key.rsplit("/", 1)[1]): json.loads(text) for key, text in pairs}


def names() -> list[str]:
    """The host of each process, by process number."""
    return from_all(socket.gethostname())


def check_shared(folder: Path) -> None:
    """All processes must see the same `folder`, which process 0 has made.

    Raises:
      AsjaxError: another process does not see a file that process 0 has written there.
    """
    if not several():
        return
    token = from_first(lambda: _token(folder))
    deadline = time.monotonic() + _SHARED_S
    while not (seen := (folder / token).is_file()) and time.monotonic() < deadline:
        time.sleep(0.2)
    said = from_all([socket.gethostname(), str(folder), seen])
    if index() == 0:
        with contextlib.suppress(OSError):
            (folder / token).unlink()
    for number, (host, path, found) in enumerate(said):
        if not found:
            raise AsjaxError(
                f"process {number} on {host} does not see the workdir of process 0 on "
                f"{said[0][0]}: a file in {said[0][1]} is not in its {path}. All processes must "
                "have the same --workdir, on a disk that all hosts share"
            )


def check_same(what: str, value, advice: str) -> None:
    """All processes must have the `value` of process 0: JSON, of which dicts are told by key.

    Raises:
      AsjaxError: on every process; it names a process, its host, and what differs.
    """
    said = from_all([socket.gethostname(), value])
    here, wanted = said[0]
    for number, (host, found) in enumerate(said):
        if found != wanted:
            told = "; ".join(differences(wanted, found)[:5]) if isinstance(found, dict) else ""
            raise AsjaxError(
                f"process {number} on {host} has another {what} than process 0 on {here}"
                f"{told and f' ({told})'}; {advice}"
            )


def check_start(cfg) -> None:
    """All processes must have the code and the config of process 0. AsjaxError as check_same."""
    if several():
        check_same("code", code(), "install the same version of asjax and jax on all hosts")
        ours = json.loads(to_json(cfg))
        check_same("config", ours, "give all processes the same options and the same config file")


def code() -> dict[str, str]:
    """The versions of asjax and jax, and a hash of the source files of asjax."""
    import asjax

    folder, total = Path(asjax.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        total.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        total.update(path.read_bytes())
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")}
    return {"asjax": asjax.__version__, **versions, "source": total.hexdigest()[:12]}


def _token(folder: Path) -> str:
    name = f".probe-shared-{os.getpid()}-{secrets.token_hex(8)}"
    (folder / name).touch()
    return name

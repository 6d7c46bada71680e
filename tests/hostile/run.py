"""Read every file of the corpus in a process with little memory; report as JSON lines.

    python tests/hostile/run.py FOLDER MUTANTS MEGABYTES

An audit hook records the interpreter's events: imports, started programs, files opened for writing,
compiled or executed code.
"""

import json
import resource
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (0, 1, 2)]

import numpy as np  # noqa: E402
from hostile import corpus  # noqa: E402

from asjax.config import (  # noqa: E402
    AsjaxError,
)
from asjax.weights import (  # noqa: E402
    parts,
    torch_file,
)

QUIET = ("open", "mmap.__new__", "builtins.id")
seen = []


def hook(event, args):
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        seen.append(f"open {args[0]} {args[1]}")
    elif event not in QUIET:
        seen.append(event)


def outcome(path: Path) -> str:
    """ "" if the file was read, else the message of the AsjaxError; anything else is raised."""
    try:
        weights = parts.flat(torch_file.read(path))
        for array in weights.values():
            np.asarray(array).copy()
        return ""
    except AsjaxError as error:
        return str(error)


def main(folder: str, count: str, megabytes: str) -> None:
    path = Path(folder) / "file.pth"
    path.write_bytes(corpus.good())
    assert outcome(path) == ""  # and all modules for reading are imported
    files = list(corpus.all_files().items())
    files += [(f"mutant {i}", raw) for i, raw in enumerate(corpus.mutants(int(count)))]
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = held + int(megabytes) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.addaudithook(hook)
    for name, raw in files:
        path.write_bytes(raw)
        del raw
        seen.clear()
        begin = time.process_time()
        try:
            text = outcome(path)
        except BaseException as error:
            text = f"!{type(error).__name__}: {error}"
        events = sorted(set(seen))
        spent = time.process_time() - begin
        print(json.dumps({"name": name, "text": text, "s": spent, "events": events}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

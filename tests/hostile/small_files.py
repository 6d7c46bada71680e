"""Mutants of every small file of asjax, read in a process with little memory.

    python tests/hostile/small_files.py FOLDER MUTANTS MEGABYTES

Each file is damaged in MUTANTS random ways with a fixed seed. Then the function that normally reads
it is called. Hashes are corrected first, as an attacker would do. The result is printed as JSON
lines: "" if the file was read, the message of an AsjaxError, or "!" and any other exception.
"""

import contextlib
import copy
import io
import json
import math
import random
import resource
import sys
import time
import traceback
import zipfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (0, 1, 2)]

import numpy as np  # noqa: E402
from small_models import CONFIG, LABELS, reseal, small_model  # noqa: E402

from asjax import build, config, labels, predict  # noqa: E402
from asjax.config import AsjaxError  # noqa: E402
from asjax.evaluation import evaluate  # noqa: E402
from asjax.papers import runs  # noqa: E402
from asjax.store import log, scores  # noqa: E402
from asjax.store.workdir import Workdir  # noqa: E402
from asjax.weights import hub_config, locate  # noqa: E402

EVIL = [
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**9, 10**400, -(10**30), 0.5, -0.0, 1e9, 1e300,
    math.nan, math.inf, -math.inf, "", "x", "null", "\0", "a\nb", "\u202e", "os:system", "../../x",
    "9" * 5000, "x" * 100_000, [], {}, [[]], [None], {"name": 3}, {"name": "os:system"},
    {"": None}, [0] * 5000, [1e9] * 3,
]  # fmt: skip


def nested(depth):
    value = 0
    for _ in range(depth):
        value = [value]
    return value


def nodes(value, path=()):
    """Every place in a JSON value, up to depth 20: (path, value)."""
    yield path, value
    if len(path) < 20 and isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from nodes(item, (*path, key))


def mutated(value, chance):
    """A copy of a JSON value with one to three places changed, deleted, renamed or swapped."""
    value = json.loads(json.dumps(value))
    for _ in range(chance.randint(1, 3)):
        places = [path for path, _ in nodes(value)]
        path = chance.choice(places)
        evil = chance.choice([*EVIL, nested(30), nested(900)])
        if not path:
            if chance.random() < 0.2:
                return evil
            continue
        at = value
        for key in path[:-1]:
            at = at[key]
        kind = chance.random()
        if kind < 0.15:
            del at[path[-1]]
        elif kind < 0.25 and isinstance(at, dict):
            at[f"{path[-1]}{chance.choice(['', ' ', 'x'])}"] = at.pop(path[-1])
        elif kind < 0.35 and isinstance(at, dict):
            other = chance.choice(list(at))
            at[path[-1]], at[other] = at[other], at[path[-1]]
        else:
            at[path[-1]] = copy.copy(evil)
    return value


def dumped(value) -> bytes:
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(value).encode("utf-8", "surrogatepass")
    finally:
        sys.set_int_max_str_digits(4300)


def damaged(raw: bytes, chance) -> bytes:
    """The bytes with a few changed, removed, doubled or inserted."""
    raw = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        at, n = chance.randrange(len(raw) + 1), chance.randint(1, 20)
        kind = chance.random()
        if kind < 0.4 and at < len(raw):
            raw[at] = chance.randrange(256)
        elif kind < 0.6:
            del raw[at : at + n]
        elif kind < 0.7:
            raw[at:at] = raw[at : at + n]
        elif kind < 0.8:
            raw[at:at] = chance.choice(
                [b"[", b"{", b"\0", b"\xff", b'"', b"9"]
            ) * 10 ** chance.randint(0, 5)
        elif kind < 0.9:
            del raw[at:]
        else:
            raw[at:at] = bytes(chance.randrange(256) for _ in range(n))
    return bytes(raw)


# --------------------------------------------------------------------------------- the formats


def json_or_bytes(value, chance) -> bytes:
    raw = dumped(value if chance.random() < 0.3 else mutated(value, chance))
    return damaged(raw, chance) if chance.random() < 0.3 else raw


def model_file(name, folder, chance, start):
    """Read one damaged file of a model folder with corrected hashes."""
    for file, raw in start.items():
        (folder / file).write_bytes(raw)
    if name == "card.json":
        card = mutated(json.loads(start[name]), chance)
        (folder / name).write_bytes(dumped(card))
        if isinstance(card, dict) and isinstance(card.get("sha256"), dict):
            card.pop("sha256")
            with contextlib.suppress(RecursionError):
                config.fingerprint(card)  # a card that cannot be hashed keeps its wrong hash
                (folder / name).write_bytes(start[name])
                reseal(folder, **card)
    else:
        raw = start[name]
        raw = (
            json_or_bytes(json.loads(raw), chance)
            if name == "config.json"
            else damaged(raw, chance)
        )
        (folder / name).write_bytes(raw)
        reseal(folder)
    predict.load(folder)


def safetensors(folder, chance, start):
    path = folder / "x.safetensors"
    raw = start["model.safetensors"]
    size = int.from_bytes(raw[:8], "little")
    if chance.random() < 0.5:
        header = dumped(mutated(json.loads(raw[8 : 8 + size]), chance))
        raw = len(header).to_bytes(8, "little") + header + raw[8 + size :]
    elif chance.random() < 0.1:
        header = b'{"a":' + b"[" * 200_000
        raw = len(header).to_bytes(8, "little") + header
    else:
        raw = damaged(raw, chance)
    path.write_bytes(raw)
    locate.read_weights(path)


ABOUT = {
    "label_set": "three", "label_hash": LABELS.hash,
    "extra": {"left_out": [["x.wav", "no audio"]], "strict": False,
              "zero_shot": {"label_set": "a", "left_out": ["b"]}},
    "parents": {"a": ["b"], "b": [], "c": ["group"], "group": []},
}  # fmt: skip


def npz(folder, chance, start):
    arrays = {
        "ids": np.array(["one", "two"]),
        "scores": np.zeros((2, 3), np.float32),
        "targets": np.eye(2, 3, dtype=np.uint8),
        "label_ids": np.array(LABELS.ids),
        "label_names": np.array(LABELS.names),
        "about": np.array(dumped(ABOUT).decode()),
    }
    if chance.random() < 0.4:
        arrays["about"] = np.array(dumped(mutated(ABOUT, chance)).decode(errors="replace"))
    if chance.random() < 0.5:
        name = chance.choice(list(arrays))
        arrays[name] = chance.choice(
            [
                np.array("text"), np.zeros(3, "U0"), np.float32(3), np.zeros((2, 3, 4), "f4"),
                np.array([b"x"]), np.full((2, 3), np.nan, "f4"), np.full((2, 3), 7, "u1"),
                np.zeros((0, 3), "f4"), np.array(["a", "a"]), np.zeros((2, 3), "c8"),
                np.zeros(2, "V8"), np.array([["a"]]), np.array(["1.0"] * 6).reshape(2, 3),
                np.zeros((2, 3), "f8"), np.zeros((2, 3), "M8[s]"), np.zeros((3, 2), "f4").T,
            ]
        )  # fmt: skip
    if chance.random() < 0.2:
        arrays.pop(chance.choice(list(arrays)))
    members = {}
    for name, array in arrays.items():
        raw = io.BytesIO()
        np.save(raw, array)
        members[name] = raw.getvalue()
    if chance.random() < 0.3 and members:  # a header that claims more data than there are
        name = chance.choice(list(members))
        shape = chance.choice(["(1099511627776, 3)", "(2, 1099511627776)", "(-2, -3)", "(" * 90])
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
        header += b" " * (117 - len(header)) + b"\n"
        members[name] = b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + bytes(24)
    path = folder / "scores.npz"
    packing = chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, raw in members.items():
            archive.writestr(f"{name}.npy", raw)
    if chance.random() < 0.3:
        path.write_bytes(damaged(path.read_bytes(), chance))
    evaluate.evaluate_scores(
        path, folder / "eval", n_bootstrap=0
    ) if chance.random() < 0.02 else None
    scores.load_scores(path)


def run_json(folder, chance, start):
    run = {
        "config": dict(CONFIG), "data_fingerprint": "d", "created": "2026",
        "changes": [{"at": "2026", "what": "x"}], "python": "3.11",
    }  # fmt: skip
    work = folder / "work"
    work.mkdir(exist_ok=True)
    (work / "run.json").write_bytes(json_or_bytes(run, chance))
    allow = chance.random() < 0.3
    Workdir.open(work, config=CONFIG, data_fingerprint="d", allow_config_change=allow).close()


def jsonl(folder, chance, start):
    rows = [{"step": i, "loss": 0.5, "eval/d_prime": None} for i in range(4)]
    path = folder / "train.jsonl"
    path.write_bytes(b"\n".join(json_or_bytes(row, chance) for row in rows))
    read = log.read_jsonl(path)
    assert all(isinstance(v, (int, float)) for row in read for v in row.values())
    log.JsonlWriter(path, start_step=2).close()


def hub(folder, chance, start):
    cfg = {
        "id2label": {"0": "Dog", "1": "x"}, "max_length": 128, "frequency_stride": 10,
        "time_stride": 10, "hidden_size": 32, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
    }  # fmt: skip
    extractor = {"mean": -4.2, "std": 4.5, "sampling_rate": 16000, "do_normalize": True, "x": [1]}
    places = {name: folder / f"hub-{name}" for name in locate.CONFIGS}
    for path, value in zip(places.values(), (cfg, extractor), strict=True):
        path.write_bytes(json_or_bytes(value, chance))
    hub_config.read(places, "hub")


def metrics(folder, chance, start):
    record = {
        "hlp": True,
        "draw": "shuffle",
        "parameters": 7,
        "eval_data": {"name": "x", "clips": 3},
    }
    (folder / "metrics.json").write_bytes(json_or_bytes({"record": record}, chance))
    runs.read_record(folder)


def taxonomy(folder, chance, start):
    text = b"child,parent\na,Cat\nDog,group\ngroup,Rain\n"
    (folder / "parents.csv").write_bytes(damaged(text, chance))
    LABELS.with_taxonomy(folder / "parents.csv")


def labels_csv(folder, chance, start):
    (folder / "own.csv").write_bytes(damaged(start["labels.csv"], chance))
    label_set = labels.get(folder / "own.csv")
    build.label_set({"labels": {"name": str(folder / "own.csv")}})
    label_set.index(label_set.ids[0])


FORMATS = {
    **{
        name: (lambda *args, name=name: model_file(name, *args))
        for name in ("config.json", "card.json", "labels.csv", "model.safetensors")
    },
    "x.safetensors": safetensors,
    "scores.npz": npz,
    "run.json": run_json,
    "train.jsonl": jsonl,
    "hub": hub,
    "metrics.json": metrics,
    "parents.csv": taxonomy,
    "own.csv": labels_csv,
}


def main(place: str, count: str, megabytes: str) -> None:
    place = Path(place)
    small_model(place / "m")
    start = {p.name: p.read_bytes() for p in (place / "m").iterdir()}
    predict.load(place / "m")  # imports all modules for reading
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = held + int(megabytes) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for name, read in FORMATS.items():
        for number in range(int(count)):
            chance, begin, text = random.Random(f"{name} {number}"), time.process_time(), ""
            folder = place / "m" if name in start else place / name
            folder.mkdir(exist_ok=True)
            try:
                read(folder, chance, start)
            except AsjaxError as error:
                text = str(error)
            except BaseException as error:
                at = traceback.extract_tb(error.__traceback__)[-1]
                text = f"!{type(error).__name__}: {error} ({at.filename}:{at.lineno})"
            spent = time.process_time() - begin
            print(json.dumps({"name": f"{name} {number}", "text": text, "s": spent}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

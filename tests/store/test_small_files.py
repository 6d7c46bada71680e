"""Every small file damaged in hundreds of ways (formats, schema, npz) gives a one-line error."""

import json
import subprocess
import sys

import pytest
from hostile import small_files

MUTANTS, MEGABYTES = 250, 400


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """name -> result of reading the file in a process with little memory."""
    folder = tmp_path_factory.mktemp("small")
    done = subprocess.run(
        [sys.executable, small_files.__file__, folder, str(MUTANTS), str(MEGABYTES)],
        capture_output=True, text=True, cwd=folder, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == MUTANTS * len(small_files.FORMATS)
    return {row["name"]: row for row in rows}


def test_nothing_but_one_line_is_raised_in_little_time_and_memory(outcomes):
    for name, row in outcomes.items():
        assert not row["text"].startswith("!"), (name, row["text"])
        assert "\n" not in row["text"], (name, row["text"])
        assert len(row["text"]) < 1500, (name, row["text"])
        assert row["s"] < 5, (name, row["s"])


@pytest.mark.parametrize("name", small_files.FORMATS)
def test_most_mutants_are_found_out(outcomes, name):
    """A log is read up to the damage; some changes of the other files do no harm."""
    refused = [row for key, row in outcomes.items() if key.startswith(f"{name} ") and row["text"]]
    assert len(refused) > (0.3 * MUTANTS if name != "train.jsonl" else -1)

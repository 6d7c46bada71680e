"""Metric files, progress and step clock."""

import io
import json
import logging
import math
import sys

import pytest

from asjax.store import log


def steps(path):
    return [row["step"] for row in log.read_jsonl(path)]


def test_rows_come_back_as_written(tmp_path):
    with log.Writer(tmp_path, tensorboard=False) as writer:
        writer.write_scalars(1, {"loss": 0.5, "lr": 1e-3})
        writer.write_scalars(2, {"eval/d_prime": math.nan, "grad_norm": math.inf})
    first, second = log.read_jsonl(tmp_path / "train.jsonl")
    assert first == {"step": 1, "loss": 0.5, "lr": 1e-3}
    assert math.isnan(second["eval/d_prime"])
    for line in (tmp_path / "train.jsonl").read_text().splitlines():  # strict JSON: no NaN token
        json.loads(line, parse_constant=lambda name: pytest.fail(name))
    assert log.read_jsonl(tmp_path / "none.jsonl") == []


def test_rows_are_on_disk_before_the_run_ends(tmp_path):
    writer = log.Writer(tmp_path, tensorboard=False)
    writer.write_scalars(1, {"loss": 1.0})
    assert steps(tmp_path / "train.jsonl") == [1]
    writer.close()


def test_a_resumed_run_shows_no_step_twice(tmp_path):
    path = tmp_path / "train.jsonl"
    with log.Writer(tmp_path, tensorboard=False) as writer:
        for step in range(1, 6):
            writer.write_scalars(step, {"loss": step})
    with path.open("a") as file:
        file.write('{"step": 6, "lo')  # killed within a line
    assert steps(path) == [1, 2, 3, 4, 5]
    with log.Writer(tmp_path, start_step=3, tensorboard=False) as writer:
        assert steps(path) == [1, 2, 3]
        writer.write_scalars(4, {"loss": 40})
    assert [(r["step"], r["loss"]) for r in log.read_jsonl(path)] == [
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 40),
    ]
    with log.Writer(tmp_path, tensorboard=False):
        assert steps(path) == []  # a fresh start drops all


def test_a_log_that_cannot_be_written_is_said_once_and_does_not_end_the_run(tmp_path, caplog):
    writer = log.JsonlWriter(tmp_path / "x.jsonl")

    class Full:
        closed = False

        def write(self, text):
            raise OSError(28, "No space left on device")

        flush = close = lambda self: None

    writer._file = Full()
    with caplog.at_level(logging.ERROR, "asjax"):
        writer.write_scalars(1, {"loss": 1})
        writer.write_scalars(2, {"loss": 1})
        writer.close()
    assert caplog.text.count("No space left on device") == 1


def test_without_tensorboardx_nothing_is_said_unless_asked(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with caplog.at_level(logging.INFO, "asjax"):
        log.Writer(tmp_path).close()
        assert caplog.text == ""
        log.Writer(tmp_path, tensorboard=True).close()
    assert caplog.text.count("pip install") == 1


def test_tensorboard_files_hold_the_scalars(tmp_path):
    pytest.importorskip("tensorboardX")
    with log.Writer(tmp_path, tensorboard=True) as writer:
        writer.write_scalars(3, {"loss": 0.25})
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in events.read_bytes()


def test_an_inactive_writer_writes_nothing(tmp_path):
    with log.Writer(tmp_path, active=False) as writer:
        writer.write_scalars(1, {"loss": 1})
        writer.flush()
    assert not list(tmp_path.iterdir())


class Time:
    def __init__(self):
        self.t = 100.0

    def __call__(self):
        return self.t


def test_the_step_clock_measures_rate_and_share_of_waiting():
    now = Time()
    clock = log.StepClock(batch_size=8, now=now)
    assert clock.rates() == {}
    for i in range(4):
        now.t += 0.5
        clock.tick(waited_s=0.1 * (i + 1))
    assert clock.rates() == pytest.approx({"step_s": 0.5, "clips_per_s": 16, "data_wait": 0.2})
    clock.reset()
    now.t += 1
    clock.tick(waited_s=0.9)  # half a second more than at the reset
    assert clock.rates() == pytest.approx({"step_s": 1, "clips_per_s": 8, "data_wait": 0.5})


def test_off_a_terminal_a_line_appears_every_so_often():
    now, stream = Time(), io.StringIO()
    with log.Progress(100, 40, batch_size=4, every_s=10, stream=stream, now=now) as progress:
        for step in range(41, 61):
            now.t += 1
            progress.update(step, loss=1 / step, waited_s=(step - 40) * 0.25)
        progress.update(60, loss=9)  # reported twice, counted once
        assert progress.rates() == pytest.approx({"step_s": 1, "clips_per_s": 4, "data_wait": 0.25})
        assert progress.rates() == {}
        progress.note(d_prime=2.125)
    lines = stream.getvalue().splitlines()
    assert lines[:2] == [
        "step 50/100: loss 0.02, 4 clips/s, data 25%, 0:50 left",
        "step 60/100: loss 0.01667, 4 clips/s, data 25%, 0:40 left",
    ]
    assert lines[2].startswith("step 60/100: loss 0.01667, d_prime 2.125")
    assert len(lines) == 3


def test_on_a_terminal_there_is_one_bar_with_the_same_numbers():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    now, stream = Time(), Terminal()
    with log.Progress(10, batch_size=4, stream=stream, now=now) as progress:
        for step in range(1, 11):
            now.t += 1
            progress.update(step, loss=0.5, waited_s=0.0)
        progress.note(mean_ap=0.75)
    text = stream.getvalue()
    assert "10/10" in text
    assert "loss 0.5, mean_ap 0.75, 4 clips/s, data 0%" in text


def test_an_inactive_progress_prints_nothing():
    stream = io.StringIO()
    with log.Progress(3, every_s=0, stream=stream, active=False) as progress:
        progress.update(1, loss=1.0)
        progress.note(mean_ap=1.0)
    assert stream.getvalue() == ""


def test_times_read_as_people_write_them():
    assert [log._clock(s) for s in (-1, 0, 59.6, 61, 3599, 36_061)] == [
        "0:00", "0:00", "1:00", "1:01", "59:59", "10:01:01",
    ]  # fmt: skip

"""The pipeline gives the same numbers for any threads, workers, cache, processes and restarts."""

import hashlib
import io
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass

import numpy as np
import pytest
import soundfile
from scipy import sparse

from asjax import build
from asjax.config import AsjaxError
from asjax.data import pipeline
from asjax.labels import LabelSet

RATE, CLIP_S, CLASSES = 1000, 0.2, 4


@dataclass
class Memory:
    """A source in memory: clip i is a float WAV with a ramp from i; `broken` clips are garbage."""

    lengths: list
    broken: frozenset = frozenset()

    def __post_init__(self):
        self.ids = [f"clip{i}" for i in range(len(self.lengths))]
        rows = [[i % CLASSES] if i % 5 else [0, 3] for i in range(len(self.lengths))]
        self.dense = np.zeros((len(rows), CLASSES), np.int8)
        for i, row in enumerate(rows):
            self.dense[i, row] = 1
        self.labels = sparse.csr_matrix(self.dense)
        self.hash = hashlib.sha256(repr(self.lengths).encode()).hexdigest()
        self.reads = 0

    def __len__(self):
        return len(self.lengths)

    def wave(self, i):
        return (i + np.arange(self.lengths[i]) / 1024).astype(np.float32)

    def __getitem__(self, i):
        self.reads += 1
        file = io.BytesIO()
        soundfile.write(file, self.wave(i), RATE, format="WAV", subtype="FLOAT")
        audio = b"RIFFgarbage" if i in self.broken else file.getvalue()
        return {"id": self.ids[i], "audio": audio, "labels": np.flatnonzero(self.dense[i])}


def test_classes_that_no_training_clip_has_are_said(recwarn):
    train, final = memory(2), memory(4)  # classes 0 and 3, 1; and those of clips 2 and 3
    names = LabelSet("own", tuple("abcd"), tuple("ABCD"))
    pipeline.say_untrained(names, train, train, final)
    assert [str(w.message) for w in recwarn] == [
        "no training clip has the classes C, but clips of the evaluation have; a model cannot "
        "learn them"
    ]
    recwarn.clear()
    pipeline.say_untrained(names, final, train)
    assert not recwarn.list


def memory(n=23, **kwargs):
    return Memory([50 + 37 * i % 700 for i in range(n)], **kwargs)


def piped(source, **kwargs):
    fields = {"batch_size": 8, "sample_rate": RATE, "clip_s": CLIP_S, "num_classes": CLASSES}
    return build.pipeline(source, **{**fields, "seed": 3, **kwargs})


def take(pipe, n, start=0):
    with pipe.iterate(start) as batches:
        return [next(batches) for _ in range(n)]


def same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for key in x:
            if isinstance(x[key], np.ndarray):
                assert x[key].dtype == y[key].dtype
                assert np.array_equal(x[key], y[key]), key
            else:
                assert x[key] == y[key], key


# ------------------------------------------------------------------------------------- content


def test_a_training_batch_is_the_drawn_clips_cropped_and_padded():
    source = memory()
    pipe = piped(source, draw="oversample(beta=1.0)")
    order = build.make("draw", "oversample(beta=1.0)", labels=source.labels, seed=3)
    for step, batch in enumerate(take(pipe, 4)):
        assert batch["wave"].shape == (8, 200)
        assert batch["wave"].dtype == batch["target"].dtype == batch["mask"].dtype == np.float32
        assert batch["mask"].tolist() == [1.0] * 8
        assert batch["bad"] == []
        for j in range(8):
            i = order(8 * step + j)
            assert batch["id"][j] == f"clip{i}"
            assert np.array_equal(batch["target"][j], source.dense[i])
            length, wave = min(200, source.lengths[i]), batch["wave"][j]
            start = round(float(wave[0] - i) * 1024)
            assert np.array_equal(wave[:length], source.wave(i)[start : start + length])
            assert not wave[length:].any()


def test_crops_of_one_clip_differ_from_epoch_to_epoch():
    pipe = piped(Memory([700]), batch_size=1, cache=True)
    firsts = {float(b["wave"][0, 0]) for b in take(pipe, 30)}
    assert len(firsts) > 20


def test_an_evaluation_is_one_pass_in_order_and_pads_its_last_batch():
    source = memory(21)
    pipe = piped(source, train=False)
    with pipe.iterate() as batches:
        found = list(batches)
    assert len(found) == pipe.steps_per_epoch == 3
    ids = [i for b in found for i in b["id"]]
    assert ids == [*source.ids, "", "", ""]
    assert np.concatenate([b["mask"] for b in found]).tolist() == [1] * 21 + [0] * 3
    last = found[-1]
    assert not last["wave"][5:].any()
    assert not last["target"][5:].any()
    waves = np.concatenate([b["wave"] for b in found])
    for i in range(21):
        length = min(200, source.lengths[i])
        assert np.array_equal(waves[i, :length], source.wave(i)[:length])


def test_epoch_lengths_count_draws():
    source = memory(23)
    assert piped(source).draws_per_epoch == 23
    assert piped(source).steps_per_epoch == 3
    assert piped(source, draw="expected(draws=64)").steps_per_epoch == 8


# --------------------------------------------------------------------------------- invariance


def test_threads_and_cache_change_nothing_and_the_cache_reads_each_clip_once():
    source = memory()
    plain = take(piped(source, threads=0, cache=False), 12)
    assert source.reads == 96
    source.reads = 0
    same(plain, take(piped(source, threads=1), 12))
    assert source.reads == 23
    same(plain, take(piped(source, threads=3), 12))
    # A cache of 2,000 bytes has room for a few clips; the others are read each time.
    source.reads = 0
    same(plain, take(piped(source, threads=0, cache=2000), 12))
    assert 23 < source.reads < 96


def test_a_cache_is_shared_out_by_clips_and_never_more_than_a_gigabyte_in_all():
    assert pipeline.cache_shares(True, (300, 100)) == [3 << 28, 1 << 28]
    assert pipeline.cache_shares(False, (300, 100)) == [0, 0]
    assert sum(pipeline.cache_shares(1000, (7, 11, 13))) <= 1000


def test_workers_change_nothing_even_from_the_middle_and_with_bad_clips():
    source = memory(broken=frozenset({2, 11}))
    for train in (True, False):
        options = {"train": train, "max_bad": 0.5}
        plain = take(piped(source, **options), 3)
        assert sum(len(b["bad"]) for b in plain)
        for workers in (1, 2) if train else (1,):
            same(plain[1:], take(piped(source, workers=workers, **options), 2, start=1))


def test_two_processes_share_the_rows_of_the_single_process_batch():
    source = memory(broken=frozenset({2}))
    for train in (True, False):
        options = {"train": train, "max_bad": 0.5}
        whole = take(piped(source, **options), 3)
        parts = [
            take(piped(source, process_index=p, process_count=2, **options), 3) for p in (0, 1)
        ]
        for step, batch in enumerate(whole):
            for key in ("wave", "target", "mask"):
                assert np.array_equal(np.concatenate([p[step][key] for p in parts]), batch[key])
            for key in ("id", "bad"):
                assert parts[0][step][key] + parts[1][step][key] == batch[key]


@pytest.mark.parametrize("spec", ["shuffle", "class_queue", "weighted(replacement=False)"])
def test_resuming_at_any_step_continues_the_uninterrupted_run(spec):
    pipe = piped(memory(), draw=spec)
    whole = take(pipe, 9)
    for start in (1, 3, 8):
        same(whole[start:], take(piped(memory(), draw=spec), 9 - start, start))


def test_the_fingerprint_knows_what_changes_numbers_and_only_that():
    source = memory()
    base = piped(source).fingerprint
    for same_numbers in ({"workers": 2}, {"threads": 0}, {"cache": False}, {"process_count": 2}):
        assert piped(source, **same_numbers).fingerprint == base
    changes = (
        {"seed": 4},
        {"draw": "class_queue"},
        {"batch_size": 4},
        {"clip_s": 0.1},
        {"sample_rate": 2000},
        {"train": False},
        {"num_classes": 5},
    )
    found = {piped(source, **change).fingerprint for change in changes}
    assert len(found | {base, piped(memory(22)).fingerprint}) == len(changes) + 2


def test_an_undecodable_training_clip_gives_way_to_another_and_is_reported():
    broken = frozenset({2, 5, 11})
    source = memory(broken=broken)
    whole, sound = take(piped(source), 6), take(piped(memory()), 6)
    order = build.make("draw", "shuffle", labels=source.labels, seed=3)
    reported = 0
    for step, (batch, without) in enumerate(zip(whole, sound, strict=True)):
        assert batch["mask"].all()
        for j in range(8):
            i = order(8 * step + j)
            if i not in broken:
                assert batch["id"][j] == f"clip{i}"
                assert np.array_equal(batch["wave"][j], without["wave"][j])
            else:
                k = int(batch["id"][j].removeprefix("clip"))
                assert k not in broken
                assert np.array_equal(batch["target"][j], source.dense[k])
                reported += 1
        for clip, reason in batch["bad"]:
            assert int(clip.removeprefix("clip")) in broken
            assert clip in reason
    assert sum(len(b["bad"]) for b in whole) >= reported > 3


def test_an_undecodable_evaluation_clip_is_masked_and_reported():
    pipe = piped(memory(21, broken=frozenset({4})), train=False)
    with pipe.iterate() as batches:
        first = next(batches)
    assert first["mask"].tolist() == [1, 1, 1, 1, 0, 1, 1, 1]
    assert not first["wave"][4].any()
    assert first["id"][4] == "clip4"
    assert [clip for clip, _ in first["bad"]] == ["clip4"]


def test_too_many_bad_clips_stop_an_evaluation_and_a_hopeless_training():
    source = memory(21, broken=frozenset(range(10)))
    with pytest.raises(AsjaxError, match="evaluation set cannot be decoded, more than max_bad"):
        take(piped(source, train=False), 1)
    hopeless = memory(3, broken=frozenset(range(3)))
    with pytest.raises(AsjaxError, match="100 clips in a row could not be decoded"):
        take(piped(hopeless), 1)
    with pytest.raises(AsjaxError, match="100 clips in a row could not be decoded"):
        take(piped(hopeless, workers=1), 1)


# --------------------------------------------------------------------------- errors, processes


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 7, "process_count": 2}, "batch_size must be a multiple of the 2 processes"),
        ({"process_index": 1}, "process_index must be below 1"),
        ({"clip_s": 0.0}, "clip_s"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"max_bad": 2.0}, "max_bad must be 0 to 1"),
        ({"draw": "shuffel"}, "did you mean 'shuffle'"),
    ],
)
def test_unusable_settings_are_named(change, says):
    with pytest.raises(AsjaxError, match=says):
        piped(memory(), **change)


def test_an_empty_source_and_a_negative_step_are_refused():
    with pytest.raises(AsjaxError, match="at least one clip"):
        piped(Memory([]))
    with pytest.raises(AsjaxError, match="start_step"):
        piped(memory()).iterate(-1)


def children():
    return sorted(child.pid for child in multiprocessing.active_children())


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks files up in /proc")
def test_the_workers_of_an_evaluation_stay_for_its_next_pass_and_leave_nothing_behind():
    """Later passes start no new process; a pass that is closed early ends the processes."""
    source = memory(21, broken=frozenset({4}))
    fields = {"train": False}
    plain = take(piped(source, **fields), 3)
    with piped(source, workers=2, **fields) as pipe:
        with pipe.iterate() as batches:
            same(plain, list(batches))
        workers, files = children(), len(os.listdir("/proc/self/fd"))
        assert len(workers) == 2
        for _ in range(2):
            start = time.perf_counter()
            with pipe.iterate() as batches:
                first = next(batches)
                waited_s = time.perf_counter() - start
                same(plain, [first, *batches])
            assert waited_s < 1
            assert children() == workers
        with pipe.iterate() as batches:  # up to the last batch, but not to the end of the iterator
            same(plain, [next(batches) for _ in range(3)])
        assert children() == workers
        with pipe.iterate(7) as batches:  # there is no such step
            assert list(batches) == []
        with pipe.iterate() as batches:  # closed early
            same(plain[:1], [next(batches)])
        assert not children()
        with pipe.iterate() as batches:
            same(plain, list(batches))
        assert len(children()) == 2
        assert len(os.listdir("/proc/self/fd")) == files
    assert not children()
    assert len(os.listdir("/proc/self/fd")) < files


def test_a_program_with_workers_ends_silently_even_if_it_forgets_to_close(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            from test_pipeline import memory, piped

            if __name__ == "__main__":
                batches = piped(memory(), workers=2).iterate()
                kept = [next(batches)["wave"] for _ in range(3)]
                forgotten = piped(memory(), workers=0).iterate()
                next(forgotten)
                print(sum(w.shape[0] for w in kept))
            """
        )
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, program], env=env, capture_output=True, text=True, timeout=600
    )
    assert run.stdout == "24\n"
    assert run.stderr == ""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks processes up in /proc")
def test_workers_end_when_the_program_is_killed(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import multiprocessing, os, signal
            from test_pipeline import memory, piped

            if __name__ == "__main__":
                batches = piped(memory(), workers=1).iterate()
                next(batches)
                print(multiprocessing.active_children()[0].pid, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            """
        )
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    options = {"env": env, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    run = subprocess.run([sys.executable, program], timeout=600, **options)
    assert run.returncode == -signal.SIGKILL
    status = pathlib.Path(f"/proc/{int(run.stdout)}/status")
    for _ in range(100):
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.1)
    os.kill(int(run.stdout), signal.SIGKILL)
    pytest.fail("the worker lived on")

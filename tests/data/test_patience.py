"""A read that never ends is cancelled: the clip is an error, and the work continues."""

import gc
import os
import threading
import time
import weakref

import numpy as np
import pytest
import sounds
from scipy import sparse

from asjax import build
from asjax.config import AsjaxError
from asjax.data import audio, ops, patience, recordings
from asjax.data.audio import AudioError


class Stalled:
    """A sound file whose reads block after `good` bytes until `release` is called."""

    def __init__(self, data, good):
        self.data, self.good, self.at = data, good, 0
        self.gate = threading.Event()

    def read(self, count=-1):
        stop = len(self.data) if count < 0 else min(len(self.data), self.at + count)
        if stop > self.good:
            self.gate.wait(120)
        piece, self.at = self.data[self.at : stop], stop
        return piece

    def readinto(self, buffer):
        piece = self.read(len(buffer))
        memoryview(buffer)[: len(piece)] = piece
        return len(piece)

    def seek(self, offset, whence=0):
        self.at = {0: 0, 1: self.at, 2: len(self.data)}[whence] + offset
        return self.at

    def tell(self):
        return self.at


@pytest.fixture
def stalled():
    made = []

    def make(good):
        made.append(Stalled(sounds.encode(sounds.tone(30, rate=8000), 8000), good))
        return made[-1]

    yield make
    for file in made:
        file.gate.set()


def wait_for(condition):
    limit = time.monotonic() + 60
    while not condition() and time.monotonic() < limit:
        time.sleep(0.01)
    assert condition()


def test_values_and_errors_come_through():
    assert patience.call(lambda: 7, 60, "x") == 7
    with pytest.raises(KeyError, match="lost"):
        patience.call(lambda: {}["lost"], 60, "x")
    for limit in (0, -1, float("nan")):
        with pytest.raises(AsjaxError, match="more than 0"):
            patience.call(lambda: 7, limit, "x")


def test_an_error_does_not_keep_its_clip_in_memory():
    """A cycle of the error and a frame would keep it until the next garbage collection."""
    kept = []

    def work():
        clip = np.zeros(1000)
        kept.append(weakref.ref(clip))
        raise AudioError("damaged")

    patience.call(int, 60, "x")
    gc.disable()
    try:
        for _ in range(20):
            with pytest.raises(AudioError, match="damaged"):
                patience.call(work, 60, "x")
        wait_for(lambda: sum(ref() is not None for ref in kept) <= 1)
    finally:
        gc.enable()


def test_calls_share_few_threads():
    patience.call(int, 60, "x")
    before = threading.active_count()
    for _ in range(100):
        patience.call(int, 60, "x")
    assert threading.active_count() <= before


def test_a_call_that_hangs_is_given_up_and_its_thread_ends_when_it_can():
    gate = threading.Event()
    threads = threading.active_count()
    begin = time.monotonic()
    with pytest.raises(AudioError, match=r"clip 7 could not be read within 0.2 s"):
        patience.call(lambda: gate.wait(60), 0.2, "clip 7")
    assert time.monotonic() - begin < 30
    assert len(patience._stalled) == 1
    assert patience.call(lambda: 8, 60, "x") == 8
    gate.set()
    wait_for(lambda: not patience._stalled and threading.active_count() <= threads + 1)


def test_too_many_that_hang_end_the_run(monkeypatch):
    monkeypatch.setattr(patience, "MOST_STALLED", 3)
    gate = threading.Event()
    for n in range(3):
        with pytest.raises(AudioError, match="within"):
            patience.call(lambda: gate.wait(60), 0.05, f"clip {n}")
    with pytest.raises(AsjaxError, match="3 reads of audio hang") as caught:
        patience.call(lambda: 1, 60, "clip 3")
    assert not isinstance(caught.value, AudioError)  # not the fault of a clip, so no quarantine
    gate.set()
    wait_for(lambda: not patience._stalled)
    assert patience.call(lambda: 9, 60, "x") == 9


def test_a_wait_ends_soon_after_its_batch_is_not_needed_any_more():
    stop, gate = threading.Event(), threading.Event()
    with patience.until(stop):
        assert patience.call(lambda: 5, 60, "x") == 5
        threading.Timer(0.3, stop.set).start()
        begin = time.monotonic()
        with pytest.raises(patience.Stopped):
            patience.call(lambda: gate.wait(60), 60, "clip 9")
        assert 0.2 < time.monotonic() - begin < 20
        with pytest.raises(patience.Stopped):
            patience.call(lambda: 6, 60, "x")
    assert patience.call(lambda: 7, 60, "x") == 7
    gate.set()
    wait_for(lambda: not patience._stalled)


@pytest.mark.parametrize("good", [0, 100_000])
def test_decode_gives_a_stalled_file_up(stalled, good):
    example = {"id": "far.wav", "audio": stalled(good), "labels": [0]}
    chain = dict(sample_rate=8000, clip_s=1.0, train=True, decode_timeout_s=0.3)
    with pytest.raises(AudioError, match=r"far\.wav could not be read within 0\.3 s"):
        ops.decode(example, np.random.default_rng(0), **chain)


class Clips:
    """Ten clips, of which clip 3 stalls."""

    def __init__(self, stalled):
        self.ids = [f"clip{i}" for i in range(10)]
        self.labels = sparse.csr_matrix(np.eye(10, dtype=np.int8))
        self.hash, self.stalled = "0" * 64, stalled

    def __len__(self):
        return 10

    def __getitem__(self, i):
        audio = self.stalled if i == 3 else sounds.encode(sounds.tone(0.1, rate=8000), 8000)
        return {"id": self.ids[i], "audio": audio, "labels": np.array([i])}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("train", [True, False])
def test_a_run_goes_on_without_a_stalled_clip(stalled, threads, train):
    pipe = build.pipeline(
        Clips(stalled(1000)), num_classes=10, batch_size=5, sample_rate=8000, clip_s=0.1,
        train=train, threads=threads, decode_timeout_s=0.3, max_bad=0.2,
    )  # fmt: skip
    with pipe.iterate() as batches:
        seen = [next(batches) for _ in range(2)]
    bad = [pair for batch in seen for pair in batch["bad"]]
    assert bad
    assert {clip for clip, _ in bad} == {"clip3"}
    assert "could not be read within 0.3 s" in bad[0][1]
    assert sum(float(batch["mask"].sum()) for batch in seen) == (10 if train else 9)


def test_the_limit_is_no_part_of_what_the_data_are(stalled):
    source = Clips(stalled(1000))
    options = dict(num_classes=10, batch_size=5, sample_rate=8000, clip_s=0.1)
    prints = {build.pipeline(source, **options, decode_timeout_s=s).fingerprint for s in (1.0, 60)}
    assert len(prints) == 1


def test_windows_of_a_stalled_file_end_in_an_error(stalled, monkeypatch):
    monkeypatch.setattr(recordings, "STALL_S", 0.5)
    windows = recordings.windows(stalled(100_000), 8000, 800, name="far.wav")
    with pytest.raises(AudioError, match="could not be read within"):
        list(windows)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_fifo_is_called_a_fifo_and_nobody_waits_for_it(tmp_path):
    path = tmp_path / "pipe.wav"
    os.mkfifo(path)
    for use in (
        lambda: audio.read(path, 8000),
        lambda: audio.info(path),
        lambda: list(audio.blocks(path, 8000, 1.0)),
        lambda: list(recordings.windows(path, 8000, 800, name=str(path))),
    ):
        with pytest.raises(AudioError, match=r"pipe\.wav must be an audio file, got a FIFO"):
            use()


def test_a_fork_starts_with_no_threads():
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    patience.call(int, 60, "x")
    assert patience._idle
    patience._forget()
    assert not patience._idle
    assert patience.call(lambda: 3, 60, "x") == 3

"""`asjax listen`: pipes of every kind, a false microphone, and one line for every mistake."""

import contextlib
import json
import os
import struct
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
import small_detector
import small_tagger

from asjax import __main__ as verbs
from asjax import predict
from asjax.stream import pcm, sources

RATE = 1000
TAGGER = small_tagger.tagger(clip_s=4.0, batch_size=16)
DETECTOR = small_detector.tagger(edge=0.0)
RNG = np.random.default_rng(5)


def noise(seconds, rate=RATE):
    n = round(seconds * rate)
    levels = np.repeat(RNG.choice([0.05, 0.15, 0.3, 0.6, 0.9], n // 130 + 1), 130)[:n]
    return (levels * RNG.choice([-1, 1], n)).astype(np.float32)


WAVE = np.round(noise(3.2) * 32767).astype("<i2")


def wav(wave, rate=RATE, size=None, bits=16, tag=1, extra=b""):
    """A WAV of samples [n] or [n, channels]; `size` in its header in place of the true one."""
    data, channels = wave.tobytes(), 1 if wave.ndim == 1 else wave.shape[1]
    step = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * step, step, bits)
    size = len(data) if size is None else size
    chunks = b"fmt " + struct.pack("<I", 16) + fmt + extra + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + chunks + data


@pytest.fixture(name="listen")
def listen_fixture(monkeypatch, capfd, tmp_path):
    """listen(bytes, *options) -> (exit code, objects on stdout, stderr) from a real pipe."""

    def listen(data, *options, tagger=TAGGER, chunk=1 << 16, pause=0.0, file=False):
        monkeypatch.setattr(predict, "load", lambda path, **kw: tagger)
        if file:
            path = tmp_path / "input"
            path.write_bytes(data)
            out = os.open(path, os.O_RDONLY)
        else:
            out, into = os.pipe()

        def feed():
            # the reader may have left, as after a mistake
            with contextlib.suppress(BrokenPipeError), open(into, "wb", buffering=0) as f:
                for i in range(0, len(data), chunk):
                    f.write(data[i : i + chunk])
                    time.sleep(pause)

        if not file:
            thread = threading.Thread(target=feed, daemon=True)
            thread.start()
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(fileno=lambda: out))
        try:
            code = verbs.main(["listen", "--model=x", *options])
        finally:
            os.close(out)
        said = capfd.readouterr()
        return code, [json.loads(line) for line in said.out.splitlines()], said.err

    return listen


RAW = ("--format=s16le", f"--rate={RATE}", "--window=1", "--hop=0.25", "--all")
WAVED = ("--window=1", "--hop=0.25", "--all")


def wanted(wave=WAVE):
    """(times, top 2) of the windows, by the tagger on the slices."""
    whole = TAGGER.windowed(1.0, overlap=0.75)((wave.astype(np.float32) / 32768, RATE))
    names = np.array(whole.labels)
    tops = [[(names[i], p[i]) for i in np.argsort(-p, kind="stable")[:2]] for p in whole.windows]
    return whole.times, tops


def check(lines, wave=WAVE):
    times, tops = wanted(wave)
    np.testing.assert_allclose([[line["t0"], line["t1"]] for line in lines], times, atol=1e-6)
    for line, top in zip(lines, tops, strict=True):
        for (label, p), (name, q) in zip(line["top"][:2], top, strict=True):
            assert p == pytest.approx(q, abs=1e-5)
            assert label == name or abs(top[0][1] - top[1][1]) < 1e-6


@pytest.mark.parametrize("chunk", [3, 320, 1 << 16])
def test_raw_pcm_gives_the_windows_of_the_recording(listen, chunk):
    code, lines, err = listen(WAVE.tobytes(), *RAW, chunk=chunk)
    assert code == 0
    check(lines)
    assert len(err.splitlines()) == 1
    assert "s16le, 1000 Hz, 1 channel" in err


@pytest.mark.parametrize("size", [None, 0xFFFFFFFF, 0x7FFFFFFF, 0])
def test_a_wav_of_unknown_length_is_heard_to_its_end(listen, size):
    code, lines, err = listen(wav(WAVE, size=size), *WAVED, chunk=7)
    assert code == 0
    assert len(err.splitlines()) == 1
    check(lines)


def test_chunks_after_the_data_of_a_wav_are_no_sound(listen):
    extra = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    code, lines, _ = listen(wav(WAVE, extra=extra) + b"LIST" + b"\xff" * 100, *WAVED)
    assert code == 0
    check(lines)


@pytest.mark.parametrize(
    ("bits", "tag", "form"),
    [
        (24, 1, lambda x: (x.astype("<i4") * 256).view(np.uint8).reshape(-1, 4)[:, :3]),
        (32, 1, lambda x: x.astype("<i4") * 65536),
        (32, 3, lambda x: x.astype("<f4") / 32768),
        (64, 3, lambda x: x.astype("<f8") / 32768),
    ],
)
def test_every_kind_of_samples_is_the_same_sound(listen, bits, tag, form):
    samples = np.ascontiguousarray(form(WAVE))
    data = wav(samples.reshape(-1).view(np.uint8), bits=bits, tag=tag, size=samples.nbytes)
    code, lines, _ = listen(data, *WAVED)
    assert code == 0
    check(lines)


def test_channels_are_averaged(listen):
    other = np.round(noise(3.2) * 32767).astype("<i2")
    both = np.stack([WAVE, other], axis=1)
    mono = (WAVE / 65536 + other / 65536) * 32768
    code, lines, _ = listen(both.tobytes(), *RAW, "--channels=2")
    assert code == 0
    check(lines, mono)
    code, lines, _ = listen(wav(both), *WAVED)
    check(lines, mono)


def test_a_file_as_standard_input_is_heard_whole(listen):
    code, lines, _ = listen(wav(WAVE), "--window=1", "--hop=0.25", file=True)
    assert code == 0
    check(lines)


def test_a_pipe_does_not_wait_and_skipped_windows_are_counted(listen):
    code, lines, err = listen(WAVE.tobytes(), *RAW[:-1], chunk=1 << 20)
    assert code == 0
    assert lines[-1]["t1"] == pytest.approx(3.2)
    missing = len(wanted()[0]) - len(lines)
    assert missing > 0
    assert f"{missing} windows skipped in 3.2 s" in err


def test_events_come_as_onsets_and_events(listen):
    wave = np.round(small_detector.sounds(6, (1.0, 2.0, 0.5), (3.5, 5.1, 0.3)) * 32767)
    options = ("--events", "--median=0", f"--rate={RATE}", "--all")
    code, lines, _ = listen(wave.astype("<i2").tobytes(), *options, tagger=DETECTOR, chunk=160)
    assert code == 0
    rain = [line for line in lines if line["label"] == "Rain"]
    assert [("offset" in line, line["onset"]) for line in rain] == [
        (False, 1.0), (True, 1.0), (False, 3.5), (True, 3.5),
    ]  # fmt: skip
    assert [line["offset"] for line in rain if "offset" in line] == [2.0, pytest.approx(5.1)]
    code, lines, _ = listen(
        wave.astype("<i2").tobytes(), *options, "--classes=Dog", tagger=DETECTOR
    )
    assert {line["label"] for line in lines} == {"Dog"}
    assert len(lines) == 2


def test_odd_bytes_are_said(listen):
    code, lines, err = listen(WAVE.tobytes() + b"\x01", *RAW)
    assert code == 0
    assert "1 byte left out at the end: no whole sample of" in err
    check(lines)


def test_a_wav_that_ends_early_is_said(listen):
    code, lines, err = listen(wav(WAVE, size=2 * WAVE.nbytes), *WAVED)
    assert code == 0
    assert "50% of what its header says is missing" in err
    check(lines)


def test_nan_is_said(listen):
    wave = WAVE.astype("<f4") / 32768
    wave[5] = np.nan
    code, _, err = listen(wave.tobytes(), *RAW[1:], "--format=f32le")
    assert code == 0
    assert err.count("NaN") == 2
    assert "1 value NaN" in err


def test_the_threshold_leaves_out_tags(listen):
    _, lines, _ = listen(WAVE.tobytes(), *RAW, "--threshold=0.5", "--top=3")
    assert all(p >= 0.5 for line in lines for _, p in line["top"])
    assert max(len(line["top"]) for line in lines) <= 3


@pytest.mark.parametrize(
    ("data", "options", "text"),
    [
        (b"", (), "no sound came from standard input"),
        (b"fLaC" + bytes(50), (), "standard input is FLAC"),
        (b"OggS" + bytes(50), (), "standard input is Ogg"),
        (b"\0\0\0\x20ftypM4A " + bytes(50), (), "standard input is MP4"),
        (b"RIFF\0\0\0\0AVI " + bytes(50), (), "is no WAV"),
        (wav(WAVE)[:30], (), "ended within the header"),
        (wav(WAVE, bits=12), (), "kind 1 with 12 bits"),
        (wav(WAVE, tag=2), (), "kind 2 with 16 bits"),
        (wav(WAVE), ("--rate=8000",), "WAV of s16le, 1000 Hz, 1 channel, but --rate says 8000"),
        (wav(WAVE), ("--channels=2",), "--channels says 2"),
        (wav(WAVE, rate=0), (), "the WAV header's rate: its rate must be 100"),
        (WAVE.tobytes(), ("--rate=0",), "--rate: its rate must be 100"),
        (WAVE.tobytes(), ("--channels=99",), "--channels must be 1 to 64"),
        (WAVE.tobytes(), ("--channels=0",), "--channels must be 1 to 64"),
        (WAVE.tobytes(), ("--window=0.2",), "window_s must be 1"),
        (WAVE.tobytes(), ("--hop=9",), "hop_s must be"),
        (WAVE.tobytes(), ("--events",), "frames"),
        (WAVE.tobytes(), ("--median=1",), "--median is for --events"),
        (WAVE.tobytes(), ("--top=0",), "--top must be 1"),
        (WAVE.tobytes(), ("--threshold=2",), "--threshold must be a probability"),
        (WAVE.tobytes(), ("song.wav",), "asjax listen < song.wav"),
    ],
)
def test_a_mistake_is_one_line(listen, data, options, text):
    code, lines, err = listen(data, *options)
    assert (code, lines) == (2, [])
    assert text in err
    assert len(err.splitlines()) == 1
    assert err.startswith("asjax listen: error: ")


def test_closed_standard_input_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert verbs.main(["listen", "--model=x"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "standard input is closed" in line


def test_a_header_in_single_bytes_is_read():
    header, data = pcm.Wav(), wav(WAVE[:10], extra=b"JUNK" + struct.pack("<I", 5) + b"abcde\0")
    for i in range(len(data)):
        if header.pcm is None:
            header.feed(data[i : i + 1])
            rest = data[i + 1 :]
    assert rest == WAVE[:10].tobytes()
    assert str(header.pcm) == "s16le, 1000 Hz, 1 channel"


# ---------------------------------------------------------------------------------- a microphone


class PortAudioError(Exception):
    pass


class Device:
    """A false input device: two seconds of sound, then Ctrl-C as a user would end it."""

    samplerate = 1000.0

    def __init__(self, device, samplerate, channels, dtype, callback):
        if device == "nobody":
            raise PortAudioError("Error querying device -1")
        assert (samplerate, channels, dtype) == (None, 1, "float32")
        self._callback = callback

    def start(self):
        for i in range(0, 2000, 100):
            self._callback(WAVE[i : i + 100, None].astype(np.float32) / 32768, 100, None, 0)


def test_a_microphone_is_heard_until_ctrl_c(listen, monkeypatch):
    module = types.SimpleNamespace(InputStream=Device, PortAudioError=PortAudioError)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    read = sources.Microphone.read

    def once(self):
        if self._waiting.empty():
            raise KeyboardInterrupt
        return read(self)

    monkeypatch.setattr(sources.Microphone, "read", once)
    code, lines, err = listen(b"", *WAVED, "--device=default")
    assert code == 130
    assert err.splitlines()[-1] == "asjax listen: interrupted"
    check(lines, WAVE[:2000])
    code, lines, err = listen(b"", *WAVED, "--device=nobody")
    assert code == 2
    assert "--device nobody cannot be opened" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("raise OSError('PortAudio library not found')", "apt install libportaudio2"),
        ("raise ImportError", 'pip install "asjax[mic]"'),
    ],
)
def test_a_missing_library_is_one_line(listen, monkeypatch, tmp_path, source, text):
    (tmp_path / "sounddevice.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    code, _, err = listen(b"", "--device=default")
    assert code == 2
    assert text in err
    assert "arecord" in err
    assert len(err.splitlines()) == 1


# ------------------------------------------------------------------------------- as a program

PROGRAM = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import small_tagger
from asjax import __main__, predict
tagger = small_tagger.tagger(clip_s=4.0)
predict.load = lambda path, **kw: tagger
sys.exit(__main__.main(["listen", "--model=x", "--rate=1000", *sys.argv[1:]]))
"""


def program(*options):
    here = Path(__file__).parent.parent
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(here), *options],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


@pytest.mark.slow
def test_a_pipe_at_four_times_real_time_prints_each_line_within_a_hop_and_a_second():
    """Half of the lines at least: a machine with other work may hold up single ones."""
    hop, child = 0.5, program("--window=1", "--hop=0.5")
    wave = np.round(noise(20) * 32767).astype("<i2")
    child.stdin.write(wave[:1000].tobytes())
    child.stdin.flush()
    json.loads(child.stdout.readline())  # it has started
    fed, delays = {}, []

    def feed():
        for i in range(1000, len(wave), 40):
            fed[i + 40] = time.monotonic()
            child.stdin.write(wave[i : i + 40].tobytes())
            child.stdin.flush()
            time.sleep(0.01)
        child.stdin.close()

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    for line in child.stdout:
        now, end = time.monotonic(), json.loads(line)["t1"]
        delays.append(now - min(at for n, at in list(fed.items()) if n >= end * 1000 - 1e-6))
    assert child.wait(600) == 0
    print(f"{len(delays)} lines, delays up to {max(delays):.2f} s")
    assert len(delays) > 5
    assert np.median(delays) < hop + 1
    assert max(delays) < 60


@pytest.mark.slow
def test_a_closed_reader_ends_it_quietly_and_closed_input_ends_it_with_0():
    child = program("--window=1", "--hop=0.1")
    child.stdout.close()
    try:
        for _ in range(50):
            child.stdin.write(WAVE.tobytes())
            child.stdin.flush()
    except BrokenPipeError:
        pass
    err = child.stderr.read().decode()
    assert child.wait(600) == 0
    assert "Traceback" not in err
    assert "Error" not in err
    child = program("--window=1")
    out, err = child.communicate(WAVE.tobytes(), timeout=600)
    assert child.returncode == 0
    assert len(out.splitlines()) >= 1
    assert json.loads(out.splitlines()[-1])["t1"] == pytest.approx(3.2)

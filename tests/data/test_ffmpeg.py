"""ffmpeg as a child process: good and bad scripts replace it; the real one if it is installed."""

import os
import pathlib
import shutil
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
import sounds

from asjax.config import AsjaxError
from asjax.data import audio, ffmpeg, patience, recordings
from asjax.data.audio import AudioError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ffmpeg is started on POSIX only")
TONE = sounds.tone(1.5, rate=22_050)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A function that writes a Python program as a script ffmpeg on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(body):
        script = folder / "ffmpeg"
        script.write_text(f"#!{sys.executable}\nimport os, sys, time\n{body}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return tmp_path

    return write


def gives(tmp_path, data, more=""):
    (tmp_path / "out.wav").write_bytes(data)
    return (
        f"open({str(tmp_path / 'args')!r}, 'w').write('\\n'.join(sys.argv[1:]))\n"
        f"data = open({str(tmp_path / 'out.wav')!r}, 'rb').read()\n"
        f"sys.stdout.buffer.write(data); sys.stdout.flush()\n{more}"
    )


def streamed(wave, rate, channels=1):
    """A WAV as ffmpeg writes it to a pipe: float32, all bits of the lengths set."""
    data = wave.astype("<f4").tobytes()
    whole = sounds.wav(data, channels, 4 * channels, 32, 3, rate)
    return whole.replace(b"data" + len(data).to_bytes(4, "little"), b"data" + b"\xff" * 4)


def test_sound_of_other_kinds_is_decoded(fake, tmp_path):
    fake(gives(tmp_path, streamed(TONE, 22_050)))
    path = tmp_path / "it's a; $(memo).m4a"
    path.write_bytes(sounds.MP4)
    np.testing.assert_array_equal(audio.read(path, 22_050), TONE)
    args = (tmp_path / "args").read_text().split("\n")
    assert args[args.index("-i") + 1] == f"file:{path}"
    assert args[args.index("-f") + 1] == "mov"  # the format is given, not guessed
    assert args[args.index("-protocol_whitelist") + 1] == "file"
    assert audio.info(path) == (22_050, 1, len(TONE))
    part = audio.read(path, 22_050, start_s=0.5, duration_s=0.25)
    np.testing.assert_array_equal(part, TONE[11_025:][: len(part)])
    assert len(part) == round(0.25 * 22_050)
    np.testing.assert_array_equal(np.concatenate(list(audio.blocks(path, 22_050, 0.1))), TONE)


def test_bytes_are_decoded_from_a_file_that_is_removed(fake, tmp_path):
    fake(gives(tmp_path, streamed(np.stack([TONE, -TONE], 1), 22_050, 2)))
    np.testing.assert_array_equal(audio.read(sounds.WEBM, 22_050), np.zeros(len(TONE)))
    args = (tmp_path / "args").read_text().split("\n")
    assert args[args.index("-f") + 1] == "matroska"
    assert not os.path.exists(args[args.index("-i") + 1].removeprefix("file:"))


def test_odd_flac_is_decoded(fake, tmp_path):
    fake(gives(tmp_path, streamed(TONE, 22_050)))
    data = sounds.flac_verbatim(np.zeros(100, int), 20)
    np.testing.assert_array_equal(audio.read(data, 22_050), TONE)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("sys.stderr.write('moov atom not found\\n'); sys.exit(1)", "moov atom not found"),
        ("sys.exit(3)", "exit code 3|gave no sound"),
        ("print('hello')", "gave no sound"),
        ("sys.stdout.write('x' * 1_000_000)", "gave no sound"),
        ("os.kill(os.getpid(), 9)", "exit code -9|gave no sound"),
    ],
)
def test_a_failure_is_an_error_in_one_line(fake, body, words):
    fake(body)
    for use in (lambda: audio.read(sounds.MP4, 16_000), lambda: audio.info(sounds.MP4)):
        with pytest.raises(AudioError, match=f"cannot be decoded by ffmpeg: .*({words})") as caught:
            use()
        assert "\n" not in str(caught.value)


def test_a_failure_in_the_middle_is_an_error_and_a_complaint_is_noted(fake, tmp_path):
    more = "sys.stderr.write('\\x1b[31mbad packet\\n'); sys.exit(69)"
    fake(gives(tmp_path, streamed(TONE, 22_050), more))
    with pytest.raises(AudioError, match=r"\[31mbad packet"):
        audio.read(sounds.MP4, 22_050)
    fake(gives(tmp_path, streamed(TONE, 22_050), "sys.stderr.write('ended prematurely')"))
    notes = []
    assert len(audio.read(sounds.MP4, 22_050, note=notes.append)) == len(TONE)
    assert "ffmpeg reports: ended prematurely" in notes[0]


@pytest.mark.parametrize("when", ["at once", "in the middle"])
def test_a_child_that_stalls_is_given_up_and_killed(fake, tmp_path, monkeypatch, when):
    monkeypatch.setattr(ffmpeg, "WAIT_S", 1.0)
    pid = tmp_path / "pid"
    stall = f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    fake(stall if when == "at once" else gives(tmp_path, streamed(TONE, 22_050), stall))
    begin = time.monotonic()
    with pytest.raises(AudioError, match="it gave no data for 1 s"):
        audio.read(sounds.MP4, 22_050)
    assert time.monotonic() - begin < 60
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def gone(pid, within_s=10):
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":  # killed, but its parent is gone and nobody has asked for its exit code
            return True
        time.sleep(0.05)
    return False


def started(file, within_s=30):
    end = time.monotonic() + within_s
    while not (file.exists() and file.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    return int(file.read_text())


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc")
def test_a_stalled_child_is_killed_at_the_time_limit_of_the_caller(fake, tmp_path):
    pid = tmp_path / "pid"
    stall = f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    fake(gives(tmp_path, streamed(TONE, 22_050), stall))
    for _ in range(2):  # threads may get the ident of one that was given up
        with pytest.raises(AudioError, match="could not be read within 1 s"):
            patience.call(lambda: audio.read(sounds.MP4, 22_050), 1.0, "clip")
        assert gone(started(pid))
    fake(gives(tmp_path, streamed(TONE, 22_050)))
    for _ in range(3):
        wave = patience.call(lambda: audio.read(sounds.MP4, 22_050), 20.0, "clip")
        assert len(wave) == len(TONE)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc")
@pytest.mark.parametrize("how", ["end", "os._exit", "SIGKILL", "SIGTERM", "ignores"])
def test_a_stalled_child_does_not_outlive_the_program(fake, tmp_path, how):
    pid = tmp_path / "pid"
    fake(f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    code = f"""
import os, signal, sys, threading, time
if {how == "ignores"}:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
from asjax.data import audio
work = lambda: audio.read({str(tmp_path / "x.mp4")!r}, 22_050)
threading.Thread(target=work, daemon=True).start()
while not os.path.exists({str(pid)!r}):
    time.sleep(0.05)
time.sleep(0.2)
if {how!r} in ("os._exit", "ignores"):
    os._exit(1)
elif {how!r} != "end":
    os.kill(os.getpid(), getattr(signal, {how!r}))
"""
    (tmp_path / "x.mp4").write_bytes(sounds.MP4)
    subprocess.run([sys.executable, "-c", code], timeout=600)
    assert gone(started(pid))


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc")
def test_a_child_that_was_closed_is_not_killed_again_by_its_number(fake, tmp_path):
    """The guard forgets a pid when it is closed, because another process may get it."""
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    keep = subprocess.Popen(["sleep", "60"], start_new_session=True)
    code = (
        "from asjax.data import ffmpeg\n"
        f"for line in ('+ {keep.pid}', '+ {other.pid}', '- {keep.pid}'):\n"
        "    ffmpeg._tell_guard(line)"
    )
    try:
        subprocess.run([sys.executable, "-c", code], timeout=600, check=True)
        assert other.wait(10) == -9
        assert keep.poll() is None
    finally:
        for process in (other, keep):
            process.kill()
            process.wait()


def test_an_endless_answer_is_stopped_at_max_s(fake, tmp_path):
    endless = "while True: sys.stdout.buffer.write(bytes(1 << 16))"
    fake(gives(tmp_path, streamed(TONE, 22_050), endless))
    with pytest.raises(AudioError, match="more than max_s=5"):
        audio.read(sounds.MP4, 16_000, max_s=5)
    stream = audio.blocks(sounds.MP4, 16_000, 1.0)
    assert len(next(stream)) == 16_000
    stream.close()


def test_memory_and_cpu_of_the_child_are_limited(fake, tmp_path):
    import resource

    fake(
        gives(
            tmp_path,
            streamed(TONE, 22_050),
            "import resource\n"
            f"out = open({str(tmp_path / 'limits')!r}, 'w')\n"
            "out.write(repr([resource.getrlimit(resource.RLIMIT_AS)[0],"
            "resource.getrlimit(resource.RLIMIT_CPU)[0]]))",
        )
    )
    audio.read(sounds.MP4, 16_000)
    memory, cpu = map(int, (tmp_path / "limits").read_text().strip("[]").split(","))
    assert cpu == ffmpeg._CPU_S
    if sys.platform == "linux" and resource.getrlimit(resource.RLIMIT_AS)[1] < 0:
        assert memory == ffmpeg._MEMORY_KB * 1024


def test_folders_hold_other_kinds_where_ffmpeg_is(fake, tmp_path, monkeypatch):
    folder = tmp_path / "memos"
    folder.mkdir()
    (folder / "a.m4a").write_bytes(sounds.MP4)
    (folder / "b.wav").write_bytes(sounds.encode(TONE, 22_050))
    fake(gives(tmp_path, streamed(TONE, 22_050)))
    assert [p.name for p in recordings.find([folder])] == ["a.m4a", "b.wav"]
    monkeypatch.setattr(ffmpeg, "program", lambda: None)
    with pytest.warns(UserWarning, match=r"skipped 1 file.*1 \.m4a"):
        assert [p.name for p in recordings.find([folder])] == ["b.wav"]
    (folder / "b.wav").unlink()
    with pytest.raises(AsjaxError, match=r"holds no audio.*1 \.m4a.*convert"):
        recordings.find([folder])


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg on the PATH")
def test_the_real_ffmpeg_decodes_what_it_wrote(tmp_path):
    import subprocess

    wave = np.stack([TONE, TONE], 1)
    (tmp_path / "in.wav").write_bytes(sounds.encode(wave, 22_050, "WAV", "PCM_16"))
    for name in ("a.m4a", "a.mka", "a.wma", "a.aac"):
        path = tmp_path / name
        command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "in.wav"), str(path)]
        subprocess.run(command, check=True, timeout=100)
        found = audio.read(path, 22_050)
        assert len(found) == pytest.approx(len(TONE), abs=2500)
        assert np.sqrt(np.mean(found**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.1)
        cut = path.read_bytes()[: path.stat().st_size // 2]
        notes = []
        try:
            audio.read(cut, 22_050, note=notes.append)
        except AudioError:
            continue
        assert notes, name

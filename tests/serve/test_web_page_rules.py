"""The page with odd files and without a model or microphone, and its rules against the tagger's.

Skipped by name like test_web_page.py.
"""

import json
import os

import browser
import numpy as np
import soundfile
import tones
from web_page import DONE, SOUNDS, check, clean, opened, skipped, text

from asjax.data import spans
from asjax.labels import LabelSet
from asjax.metrics import probability
from asjax.predict import frames as predict_frames
from asjax.predict import recording
from asjax.serve import demo

pytestmark = skipped


def test_faults_are_one_line(page, site, clip, tmp_path):
    opened(page, site)
    error = "(e => !e.hidden && e.textContent)(document.querySelector('#error'))"
    for name, content, said in (
        ("empty.wav", b"", "is empty"),
        ("noise.mp3", os.urandom(4000), "cannot be decoded by this browser"),
        ("page.html", b"<html>" * 100, "cannot be decoded by this browser"),
    ):
        (tmp_path / name).write_bytes(content)
        page.upload("#file", tmp_path / name)
        line = page.until(error)
        assert name in line
        assert said in line
        assert "\n" not in line
        page.until("document.querySelector('#busy').hidden")
    page.upload("#file", clip)  # and it still works
    page.until(DONE)
    assert not page.js(error)
    size = clip.stat().st_size
    (tmp_path / "cut.wav").write_bytes(clip.read_bytes()[:200_000])
    soundfile.write(tmp_path / "cut.flac", tones.sounds(7.3, *SOUNDS), tones.RATE)
    os.truncate(tmp_path / "cut.flac", os.path.getsize(tmp_path / "cut.flac") // 2)
    for name, said in (
        ("cut.wav", f"{size - 200_000:,} bytes are missing at the end of the file."),
        ("cut.flac", "The file seems to last 7.30 s, and "),
    ):
        page.upload("#file", tmp_path / name)
        page.until(f"{DONE} && document.querySelector('#name').textContent === '{name}'")
        page.until("document.querySelector('#summary').textContent.startsWith('0:03')")
        assert said in text(page, "#notes")
    clean(page)


def test_files_are_dropped_anywhere(page, site):
    opened(page, site)
    drop = """((...parts) => {
        const data = new DataTransfer();
        for (const part of parts) data.items.add(part);
        dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));
        return true; })"""
    tone = "sound.wav(new Float32Array(16000).map((_, i) => Math.sin(i)), 16000)"
    page.js(f"{drop}(new File([{tone}], 'one.wav'), new File(['x'], 'two.wav'))")
    page.until(DONE)
    assert text(page, "#name") == "one.wav"
    line = page.until("document.querySelector('#error').textContent")
    assert line == "Only the first of 2 files was taken: one.wav."
    page.js(f"{drop}()")
    page.until("document.querySelector('#error').textContent.startsWith('That was not a file.')")
    clean(page)


def test_a_long_file_shows_progress_and_can_be_cancelled(page, site, tmp_path):
    wave = np.tile(tones.sounds(7.3, *SOUNDS), 240)  # 29 minutes
    soundfile.write(tmp_path / "long.flac", wave, tones.RATE)
    opened(page, site)
    page.upload("#file", tmp_path / "long.flac")
    page.until("document.querySelector('#progress').value > 0.02")
    assert "window" in text(page, "#doing")
    assert page.js("document.querySelectorAll('#rows .row').length") == 5, "it fills as it goes"
    page.click("#cancel")
    page.until("document.querySelector('#busy').hidden")
    assert page.js("document.querySelector('#result').hidden")
    assert text(page, "#status") == "Cancelled."
    page.js("""sound.decode = ((old) => (file, url, rate) =>
        old(Object.defineProperty(file, "size", { value: 1e10 }), url, rate))(sound.decode)""")
    page.upload("#file", tmp_path / "long.flac")
    assert "takes at most 512 MB" in page.until("document.querySelector('#error').textContent")
    clean(page)


def test_a_model_that_does_not_load_is_one_line(page, ort, tmp_path):
    demo.write(
        tones.tagger(),
        "tones",
        lambda path: path.write_bytes(b"no model"),
        tmp_path / "a",
        str(ort),
    )
    with browser.site(tmp_path / "a") as url:
        page.open(url)
        line = page.until("document.querySelector('#error').textContent")
    assert line.startswith("The model cannot be loaded (")
    assert page.js("document.querySelector('#choose').disabled")


def test_a_denied_microphone_is_one_line(site, tmp_path):
    with browser.Page(tmp_path) as page:
        opened(page, site)
        page.click("#mic")
        line = page.until("document.querySelector('#error').textContent")
        assert line.startswith("The microphone is not allowed.")
        assert not page.js("document.querySelector('#mic').disabled")
        clean(page)


def test_softmax_and_several_lengths(page, ort, tmp_path):
    """A model with one label per clip; recordings shorter and longer than a window."""
    tagger = tones.tagger(False, activation="softmax")
    demo.write(tagger, "tones", lambda path: tones.onnx(path, False), tmp_path / "a", str(ort))
    with browser.site(tmp_path / "a") as url:
        opened(page, url)
        for seconds in (0.3, 2.0, 2.05, 9.99):
            path = tmp_path / f"{seconds}.wav"
            soundfile.write(path, tones.sounds(seconds, (0.1, 6, 3)), tones.RATE, subtype="FLOAT")
            page.upload("#file", path)
            page.until(f"{DONE} && document.querySelector('#name').textContent === '{path.name}'")
            check(page, path, tagger, frames=False)
        clean(page)


def test_the_rules_of_the_page_are_those_of_the_tagger(page, site):
    """Median filter, thresholds, events, windows and means, on random scores of many lengths."""
    opened(page, site)
    rng = np.random.default_rng(0)
    call = lambda name, *args: page.js(f"tagging.{name}({', '.join(map(json.dumps, args))})")  # noqa: E731
    for frames in (1, 2, 3, 7, 40, 203):
        count = 6
        scores = rng.random((frames, count)).astype(np.float32).round(1)  # with equal values
        threshold = rng.choice([0.0, 0.3, 0.5, 0.7, 1.0], count)
        median_s = rng.choice([0.0, 0.05, 0.1, 0.25, 0.36, 0.7, 3.0], count)
        rate, duration = 10.0, frames / 10 - 0.03
        want = predict_frames.events(
            scores, frame_rate=rate, duration_s=duration,
            label_set=LabelSet("six", tuple("abcdef"), tuple("ABCDEF")), stored=None,
            threshold=threshold, median=median_s,
        )  # fmt: skip
        how = {"threshold": threshold.tolist(), "median_s": median_s.tolist()}
        flat = f"Float32Array.from({json.dumps(scores.ravel().tolist())})"
        got = page.js(f"tagging.events({flat}, {rate}, {duration}, {json.dumps(how)})")
        assert [(e["onset_s"], e["offset_s"], "abcdef"[e["index"]]) for e in got] == [
            (e.onset_s, e.offset_s, e.id) for e in want
        ]
        np.testing.assert_allclose([e["p"] for e in got], [e.probability for e in want], 1e-6)
    for samples in (1, 799, 800, 801, 1600, 1601, 2399, 4000, 12_345):
        for size, per_window in ((800, 0), (800, 10), (801, 7), (400, 25)):
            grids = [spans.Tiled(size, size)]
            if per_window:
                grids.append(spans.Framed(per_window, size / per_window))
            want = [
                {"start": start, "tile": marks[0] is not None, "frame": (marks + [None])[1]}
                for start, _, _, marks in spans.over([np.zeros(samples, "f4")], size, grids)
            ]
            assert call("plan", samples, size, per_window) == want, (samples, size, per_window)
    for activation in ("sigmoid", "softmax"):
        rows = 12 * rng.normal(size=(5, 4)).astype(np.float32)
        rows = probability.as_scores(rows, activation)
        got = page.js(f"Array.from(tagging.reduced({json.dumps(rows.tolist())}, '{activation}'))")
        np.testing.assert_allclose(got, recording.reduced(rows, "mean", activation), rtol=1e-5)

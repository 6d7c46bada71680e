"""The page in headless Chromium, by mouse and keyboard, against the tagger.

Skipped by name where there is no chromium, no websockets, no onnx, or no onnxruntime-web. The files
of onnxruntime-web are looked for in $ASJAX_ORT, then in node_modules beside asjax.
"""

import csv
import io
import json
import os
import threading
from pathlib import Path

import browser
import numpy as np
import pytest
import soundfile
import tones
from small_detectors import make

import asjax
from asjax.__main__ import main
from asjax.data import spans
from asjax.labels import LabelSet
from asjax.metrics import probability
from asjax.predict import frames as predict_frames
from asjax.predict import recording
from asjax.serve import demo
from asjax.serve.server import Server
from asjax.serve.service import Service

ORT = Path(
    os.environ.get("ASJAX_ORT")
    or Path(__file__).parent.parent.parent / "node_modules/onnxruntime-web/dist"
)
SOUNDS = ((0.5, 1.4, 0), (1.2, 3.1, 2), (4.0, 4.6, 3), (5.5, 7.3, 4))
DONE = "document.querySelector('#busy').hidden && !document.querySelector('#result').hidden"

pytestmark = pytest.mark.skipif(bool(browser.why_not()), reason=browser.why_not())


@pytest.fixture(scope="module")
def ort():
    pytest.importorskip("onnx")
    if not (ORT / "ort.wasm.min.js").is_file():
        pytest.skip("the files of onnxruntime-web are not here (ASJAX_ORT names their folder)")
    return ORT


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "tones, loud.wav"
    soundfile.write(path, tones.sounds(7.3, *SOUNDS), tones.RATE, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def site(ort, tmp_path_factory):
    """The address of a static page of the detector of tones."""
    folder = tmp_path_factory.mktemp("site") / "page"
    demo.write(tones.tagger(), "tones", tones.onnx, folder, str(ort))
    with browser.site(folder) as url:
        yield url


@pytest.fixture(scope="module")
def page(tmp_path_factory, clip):
    """A browser with a microphone that plays the clip. It is started once, because that is slow."""
    loud = tones.sounds(30, (0, 30, 1))
    speech = tmp_path_factory.mktemp("mic") / "mic.wav"
    soundfile.write(speech, loud, tones.RATE, subtype="PCM_16")
    with browser.Page(tmp_path_factory.mktemp("browser"), speech) as one:
        one.size(1200, 900)
        yield one


def opened(page, url):
    page.requests.clear()
    page.console.clear()
    page.open(url)
    page.until("document.body.dataset.ready === '1'")
    return page


def clean(page):
    """No request has left this machine, and the console has neither errors nor warnings."""
    page.js("0")
    away = [u for u in page.requests if not u.removeprefix("blob:").startswith("http://127.0.0.1:")]
    assert [u for u in away if not u.startswith("data:")] == []
    assert page.console == []


def text(page, selector):
    return page.js(f"document.querySelector({selector!r}).innerText")


def check(page, clip, tagger, frames=True, least=4):
    """The rows, the downloads and the events are those of the tagger."""
    want = tagger(clip)
    names = page.js("[...document.querySelectorAll('#rows b')].map(b => b.textContent)")
    assert names[:3] == [name for name, _ in want.top(3)]
    found = json.loads(page.download("#json"))
    assert found["file"] == clip.name
    assert found["classes"] == list(want.labels)
    by_id = {tag["id"]: tag for tag in found["tags"]}
    np.testing.assert_allclose([by_id[i]["logit"] for i in want.ids], want.logits, atol=1e-3)
    np.testing.assert_allclose([by_id[i]["p"] for i in want.ids], want.clip, atol=1e-3)
    assert found["duration_s"] == pytest.approx(want.duration_s, abs=1e-6)
    assert [(w["start_s"], w["end_s"]) for w in found["windows"]] == [tuple(t) for t in want.times]
    np.testing.assert_allclose([w["p"] for w in found["windows"]], want.windows, atol=1e-3)

    rows = list(csv.reader(io.StringIO(page.download("#csv"))))
    assert rows[0] == ["file", "start_s", "end_s", *want.labels]
    assert [row[0] for row in rows[1:]] == [clip.name] * len(want.times)
    np.testing.assert_allclose(np.array([r[3:] for r in rows[1:]], float), want.windows, atol=1e-3)

    if frames:
        events = want.events()
        assert len(events) >= least
        times = [(e["onset_s"], e["offset_s"], e["id"]) for e in found["events"]]
        assert [t[2] for t in times] == [e.id for e in events]
        np.testing.assert_allclose([t[:2] for t in times], [e[:2] for e in events], atol=1e-6)
        np.testing.assert_allclose(
            [e["p"] for e in found["events"]], [e[4] for e in events], atol=1e-3
        )
        assert page.js("document.querySelectorAll('#events tbody tr').length") == len(events)
        rows = list(csv.reader(io.StringIO(page.download("#events-csv"))))
        assert [row[3] for row in rows[1:]] == [e.label for e in events]
    else:
        assert "events" not in found
        assert page.js("document.querySelector('#events').hidden")


def test_an_upload_gives_what_the_tagger_gives(page, site, clip):
    opened(page, site)
    assert "No sound leaves this machine" in text(page, "#where")
    page.upload("#file", clip)
    page.until(DONE)
    check(page, clip, tones.tagger())
    assert "Most probable: " in text(page, "#status")
    # A click on the timeline plays that second.
    page.click("#rows .row:nth-child(2) .strip", x=4.2 / 7.3)
    page.until("!audio.paused")
    page.until("audio.paused")
    assert page.js("audio.currentTime") == pytest.approx(5.2, abs=0.35)
    assert "s: " in text(page, "#readout")
    page.click("#events tbody tr:nth-child(2) button")
    page.until("!audio.paused")
    page.until("audio.paused")
    assert page.js("audio.currentTime") == pytest.approx(3.2, abs=0.35)
    clean(page)


def test_a_model_folder_becomes_a_page(page, ort, tmp_path, capsys):
    """The way of a user: asjax demo with a trained model's folder, and asjax tag beside it."""
    pytest.importorskip("onnxruntime")
    make(tmp_path / "pets")
    rng = np.random.default_rng(0)
    clip = tmp_path / "noise.wav"
    soundfile.write(clip, 0.1 * rng.normal(size=21_000).astype("f4"), 16_000, subtype="FLOAT")
    argv = ["demo", str(tmp_path / "pets"), "--to", str(tmp_path / "site"), "--ort", str(ort)]
    assert main(argv) == 0
    assert "http.server --bind 127.0.0.1" in capsys.readouterr().out
    with browser.site(tmp_path / "site") as url:
        opened(page, url)
        assert "pets · 3 classes · 16 kHz" in text(page, "#model")
        page.upload("#file", clip)
        page.until(DONE)
        check(page, clip, asjax.load(tmp_path / "pets"), least=0)
        clean(page)
    # The file alone, which needs no jax, gives the same page.
    argv = ["demo", str(tmp_path / "site/model.onnx"), "--to", str(tmp_path / "again"), *argv[4:]]
    assert main(argv) == 0
    for path in (tmp_path / "site").iterdir():
        again = (tmp_path / "again" / path.name).read_bytes()
        if path.name == "labels.json":
            assert json.loads(again) | {"name": "pets"} == json.loads(path.read_bytes())
        else:
            assert again == path.read_bytes(), path.name


def test_the_microphone_gives_a_result_each_second(page, site):
    opened(page, site)
    page.click("#mic")
    heard = page.until("document.querySelector('#live').dataset.results >= 3 && mic.seconds")
    assert 3 <= heard <= 10, "three results in the first ten seconds of sound"
    assert text(page, "#now li:first-child").startswith(tones.LABELS.names[1])
    assert page.js("document.querySelector('#mic').getAttribute('aria-pressed')") == "true"
    page.click("#mic")
    page.until(DONE)
    assert text(page, "#name") == "microphone"
    found = json.loads(page.download("#json"))
    assert found["tags"][0]["label"] == tones.LABELS.names[1]
    assert found["duration_s"] > 2
    assert page.js("audio.src").startswith("blob:")
    clean(page)


def test_the_keyboard_is_enough(page, site, clip):
    opened(page, site)
    page.js("document.activeElement.blur()")
    tab = lambda: (page.key("Tab", number=9), page.js("document.activeElement.id"))[1]  # noqa: E731
    assert tab() == "choose"
    assert tab() == "mic"
    page.upload("#file", clip)
    page.until(DONE)
    assert page.js("document.activeElement.id") == "name", "the result has the focus"
    order = [tab() for _ in range(5)]
    assert order == ["csv", "events-csv", "json", "play", "cursor"]
    aria = lambda name: page.js(f"document.querySelector('#cursor').getAttribute('aria-{name}')")  # noqa: E731
    assert (aria("valuemin"), aria("valuemax")) == ("0", "7.30")
    for _ in range(4):
        page.key("ArrowRight", number=39)
    assert 1 < float(aria("valuenow")) < 2
    assert aria("valuetext").startswith(f"{float(aria('valuenow')):.2f} s: ")
    assert "Beep" in aria("valuetext")
    page.key("Enter", number=13, text="\r")
    page.until("!audio.paused")
    page.until("audio.paused")
    page.key(" ", "Space", 32, " ")
    page.until("!audio.paused")
    page.key(" ", "Space", 32, " ")
    page.until("audio.paused")
    page.key("End", number=35)
    assert float(aria("valuenow")) == pytest.approx(7.3, abs=0.01)
    page.js("document.querySelector('#numbers summary').focus()")
    page.key("Enter", number=13, text="\r")
    page.until("document.querySelectorAll('#numbers th').length > 0")
    head = page.js("[...document.querySelectorAll('#numbers th')].map(th => th.textContent)")
    assert head[:2] == ["From (s)", "To (s)"]
    assert page.js("document.querySelectorAll('#numbers tbody tr').length") == 4
    clean(page)


def test_names_roles_and_contrast(page, site, clip):
    """Every control has a name, every text a contrast of 4.5, nothing is wider than a phone."""
    opened(page, site)
    page.upload("#file", clip)
    page.until(DONE)
    tree = page.send("Accessibility.getFullAXTree")["nodes"]
    seen = {}
    for node in tree:
        role, name = node.get("role", {}).get("value"), node.get("name", {}).get("value")
        seen.setdefault(role, []).append(name)
    for role in ("button", "slider", "main", "heading", "progressbar", "region", "table"):
        for name in seen.get(role, []):
            assert name or role == "main", f"a {role} has no name"
    assert len(seen["button"]) >= 6
    assert seen["slider"] == ["Position in the recording"]
    for width in (1200, 390):
        for dark in (False, True):
            page.size(width, 900, dark=dark)
            assert page.js("document.documentElement.scrollWidth <= innerWidth"), width
            low = [found for found in page.js(_CONTRAST) if found[1] < 4.5]
            assert low == []
    page.size(1200, 900)
    clean(page)


_CONTRAST = """(() => {
  const parse = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => { const [r, g, b] = c.map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0.99) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll('main *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length || e.disabled) continue;
    const a = light(parse(getComputedStyle(e).color).slice(0, 3)), b = light(behind(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([e.textContent.trim().slice(0, 30), ratio]);
  }
  return found;
})()"""


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


@pytest.mark.parametrize("frames", [True, False])
def test_the_same_page_asks_the_service(page, clip, frames):
    tagger = tones.tagger(frames)
    with Server(Service(tagger, "tones"), "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        opened(page, server.url)
        assert "on this machine and nowhere else" in text(page, "#where")
        page.upload("#file", clip)
        page.until(DONE)
        check(page, clip, tagger, frames)
        page.click("#mic")
        page.until("Number(document.querySelector('#live').dataset.results) >= 2", 60)
        assert text(page, "#now li:first-child").startswith(tones.LABELS.names[1])
        page.click("#mic")
        page.until(DONE)
        clean(page)
        server.shutdown()


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

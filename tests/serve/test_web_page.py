"""The page in headless Chromium, by mouse and keyboard, against the tagger.

Skipped by name where there is no chromium, no websockets, no onnx, or no onnxruntime-web. The files
of onnxruntime-web are looked for in $ASJAX_ORT, then in node_modules beside asjax.
"""

import json
import threading

import browser
import numpy as np
import pytest
import soundfile
import tones
from small_detectors import make
from web_page import DONE, check, clean, opened, skipped, text

import asjax
from asjax.__main__ import main
from asjax.serve.server import Server
from asjax.serve.service import Service

pytestmark = skipped


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

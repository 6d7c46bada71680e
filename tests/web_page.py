"""What the tests of the web page share: a clip with four sounds, and what a page must show."""

import csv
import io
import json
import os
from pathlib import Path

import browser
import numpy as np
import pytest

ORT = Path(
    os.environ.get("ASJAX_ORT")
    or Path(__file__).parent.parent / "node_modules/onnxruntime-web/dist"
)
SOUNDS = ((0.5, 1.4, 0), (1.2, 3.1, 2), (4.0, 4.6, 3), (5.5, 7.3, 4))
DONE = "document.querySelector('#busy').hidden && !document.querySelector('#result').hidden"
skipped = pytest.mark.skipif(bool(browser.why_not()), reason=browser.why_not())


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

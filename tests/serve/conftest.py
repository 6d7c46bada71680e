"""The page of a detector of tones, and a browser."""

import browser
import pytest
import soundfile
import tones
from web_page import ORT, SOUNDS

from asjax.serve import demo


@pytest.fixture(scope="session")
def ort():
    pytest.importorskip("onnx")
    if not (ORT / "ort.wasm.min.js").is_file():
        pytest.skip("the files of onnxruntime-web are not here (ASJAX_ORT names their folder)")
    return ORT


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "tones, loud.wav"
    soundfile.write(path, tones.sounds(7.3, *SOUNDS), tones.RATE, subtype="FLOAT")
    return path


@pytest.fixture(scope="session")
def site(ort, tmp_path_factory):
    """The address of a static page of the detector of tones."""
    folder = tmp_path_factory.mktemp("site") / "page"
    demo.write(tones.tagger(), "tones", tones.onnx, folder, str(ort))
    with browser.site(folder) as url:
        yield url


@pytest.fixture(scope="session")
def page(tmp_path_factory, clip):
    """A browser with a microphone that plays a whistle. It is started once."""
    loud = tones.sounds(30, (0, 30, 1))
    speech = tmp_path_factory.mktemp("mic") / "mic.wav"
    soundfile.write(speech, loud, tones.RATE, subtype="PCM_16")
    with browser.Page(tmp_path_factory.mktemp("browser"), speech) as one:
        one.size(1200, 900)
        yield one

"""The recipes for streams: trained for two steps, loaded, and listened to."""

import numpy as np
import pytest

import asjax
from asjax.__main__ import main
from asjax.predict import Event
from asjax.stream import EventStream, Stream

pytestmark = pytest.mark.slow
NOISE = (0.1 * np.random.default_rng(0).normal(size=3 * 16_000)).astype(np.float32)


@pytest.fixture(name="trained")
def trained_fixture(repo, tmp_path):
    def trained(recipe, arg):
        path = tmp_path / "run"
        assert (
            main(["train", f"--config={repo}/configs/{recipe}.py:{arg}", f"--workdir={path}"]) == 0
        )
        return asjax.load(path)

    return trained


def test_a_model_for_short_windows_hears_windows_of_two_seconds(trained):
    tagger = trained("quickstart", "crop=2,tiny")
    assert tagger.clip_s == 5.0  # the evaluation hears whole recordings
    stream = Stream(tagger, 2.0, 0.5)
    (first, *_) = stream.push(NOISE)
    direct = tagger.windowed(2.0)((NOISE[: 2 * 16_000], 16_000))
    np.testing.assert_allclose(first.tags.clip, direct.clip, atol=1e-5)


def test_the_causal_detector_carries_its_state(trained):
    tagger = trained("quickstart_sed", "causal,tiny")
    assert tagger.causal
    assert tagger.frame_rate == 12.5
    whole = tagger((NOISE, 16_000))
    how = dict(threshold=np.median(whole.frames, axis=0), median=0)
    stream = EventStream(tagger, **how)
    marks = stream.push(NOISE) + stream.close()
    found = sorted(m[:3] for m in marks if isinstance(m, Event))
    assert found == sorted(m[:3] for m in whole.events(**how))
    assert len(found) > 0

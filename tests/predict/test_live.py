"""The carried state of a causal tagger against the whole recording."""

import numpy as np
import pytest
from small_causal import RATE, SECONDS, TAGGER, WAVE, WHOLE, tagger_of

from asjax.config import AsjaxError
from asjax.predict import live


@pytest.mark.parametrize("size", [1, 160, 4001, 0])
def test_frames_are_those_of_the_whole_recording_for_any_chunks(size):
    wave = WAVE[: RATE // 2] if size == 1 else WAVE
    state, found = TAGGER.live(), []
    for i in range(0, len(wave), size or len(wave)):
        found.append(state.push(wave[i : i + (size or len(wave))]))
    found = np.concatenate([*found, state.close()])
    assert state.frame_rate == TAGGER.frame_rate == 12.5
    wanted = WHOLE.frames[: len(found)]
    assert len(found) == -(-len(wave) // 1280)
    last = len(wave) // 1280  # an incomplete last frame is filled with silence
    np.testing.assert_allclose(found[:last], wanted[:last], atol=1e-5)
    assert np.ptp(wanted, axis=0).max() > 1e-3


def test_an_incomplete_last_frame_is_filled_with_silence():
    wave = WAVE[: 10 * 1280 + 333]
    state = TAGGER.live()
    found = np.concatenate([state.push(wave), state.close()])
    filled = np.zeros(round(RATE * SECONDS), np.float32)
    filled[: len(wave)] = wave
    np.testing.assert_allclose(found, TAGGER((filled, RATE)).frames[:11], atol=1e-5)
    assert len(TAGGER.live().close()) == 0


def test_a_frontend_that_looks_ahead_is_not_causal():
    assert TAGGER.causal
    centred = tagger_of(centred=True)
    assert not centred.causal
    assert live.causal(TAGGER.model, TAGGER.frontend)
    assert not live.causal(TAGGER.model, centred.frontend)
    with pytest.raises(AsjaxError, match="looks ahead"):
        centred.live()

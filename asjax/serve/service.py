"""The service without its HTTP: one model behind one lock, which answers for one body at a time."""

from __future__ import annotations

import json
import threading
import warnings
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError, AsjaxWarning
from asjax.data import audio
from asjax.data.sound import NeedsFfmpeg
from asjax.serve import answers
from asjax.serve.body import Refused

PAGE = Path(__file__).parent / "page"
KINDS = {  # of the page's files; Python's own table lacks some of them on some systems
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
}
QUERY = ("top", "scores", "name")  # what a POST may have after the ?
_NOT_AUDIO = ("text/", "image/", "multipart/", "application/json", "application/xml")


class Service:
    """A tagger with the limits of a service.

    Args:
      tagger: has the interface of `predict.Tagger`. name: of the model, for people.
      max_mb: size of a body. max_minutes: length of a recording.
    """

    def __init__(self, tagger, name: str, *, max_mb: int = 64, max_minutes: float = 60.0):
        self.tagger, self.max_s, self.max_bytes = tagger, 60 * max_minutes, max_mb << 20
        self.about = answers.about(
            tagger, name, onnx=None, max_bytes=self.max_bytes, max_s=self.max_s
        )
        self._lock = threading.Lock()
        self.paths = {
            "/": ("GET", None),
            "/labels": ("GET", lambda: self.about),
            "/labels.json": ("GET", lambda: self.about),
            "/healthz": ("GET", lambda: {"status": "ok", "model": name}),
            "/tag": ("POST", self._tag),
            "/events": ("POST", self._events),
            "/embed": ("POST", self._embed),
        }
        self.files = {f"/{file.name}": file for file in sorted(PAGE.iterdir())}
        self.files["/"] = PAGE / "index.html"
        self.paths |= {path: ("GET", None) for path in self.files}

    def warm_up(self) -> None:
        """Compile the program for one window."""
        rate = self.tagger.sample_rate
        self.tagger((np.zeros(round(rate * self.tagger.clip_s), np.float32), rate))

    def check_kind(self, path: str, headers) -> None:
        """Refused: a body whose headers say that it is not an audio file, or a path without answer.

        curl and most programs send a type that says nothing about the bytes, so any other type
        is taken. The decoder decides.
        """
        kind = headers.get_content_type() if headers.get("Content-Type") else ""
        if kind.startswith(_NOT_AUDIO):
            raise Refused(
                415,
                f"{kind[:60]} is not audio; send the bytes of the file as the body, as in: "
                "curl --data-binary @dog.wav",
            )
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refused(415, "send the bytes of the file without Content-Encoding")
        if path == "/events" and not self.tagger.frame_count:
            raise Refused(404, f"this model has no events: {self.tagger.why_no_frames}")
        if path == "/embed" and not self.tagger.embeds:
            raise Refused(404, "this model has no embedding")

    def answer(self, path: str, query: dict, body) -> dict:
        """The answer to a POST. Refused: 413, 415 or 422 with the line of the AsjaxError.

        Args:
          query: name -> value. body: a binary file; its `name` is that of the recording.
        """
        make = self.paths[path][1]
        try:
            how = make(query)
            with self._lock, warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", AsjaxWarning)
                heard = self._heard(body)
                found = how(heard)
            notes = [str(w.message) for w in caught if issubclass(w.category, AsjaxWarning)]
            return found | ({"notes": notes} if notes else {})
        except NeedsFfmpeg as error:
            raise Refused(415, str(error)) from None
        except AsjaxError as error:
            raise Refused(422, str(error)) from None
        except MemoryError:
            raise Refused(413, "the memory is used up; send a shorter recording") from None

    def _heard(self, body):
        seconds = 0.0

        def more(new_s):
            nonlocal seconds
            seconds += new_s
            if seconds > self.max_s:
                raise Refused(
                    413,
                    f"the recording must last at most {self.max_s / 60:g} minutes; start the "
                    "service with a larger --max-minutes, or tag the file with asjax tag",
                )

        quiet = audio.quiet_decoders
        results = self.tagger.stream([body], batch=False, on_window=more, decoding=quiet)
        heard = next(iter(results))
        if isinstance(heard, Exception):
            raise heard
        return heard

    def _tag(self, query):
        top = answers.top_of(query.get("top"), len(self.tagger.label_set))
        scores = query.get("scores", "0")
        if scores not in ("0", "1"):
            raise AsjaxError(f"?scores= must be 0 or 1, got {scores[:40]!r}")
        return lambda heard: answers.tags(heard, top, scores == "1")

    def _events(self, query):
        tags = self._tag(query)
        return lambda heard: tags(heard) | {"events": answers.events(heard)}

    def _embed(self, query):
        return answers.embedding


def as_json(value) -> bytes:
    """JSON in one line. NaN cannot occur, because a result that is not finite is an error."""
    return (json.dumps(value, allow_nan=False) + "\n").encode("ascii")

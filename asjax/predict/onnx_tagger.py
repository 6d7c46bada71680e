"""The tagger of an ONNX file: the calls and results of `Tagger`, by onnxruntime and without jax."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError, quoted, shown
from asjax.predict.frames import NO_FRAMES
from asjax.predict.onnx_metadata import read
from asjax.predict.onnx_session import session
from asjax.predict.tags import whole
from asjax.predict.windows import OUTPUTS, Windowed, check_settings, check_window
from asjax.store import files

SUFFIX = ".onnx"


def is_file(path) -> bool:
    """Whether a path is meant as an ONNX file and not as a folder."""
    return Path(path).suffix.lower() == SUFFIX and not Path(path).is_dir()


def load_file(path, **settings) -> OnnxTagger:
    """The tagger of a file that `asjax export --onnx` wrote.

    Args:
      settings: see `Tagger`; `threads`: of onnxruntime, 0: as many as there are cores.

    Raises:
      AsjaxError: no such file, it is damaged or not from asjax, or onnxruntime is not installed.
    """
    check_settings(settings.get("batch_size", 16), settings.get("overlap", 0.0))
    return OnnxTagger(path, **settings)


class OnnxTagger(Windowed):
    """Tags recordings with an ONNX file: `OnnxTagger("model.onnx")("dog.wav")`.

    Args and attributes: as of `Tagger`, except model, variables and frontend. `threads` is the
    number of threads of onnxruntime, 0: one per core. `clip_s` is another window than the model's.
    """

    def __init__(self, path, *, threads: int = 0, clip_s: float | None = None, **settings):
        if not whole(threads) or threads < 0:
            raise AsjaxError(
                f"threads must be 0, for one per core, or a whole number above, got "
                f"{quoted(threads)}"
            )
        self.path, self.threads = Path(path), threads
        about = self.about = read(self.path)
        self.settings = {"clip_s": clip_s, **settings}
        self._session = session(self.path, threads)
        self._check()
        record = {"decoding": about.decoding, "sha256": {"card.json": files.digest(self.path)}}
        super().__init__(
            about.label_set,
            sample_rate=about.sample_rate,
            clip_s=about.clip_s if clip_s is None else self._possible(clip_s),
            activation=about.activation,
            record=record,
            **settings,
        )

    @property
    def name(self) -> str:
        return shown(self.path)

    def _check(self) -> None:
        """AsjaxError: the inputs and outputs are not those of asjax."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self._there = {output.name: output.shape for output in outputs}
        good = len(inputs) == 1 and inputs[0].name == "wave" and inputs[0].type == "tensor(float)"
        good = good and len(inputs[0].shape) == 2
        classes = len(self.about.label_set)
        wanted = {"logits": 2, "embedding": 2, **({"frame_logits": 3} if self.about.frames else {})}
        for output, rank in wanted.items():
            shape = self._there.get(output, [])
            good = good and len(shape) == rank
            good = good and (output == "embedding" or shape[-1] == classes)
        if not good:
            raise AsjaxError(
                f"{self.name} must have the input wave [b, s] and the outputs "
                f"{', '.join(wanted)} with {classes} classes; export it again"
            )

    def _possible(self, clip_s: float) -> float:
        """A window in seconds. AsjaxError: the file takes no wave of that length."""
        check_window(clip_s)
        samples, least, most = clip_s * self.about.sample_rate, self.about.least, self.about.most
        if samples < least - 1 or (most and samples > most + 1):
            rate = self.about.sample_rate
            upper = f" to {most / rate:g} s" if most else " on"
            length = f"from {least / rate:g} s{upper}" if least != most else f"of {most / rate:g} s"
            raise AsjaxError(
                f"{self.name} takes waves {length}, and a window of {clip_s:g} s was asked for; "
                "take such a window, or the model folder"
            )
        return clip_s

    def _with(self, **settings) -> OnnxTagger:
        return OnnxTagger(self.path, threads=self.threads, **{**self.settings, **settings})

    @cached_property
    def frame_count(self) -> int:
        """Frames per window; 0: the tagger gives no events in time."""
        if self.frames is False or not self.about.frames:
            return 0
        if self.window == round(self.about.clip_s * self.about.sample_rate):
            return self.about.frames
        silence = np.zeros((1, self.window), np.float32)
        return self._session.run(["frame_logits"], {"wave": silence})[0].shape[1]

    @property
    def why_no_frames(self) -> str:
        if self.about.frames:
            return "the tagger was made with frames=False; make it with frames=True"
        return f"{self.name} gives scores of clips and not of frames: {NO_FRAMES}"

    def _over(self, batches):
        names = [name for name in self._outputs if name in OUTPUTS]
        for batch in batches:
            try:
                arrays = self._session.run(names, {"wave": batch["wave"]})
            except Exception as error:  # onnxruntime has several errors of its own
                raise AsjaxError(
                    f"{self.name} fails on waves {list(batch['wave'].shape)}: {files.reason(error)}"
                ) from None
            out = dict(zip(names, arrays, strict=True))
            frames = out.get("frame_logits")
            if frames is not None and frames.shape[1] != self.frame_count:
                raise AsjaxError(
                    f"{self.name} gives {frames.shape[1]} frames and says {self.frame_count}; "
                    "export it again"
                )
            yield out, batch

    def _size(self, windows: int) -> int:
        """No padding: any number of rows runs at once."""
        return self.batch_size if self.full else windows

    def __repr__(self):
        return (
            f"OnnxTagger({self.name}: {self.about.model}, {len(self.label_set)} classes of "
            f"{self.label_set.name}, {self.sample_rate} Hz, windows of {self.clip_s:g} s, "
            f"weights {self.about.weights}, reduce={self.reduce!r}, {self.activation})"
        )

    def __reduce__(self):
        return _made, (self.path, {"threads": self.threads, **self.settings})


def _made(path, settings) -> OnnxTagger:
    return OnnxTagger(path, **settings)

"""One published checkpoint: a row of the table in published.py."""

from __future__ import annotations

from typing import NamedTuple

AUDIOSET = "AudioSet eval ({} copy)"  # {}: the owner of the copy


class Row(NamedTuple):
    """A published checkpoint.

    file: its name. urls: its addresses, tried in order; empty if a person must fetch it from
      `page`.
    score: reported by the authors, over the classes of the evaluation set `data`.
    sha256, md5: hashes of the file; a sha256 may be only the first digits (torch.hub's file names).
    hub: id of a Hugging Face repository with these weights.
    frontend, clip_s: replace the variant's. fields: module fields that the file cannot tell.
    keys: prefixes of the weights' names in the file, if they differ from the family's `TORCH`.
    """

    name: str
    family: str
    variant: str
    file: str
    urls: tuple[str, ...]
    score: str
    data: str
    licence: str = "not stated"
    sha256: str | None = None
    md5: str | None = None
    fields: dict = {}
    hub: str | None = None
    frontend: dict | None = None
    clip_s: float | None = None
    note: str = ""
    page: str = ""
    keys: str = ""

    @property
    def claim(self) -> str:
        """The authors' score and evaluation set, as a phrase."""
        if self.score == "-":
            return f"no score is stated on {self.data}"
        return f"{self.score} on {self.data}, as its authors report"

    @property
    def source(self) -> str:
        """The word before the name in `init_from`, for a row of STARTS."""
        return "imagenet" if self.data == "ImageNet" else "backbone"

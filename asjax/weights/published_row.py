"""One published checkpoint: a row of the table in published.py."""

from __future__ import annotations

from typing import NamedTuple

AUDIOSET = "AudioSet eval ({} copy)"  # whose copy of the evaluation set


class Row(NamedTuple):
    """A published checkpoint.

    file: name of the file; urls: where it lies (tried in order), none if a person must fetch it
    from `page`.
    score: what the authors report, over the classes of `data`'s evaluation set.
    sha256, md5: of the file; a sha256 may be its first digits (torch.hub's file names).
    hub: id of a Hugging Face repository with these weights.
    frontend, clip_s: instead of the variant's; fields: of the module, those the file does not tell.
    keys: how the file calls the weights, where that is not as the family's `TORCH` has it.
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
        """The authors' score and what it is on."""
        if self.score == "-":
            return f"no score is stated on {self.data}"
        return f"{self.score} on {self.data}, as its authors report"

    @property
    def source(self) -> str:
        """What comes before its name in `init_from`, of a row of STARTS."""
        return "imagenet" if self.data == "ImageNet" else "backbone"

"""Find the clips of data in a file of logits whose ids are spelled in another way."""

from __future__ import annotations

import re
from dataclasses import dataclass

_AUDIO = re.compile(r"\.(wav|mp3|flac|ogg|opus|m4a|aac|webm|mp4)$", re.IGNORECASE)
_YOUTUBE = r"[\w-]{11}"


@dataclass(frozen=True)
class Match:
    """rows: {clip of the data: row of the file}. missing: (clip, reason). extra: rows that belong
    to no clip of the data."""

    rows: dict[str, int]
    missing: list[tuple[str, str]]
    extra: int


def stem(name: str) -> str:
    """A name without folders and without the ending of an audio file."""
    return _AUDIO.sub("", name.replace("\\", "/").rsplit("/", 1)[-1])


def spellings(clip: str) -> list[list[str]]:
    """The names that a clip may have in a file, the most exact ones first.

    AudioSet's clips are called by the id of the video, `Y` and this id (PaSST's files), or this id
    and the start in milliseconds (AudioSet Strong). The last group is PretrainedSED's mangled form:
    its `rstrip(".mp3")` also removes the letters m, p and 3 at the end of an id.
    """
    base = stem(clip)
    video = re.fullmatch(rf"Y?({_YOUTUBE})(_\d+)?", base)
    names = [base, *([f"Y{video[1]}", video[1]] if video else [])]
    mangled = [f"{name}.mp3".rstrip(".mp3") for name in names]
    return [[clip], [base], names[1:], mangled]


def match(found: list[str], wanted: list[str]) -> Match:
    """Rows of the names `found` for the clips `wanted`. A row that two clips could mean is used for
    none of them."""
    place = {}
    for row, name in enumerate(found):
        place.setdefault(name, row)
    for row, name in enumerate(found):  # an exact name comes first
        place.setdefault(stem(name), row)
    rows, used, doubtful = {}, set(), {}
    open_ = {clip: spellings(clip) for clip in wanted}
    for level in range(4):
        claims: dict[int, list[str]] = {}
        for clip, names in open_.items():
            for name in names[level]:
                if name in place and place[name] not in used:
                    claims.setdefault(place[name], []).append(clip)
                    break
        for row, clips in claims.items():
            used.add(row)
            if len(clips) == 1:
                rows[clips[0]] = row
            else:
                doubtful |= dict.fromkeys(clips, f"{found[row]} could also be {clips[0]}")
                doubtful[clips[0]] = f"{found[row]} could also be {clips[1]}"
        open_ = {clip: n for clip, n in open_.items() if clip not in rows and clip not in doubtful}
    missing = [(clip, doubtful.get(clip, "no logits in the file")) for clip in wanted
               if clip not in rows]  # fmt: skip
    return Match(rows, missing, len(found) - len(rows))

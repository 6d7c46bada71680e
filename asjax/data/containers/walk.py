"""The one question to ask of a file: how is it put together?"""

from __future__ import annotations

from asjax.data.containers import chunks, flac, kinds, lengths, mpeg, ogg, tags
from asjax.data.containers.parts import Foreign, Layout, Tape

_JUNK = 1 << 16  # bytes before the first MPEG frame
_CHUNKS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"caff", b"riff")


def layout(tape: Tape) -> Layout:
    """How the file is put together, walked through to its end.

    A file of an unknown kind is left to libsndfile (an empty Layout).

    Raises:
      Broken: cut short, damaged, or a header that contradicts itself.
      Foreign: sound that libsndfile does not decode (`demuxer` says that ffmpeg does), or no sound.
    """
    head = tape.at(0, 512)
    what = kinds.kind(head)
    if what and what.demuxer:
        raise Foreign(what.name, what.demuxer)
    if head[:4] in _CHUNKS:
        return chunks.layout(tape)
    if head[:4] in (b".snd", b"dns."):
        return lengths.au(tape)
    if head[:7] == b"NIST_1A":
        return lengths.nist(tape)
    begin = tags.skip(tape, 0)
    magic = tape.at(begin, 4) if begin else head[:4]
    if magic == b"OggS":
        return ogg.layout(tape)
    if magic == b"fLaC":
        return flac.layout(tape)
    frames = mpeg.first_frame(tape, within=_JUNK if what is None else 0)
    if frames >= 0:
        return mpeg.layout(tape, frames)
    if what:
        raise Foreign(what.name)
    return Layout()

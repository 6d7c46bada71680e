"""The layout of a sound file of any kind."""

from __future__ import annotations

from asjax.data.containers import chunks, flac, kinds, lengths, mpeg, ogg, tags
from asjax.data.containers.parts import Foreign, Layout, Tape

_JUNK = 1 << 16  # largest number of bytes before the first MPEG frame
_CHUNKS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"caff", b"riff")


def layout(tape: Tape) -> Layout:
    """The layout of a file, checked up to its end.

    The layout of an unknown kind is empty: libsndfile tries to read the file.

    Raises:
      Broken: cut short, damaged, or a header that contradicts itself.
      Foreign: audio that libsndfile does not decode (ffmpeg does if there is a `demuxer`), or a
        file without audio.
    """
    head = tape.at(0, 512)
    what = kinds.kind(head)
    if what and what.demuxer:
        raise Foreign(what.name, what.demuxer)
    if head[:4] in _CHUNKS:
        return chunks.layout(tape)
    if head[:4] in (b".snd", b"dns.") or head[:7] == b"NIST_1A":
        return lengths.layout(tape)
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

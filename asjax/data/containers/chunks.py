"""Containers of chunks with lengths: WAV, RF64, BW64, W64, AIFF and CAF.

Only the lengths and WAV's format chunk are read. A length of all ones means "to the end of the
file": programs that write to a pipe leave it. A length of 0 before samples means that the recorder
stopped without finishing the file.
"""

from __future__ import annotations

from struct import calcsize, pack, unpack, unpack_from
from typing import NamedTuple

from asjax.data.containers import tags
from asjax.data.containers.parts import Broken, Foreign, Layout, Part, Tape

_MANY = 10_000
_HEADER = 1 << 20  # largest header in bytes that is repaired
_GUID = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # the end of W64's chunk names
_SUBTYPE = bytes.fromhex("000000001000800000aa00389b71")  # WAVE_FORMAT_EXTENSIBLE, after the tag
_WIDTHS = {1: (8, 16, 24, 32), 3: (32, 64), 6: (8,), 7: (8,)}  # bits of PCM, float, A-law, mu-law
_FOREIGN = {
    0x50: "MPEG layer II", 0x55: "MP3", 0x160: "WMA", 0x161: "WMA", 0x162: "WMA", 0xFF: "AAC",
    0x1610: "AAC", 0x2000: "AC-3",
}  # fmt: skip


class _Form(NamedTuple):
    """The form of the chunks of a container."""

    magic: bytes
    head: int  # bytes before the first chunk
    name: int  # bytes of a chunk's name
    size: str  # struct format of a chunk's length
    data: bytes  # name of the chunk with the samples
    never: int  # a length of at least this means "not known"
    kinds: tuple[bytes, ...]  # allowed words after the first length
    itself: int = 0  # bytes of the chunk's header, if a length counts them too
    align: int = 2
    before: int = 0  # bytes in the data chunk before its samples


_RIFF = _Form(b"RIFF", 12, 4, "<I", b"data", 0x7FFF0000, (b"WAVE",))
_FORMS = (
    _RIFF,
    _RIFF._replace(magic=b"RF64"),
    _RIFF._replace(magic=b"BW64"),
    _RIFF._replace(magic=b"RIFX", size=">I"),
    _Form(b"FORM", 12, 4, ">I", b"SSND", 0x7FFF0000, (b"AIFF", b"AIFC"), before=8),
    _Form(b"caff", 8, 4, ">Q", b"data", 1 << 62, (b"desc",), align=1, before=4),
    _Form(
        bytes.fromhex("726966662e91cf11a5d628db04c10000"), 40, 16, "<Q", b"data" + _GUID, 1 << 62,
        (), itself=24, align=8,
    ),
)  # fmt: skip


def layout(tape: Tape) -> Layout:
    """The files of chunks in a file. Joined files have more than one.

    Raises:
      Broken: fewer bytes than a length promises, or a header that contradicts itself or was never
        finished. Foreign: a coding that needs ffmpeg.
    """
    parts, notes, at = [], [], 0
    while at < tape.size and (form := _form(tape, at)):
        part, note, at = _File(tape, at, form).read()
        parts.append(part)
        notes += note
        if len(parts) > _MANY:
            raise Broken(f"is made of more than {_MANY} files")
    as_it_is = len(parts) == 1 and not parts[0].head
    return Layout([] if as_it_is else parts, notes)


def _form(tape: Tape, at: int) -> _Form | None:
    magic = tape.at(at, 16)
    for form in _FORMS:
        if magic.startswith(form.magic) and (not form.kinds or magic[8:12] in form.kinds):
            return form
    return None


class _File:
    """One file of chunks, from `start` on."""

    def __init__(self, tape: Tape, start: int, form: _Form):
        self.tape, self.start, self.form = tape, start, form
        self.frame = 1  # bytes of a frame, if known
        self.wide: tuple[int, int] | None = None  # place and value of a 64-bit length of the data
        # Place of the data's length; place and size of the samples.
        self.field = self.begin = self.size = 0
        self.open = False  # the data chunk was never finished

    def read(self) -> tuple[Part, list[str], int]:
        """(the part, notes, end of the file)."""
        end = self._walk()
        if not self.begin:
            return Part(((self.start, end),)), [], end
        if self.open:
            return self._repaired(), ["its header was never finished; it is read to its end"], end
        rest, notes = self.tape.size - end, []
        if rest and not _form(self.tape, end):
            if tags.skip(self.tape, end) < self.tape.size and rest > 16:
                notes.append(f"{rest} bytes after its samples belong to no chunk")
                if rest > self.size // 10 and not self.tape.all_zero(end, self.tape.size):
                    raise Broken(f"{notes[0]}; its header was not finished, or it is damaged")
            end = self.tape.size
        if self.form.magic == b"BW64":  # libsndfile reads it only under the name RF64
            return Part(((self.start + 4, end),), b"RF64"), notes, end
        return Part(((self.start, end),)), notes, end

    def _walk(self) -> int:
        """Read the header of every chunk. Returns the place after the last chunk."""
        at, formats = self.start + self.form.head, 0
        for _ in range(_MANY):
            chunk = self._chunk(at)
            if chunk is None and at % 2 and self.form.align == 2:
                chunk = self._chunk(at := at - 1)  # the writer left out the padding byte
            if chunk is None:
                return min(at, self.tape.size)
            name, body, size = chunk
            if name == b"ds64":
                data = self.tape.at(body, 16)
                self.wide = (body + 8, unpack_from("<Q", data.ljust(16, b"\0"), 8)[0])
            elif name[:4] == b"fmt ":
                formats += 1
                if formats > 1:
                    raise Broken("has two format chunks, so nobody can tell its format")
                self._check_format(self.tape.at(body, min(size, 40)))
            elif name == self.form.data:
                size = self._data(at + self.form.name, body, size)
                if self.open:
                    return self.tape.size
            elif body + size > self.tape.size:
                if not self.begin:
                    raise Broken("is cut short in its header")
                return at  # more samples than the length says, or a cut chunk
            at = body + size
            at += (self.start - at) % self.form.align
        raise Broken(f"has more than {_MANY} chunks")

    def _chunk(self, at: int) -> tuple[bytes, int, int] | None:
        """(name, begin of the body, length of the body) of the chunk at `at`, or None."""
        head = self.form.name + calcsize(self.form.size)
        data = self.tape.at(at, head)
        if len(data) < head or _form(self.tape, at):
            return None
        name = data[: self.form.name]
        size = unpack(self.form.size, data[self.form.name :])[0] - self.form.itself
        named = name.endswith(_GUID) if self.form.itself else all(31 < c < 127 for c in name)
        return (name, at + head, size) if named and size >= 0 else None

    def _data(self, field: int, body: int, size: int) -> int:
        """Store the place of the data chunk. Returns its length in the file. Broken: it is cut."""
        if self.begin:
            raise Broken("has two chunks of samples, and only one could be read")
        there = self.tape.size - body
        if self.wide and size == 0xFFFFFFFF:
            size = self.wide[1]
        self.field, self.begin, self.size = field, body + self.form.before, size
        if size <= self.form.before and there - size >= max(self.frame, 16):
            self.open = not self._chunks_to_end(body + size)
        elif size > there:
            if size < self.form.never and size // self.frame > there // self.frame:
                raise Broken(
                    f"is cut short: it promises {size} bytes of samples, {there} are there"
                )
            size = there
        return size

    def _chunks_to_end(self, at: int) -> bool:
        """Whether complete chunks fill the file from `at` to its end."""
        for _ in range(_MANY):
            chunk = self._chunk(at)
            if chunk is None:
                return False
            at = chunk[1] + chunk[2]
            at += (self.start - at) % self.form.align
            if at >= self.tape.size:
                return at - self.tape.size < self.form.align
        return False

    def _check_format(self, data: bytes) -> None:
        """Check WAV's format chunk: channels and bits must fit the bytes of a frame."""
        order = ">" if self.form.size == ">I" else "<"
        if len(data) < 16:
            raise Broken("is damaged: its format chunk is too short")
        tag, channels, _, _, block, bits = unpack(f"{order}HHIIHH", data[:16])
        if tag == 0xFFFE and len(data) >= 40 and data[26:40] == _SUBTYPE:
            tag = unpack_from(f"{order}H", data, 24)[0]
        if tag in _FOREIGN:
            raise Foreign(f"WAV with {_FOREIGN[tag]} in it", "wav")
        if tag not in _WIDTHS:
            return  # a coding with blocks of samples; libsndfile reads or refuses it
        width = -(-bits // 8)
        if block != channels * width or not block:
            raise Broken(
                f"contradicts itself: {channels} channels of {bits} bits make frames of "
                f"{channels * width} bytes, its header says {block} (nBlockAlign); write it again "
                "as plain 16-bit WAV or FLAC"
            )
        if 8 * width not in _WIDTHS[tag]:
            what = "integers" if tag == 1 else "floating point"
            raise Foreign(f"WAV of {bits}-bit {what}", "wav")
        self.frame = block

    def _repaired(self) -> Part:
        """The file with the right length of its samples in the header."""
        there = (self.tape.size - self.begin) // self.frame * self.frame
        magic = self.form.magic
        if magic in (b"FORM", b"caff") or self.begin - self.start > _HEADER:
            raise Broken(f"was never finished: no samples are promised, {there} bytes are there")
        head = bytearray(self.tape.at(self.start, self.begin - self.start))
        field = self.field - self.start
        if self.wide:
            place = self.wide[0] - self.start
            head[:4] = b"RF64"
            head[field : field + 4] = b"\xff" * 4
            head[place - 8 : place + 16] = pack("<QQQ", there, there, there // self.frame)
        else:
            size = calcsize(self.form.size)
            value = min(there + self.form.itself, (1 << 8 * size) - 1)
            head[field : field + size] = pack(self.form.size, value)
        return Part(((self.begin, self.begin + there),), bytes(head))

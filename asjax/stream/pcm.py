"""Raw PCM and WAV from a pipe: bytes as they come -> samples."""

from __future__ import annotations

import struct

import numpy as np

from asjax.config import AsjaxError, quoted
from asjax.data import sound

# name -> (numpy type of a value, bytes); 24 bits have no type of their own
FORMATS = {
    "s16le": ("<i2", 2),
    "s24le": (None, 3),
    "s32le": ("<i4", 4),
    "f32le": ("<f4", 4),
    "f64le": ("<f8", 8),
}
_WAV = {(1, 16): "s16le", (1, 24): "s24le", (1, 32): "s32le", (3, 32): "f32le", (3, 64): "f64le"}
_OTHERS = {b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3", b"FORM": "AIFF", b"caff": "CAF"}
_OTHERS |= {b"\x1aE\xdf\xa3": "Matroska or WebM"}
ENDLESS = 0x7FFF0000  # sizes from here on stand for "until the end": arecord, sox and ffmpeg
_LARGEST_CHUNK = 1 << 20
CONVERT = "pipe it through: ffmpeg -i - -f s16le -ar 16000 -ac 1 - | asjax listen -"


class Pcm:
    """Bytes -> samples [n, channels], int16, int32 or float. A value may come in two pieces.

    Args:
      where: in front of the name of a wrong value.

    Attributes:
      format, rate, channels: of the samples. left: bytes of the incomplete last sample.
    """

    def __init__(self, format: str, rate: int, channels: int, where: str = "--"):
        sound.check_rate(f"{where}rate", rate)
        if not 1 <= channels <= sound.MAX_CHANNELS:
            raise AsjaxError(f"{where}channels must be 1 to {sound.MAX_CHANNELS}, got {channels}")
        self.format, self.rate, self.channels = format, rate, channels
        self._kind, size = FORMATS[format]
        self._size, self._held = size * channels, b""

    @property
    def left(self) -> int:
        return len(self._held)

    def samples(self, data: bytes) -> np.ndarray:
        data = self._held + data
        count = len(data) // self._size
        self._held = data[count * self._size :]
        data = data[: count * self._size]
        if self._kind is None:  # the upper three bytes of an int32
            wide = np.zeros((len(data) // 3, 4), np.uint8)
            wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            values = wide.view("<i4")[:, 0]
        else:
            values = np.frombuffer(data, self._kind)
        return values.reshape(count, self.channels)

    def __str__(self):
        channels = "1 channel" if self.channels == 1 else f"{self.channels} channels"
        return f"{self.format}, {self.rate:g} Hz, {channels}"


class Wav:
    """The header of a WAV file that comes through a pipe. Feed bytes until `pcm` is there.

    Attributes:
      pcm: a `Pcm`, or None while the header is incomplete. rest: bytes after the header.
      size: bytes of sound that the header promises, or None: until the end.
    """

    def __init__(self):
        self.pcm, self.rest, self.size, self._format = None, b"", None, None
        self._started = False

    def feed(self, data: bytes) -> None:
        """AsjaxError: no WAV, or a kind of samples that is not read here."""
        self.rest += data
        if not self._started:
            if len(self.rest) < 12:
                return
            if self.rest[8:12] != b"WAVE":
                raise AsjaxError(f"standard input begins with RIFF, but is no WAV; {CONVERT}")
            self._started, self.rest = True, self.rest[12:]
        while self.pcm is None and len(self.rest) >= 8:
            name, size = struct.unpack("<4sI", self.rest[:8])
            if name == b"data":
                if self._format is None:
                    raise AsjaxError("the WAV header has no fmt chunk before its data")
                self.size = None if size == 0 or size >= ENDLESS else size
                self.pcm, self.rest = self._format, self.rest[8:]
                return
            if size > _LARGEST_CHUNK:
                raise AsjaxError(
                    f"the WAV header is damaged: a chunk {quoted(name)} of {size:,} bytes comes "
                    "before its data"
                )
            whole = 8 + size + size % 2
            if len(self.rest) < whole:
                return
            if name == b"fmt ":
                self._format = _format(self.rest[8 : 8 + size])
            self.rest = self.rest[whole:]


def _format(chunk: bytes) -> Pcm:
    if len(chunk) < 16:
        raise AsjaxError(f"the WAV header is damaged: its fmt chunk has {len(chunk)} bytes")
    tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", chunk[:16])
    if tag == 0xFFFE and len(chunk) >= 26:  # WAVE_FORMAT_EXTENSIBLE: the kind is in a GUID
        (tag,) = struct.unpack("<H", chunk[24:26])
    if (tag, bits) not in _WAV:
        raise AsjaxError(
            f"the WAV has samples of kind {tag} with {bits} bits, and asjax listen reads "
            f"{', '.join(FORMATS)}; {CONVERT}"
        )
    return Pcm(_WAV[tag, bits], rate, channels, "the WAV header's ")


def refuse_others(begin: bytes) -> None:
    """AsjaxError: the first bytes are those of a compressed or another container."""
    for mark, name in _OTHERS.items():
        if begin.startswith(mark):
            raise AsjaxError(f"standard input is {name}, and asjax listen reads PCM; {CONVERT}")
    if begin[4:8] == b"ftyp":
        raise AsjaxError(f"standard input is MP4, and asjax listen reads PCM; {CONVERT}")

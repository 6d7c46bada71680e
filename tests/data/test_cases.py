"""Cases that users reported, with the correct results. The files are rebuilt; CC0-1.0.

Each row is a file that asjax once read wrongly or refused with an unhelpful message.
"""

from unicodedata import normalize

import numpy as np
import pytest
import sounds

from asjax import labels
from asjax.__main__ import main as asjax_main
from asjax.data import audio, ffmpeg, sources
from asjax.data.audio import AudioError

VBR = sounds.mp3(sounds.quiet_middle())
WAV = sounds.wav(sounds.integers(sounds.tone(1, rate=16_000), 2))
READ = {  # name: (bytes, seconds, tolerance)
    "vbr_with_info.mp3": (VBR, 6.0, 1e-4),
    "vbr_without_info.mp3": (sounds.without_info(VBR), 6.0, 0.1),
    "two_joined.mp3": (VBR + sounds.mp3(sounds.tone(3, 900)), 9.0, 0.1),
    "tail_of_zeros.mp3": (
        sounds.without_info(sounds.mp3(sounds.tone(2), "CONSTANT")) + bytes(2000), 2.0, 0.1,
    ),
    "two_joined.ogg": (
        b"".join(
            sounds.encode(sounds.tone(s, hz), sounds.RATE, "OGG", "VORBIS")
            for s, hz in ((2, 440), (3, 900))
        ),
        5.0, 1e-4,
    ),
    "size_never_written.wav": (WAV[:40] + bytes(4) + WAV[44:], 1.0, 1e-4),
}  # fmt: skip
REFUSED = {  # name: (bytes, part of the error)
    "24_bits_in_4_bytes.wav": (
        sounds.wav(sounds.integers(sounds.tone(1, rate=16_000), 4, 24), block=4, bits=24),
        "contradicts itself.*nBlockAlign",
    ),
    "mp4_inside.wav": (sounds.MP4, "is MP4.*AAC.*convert it first, e.g. ffmpeg"),
    "page.mp3": (sounds.WEB_PAGE, "it is a web page"),
    "20_bits.flac": (
        sounds.flac_verbatim((sounds.tone(0.5, rate=16_000) * (1 << 19)).astype(int), 20),
        "FLAC of 20 bits per sample.*convert it first",
    ),
}


@pytest.mark.parametrize("name", READ)
def test_a_file_that_was_read_in_part_is_read_whole(name, tmp_path):
    data, seconds, tolerance = READ[name]
    (tmp_path / name).write_bytes(data)
    for source in (tmp_path / name, data):
        wave = audio.read(source, 16_000, note=lambda _: None)
        assert len(wave) / 16_000 == pytest.approx(seconds, abs=tolerance)
        assert audio.info(source, note=lambda _: None).duration_s == pytest.approx(
            seconds, abs=tolerance
        )


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_read_says_why_and_what_to_do(name, tmp_path, monkeypatch):
    monkeypatch.setattr(ffmpeg, "program", lambda: None)
    data, words = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(AudioError, match=f"{name}.*{words}"):
        audio.read(tmp_path / name, 16_000)


LISTS = {  # name: (bytes of the CSV, options, part of the output)
    "label_nfc_nfd": (
        f"filename,labels,fold\na.wav,{normalize('NFC', 'Vögel')},1\n"
        f"b.wav,{normalize('NFD', 'Vögel')},2\n",
        ["--labels", "own"], "kept 2 clips (fold1 1, fold2 1)",
    ),
    "name_nfc": (f"filename,labels\n{normalize('NFC', 'vögel.wav')},Speech\n", [], "kept 1 clips"),
    "no_labels": (
        "filename,labels,fold\na.wav,Speech,1\nb.wav,,2\n", [],
        "1 of its 2 clips have no labels; each is a negative example of every class",
    ),
    "backslash": ("filename,labels\nkitchen\\c.wav,Speech\n", [], "kept 1 clips"),
    "semicolons": ("filename;labels;fold\na.wav;Speech;1\n", [], "kept 1 clips (fold1 1)"),
    "fsd50k_dev": (
        'fname,labels,mids,split\n64760,"Electric_guitar,Guitar,Music",'
        '"/m/02sgy,/m/0342h,/m/04rlf",train\n',
        ["--labels", "fsd50k200"], "kept 1 clips (train 1)",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    wave = sounds.encode(sounds.noise(0.2, rate=16_000), 16_000, "WAV", "PCM_16")
    (root / "kitchen").mkdir()
    nfd = normalize("NFD", "vögel.wav")
    for name in ("a.wav", "b.wav", "64760.wav", "kitchen/c.wav", nfd):
        (root / name).write_bytes(wave)
    return root


def prepare(tmp_path, clips, text, options):
    (tmp_path / "list.csv").write_text(text, encoding="utf-8", newline="")
    words = ["prepare", "folder", "--csv", str(tmp_path / "list.csv"), "--audio", str(clips)]
    return asjax_main([*words, *options, "--out", str(tmp_path / "out")])


@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_was_refused_is_read(name, tmp_path, clips, capsys):
    text, options, words = LISTS[name]
    assert prepare(tmp_path, clips, text, options) == 0
    out = capsys.readouterr()
    assert words in out.out + out.err
    if name == "label_nfc_nfd":
        assert sources.own_labels(tmp_path / "out").ids == ("Vögel",)


def test_a_split_that_cannot_be_is_told_what_it_may_be(tmp_path, clips, capsys):
    text = "filename,labels,split\na.wav,Speech,training set\nb.wav,Music,my-test\n"
    assert prepare(tmp_path, clips, text, []) == 2
    assert "the name of a split has only letters, digits and _" in capsys.readouterr().err


def test_labels_of_another_set_are_told_the_way(tmp_path, clips, capsys):
    assert prepare(tmp_path, clips, LISTS["fsd50k_dev"][0], []) == 2
    assert "--labels fsd50k200" in capsys.readouterr().err
    by_mid = ["--columns", "file=fname,labels=mids"]
    assert prepare(tmp_path, clips, LISTS["fsd50k_dev"][0], by_mid) == 0
    source = sources.records(labels.get("audioset527"), path=tmp_path / "out")
    assert np.flatnonzero(source.labels.toarray()[0]).tolist() == sorted(
        labels.get("audioset527").index(m) for m in ("/m/02sgy", "/m/0342h", "/m/04rlf")
    )


def test_names_that_could_steer_a_terminal_are_printed_harmlessly(tmp_path, clips, capsys):
    rows = "".join(f"\x1b]0;owned\x07{i}{'x' * 3000}.wav,Speech\n" for i in range(3))
    assert prepare(tmp_path, clips, f"filename,labels\na.wav,Speech\n{rows}", []) == 0
    out = capsys.readouterr()
    assert "left out 3:" in out.out
    for text in (out.out, out.err):
        assert text.replace("\n", "").replace("\r", "").isprintable()
        assert max(map(len, text.split("\n"))) < 600

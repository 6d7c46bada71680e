"""The clips of data are found in files of logits whose names are spelled in another way."""

import pytest

from asjax.teachers import names

ID = "09c885WMtMw"


@pytest.mark.parametrize(
    ("clip", "name"),
    [
        (ID, f"Y{ID}"),
        (f"Y{ID}", ID),
        (f"Y{ID}.wav", f"Y{ID}"),
        (f"audio/Y{ID}.MP3", f"Y{ID}"),
        (f"{ID}_30000", f"Y{ID}"),
        (f"{ID}.flac", f"{ID}.wav"),
        ("my.file.wav", "my.file"),
        ("Yabcdefghi3m", "Yabcdefghi"),  # mangled by rstrip(".mp3")
        ("abcdefghi3m", "Yabcdefghi"),
    ],
)
def test_one_clip(clip, name):
    found = names.match(["Yother______", name], [clip])
    assert found.rows == {clip: 1}
    assert found.missing == []
    assert found.extra == 1


def test_exact_names_come_first():
    found = names.match(["a.wav", "a", "a.mp3"], ["a", "a.mp3"])
    assert found.rows == {"a": 1, "a.mp3": 2}
    found = names.match(["Yabcdefghijm", "Yabcdefghij"], ["Yabcdefghijm", "Yabcdefghij3"])
    assert found.rows == {"Yabcdefghijm": 0, "Yabcdefghij3": 1}


def test_a_doubtful_name_is_given_to_nobody():
    found = names.match(["Yabcdefghij"], ["Yabcdefghijm", "Yabcdefghijp", "b"])
    assert found.rows == {}
    assert dict(found.missing) == {
        "Yabcdefghijm": "Yabcdefghij could also be Yabcdefghijp",
        "Yabcdefghijp": "Yabcdefghij could also be Yabcdefghijm",
        "b": "no logits in the file",
    }
    assert found.extra == 1

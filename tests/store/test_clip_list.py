"""Lists of clips: their hash against hashlib, and files that are changed or wrong."""

import hashlib

import numpy as np
import pytest

from asjax.config import AsjaxError
from asjax.store import clip_list

SHAS = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("b", "-a", 'c,"d')}


def test_the_hash_is_that_of_the_sorted_lines_and_the_file_comes_back(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(clip_list.text(SHAS.items()))
    odd = SHAS['c,"d']
    lines = sorted([f"b,{SHAS['b']}", f"-a,{SHAS['-a']}", f'"c,""d",{odd}'])
    whole = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    assert path.read_text().splitlines() == [
        "# asjax clip list 1", "# clips 3", f"# sha256 {whole}", "id,sha256", *lines
    ]  # fmt: skip
    assert clip_list.read(path) == SHAS
    about = clip_list.about(list(SHAS), clip_list.as_array(SHAS.values()))
    assert about["content"] == whole
    assert about["clips"] == 3
    plain = "".join(f"{line}\n" for line in sorted(["-a,", "b,", '"c,""d",']))
    assert about["ids"] == hashlib.sha256(plain.encode()).hexdigest()


def test_the_order_does_not_matter_and_everything_else_does():
    ids, raw = list(SHAS), clip_list.as_array(SHAS.values())
    about = clip_list.about(ids, raw)
    assert clip_list.about(ids[::-1], raw[::-1]) == about
    assert clip_list.difference(about, clip_list.about(ids[::-1], raw[::-1])) == ""
    fewer = clip_list.about(ids[:2], raw[:2])
    assert "different clips, 3 (" in clip_list.difference(about, fewer)
    other = clip_list.about(ids, raw[::-1])
    assert "the same clips with other audio" in clip_list.difference(about, other)
    unknown = raw.copy()
    unknown[1] = 0
    assert clip_list.about(ids, unknown)["content"] is None
    assert clip_list.about(ids, None) == {**about, "content": None}
    np.testing.assert_array_equal(clip_list.as_array(clip_list.as_hex(unknown)), unknown)


def test_a_plain_list_of_ids_is_a_list(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("-a\nb\n\nc\n")
    assert clip_list.read(path) == {"-a": "", "b": "", "c": ""}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[:-10], "was changed or cut"),
        (lambda t: t.replace("b,", "e,"), "was changed or cut"),
        (lambda t: "id\na\na\n", "names a clip twice"),
        (lambda t: "a,b,c\n", "must be id,sha256"),
        (lambda t: "", "names no clip"),
        (lambda t: "\x00\udcff", "cannot be read"),
    ],
)
def test_a_damaged_list_is_one_line(tmp_path, change, message):
    path = tmp_path / "list.csv"
    text = change(clip_list.text(SHAS.items()))
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(AsjaxError, match=message):
        clip_list.read(path)
    with pytest.raises(AsjaxError, match="cannot be read"):
        clip_list.read(tmp_path / "nothing")

"""The list of bad clips: its content, when it stops a run, the cost of a clip."""

import csv
import os

import pytest

from asjax.config import AsjaxError
from asjax.data import quarantine
from asjax.data.quarantine import Quarantine


def test_quarantine_counts_sorts_and_goes_on_from_its_file(tmp_path):
    path = tmp_path / "run" / "quarantine.csv"
    quarantine = Quarantine(path, total=100)
    quarantine.add([])
    assert not path.exists()
    quarantine.add([("b", 'says "no", twice'), ("a", "empty"), ("b", "another reason")])
    lines = ["id,reason,count", "a,empty,1", 'b,"says ""no"", twice",2']
    assert path.read_text().splitlines() == lines
    again = Quarantine(path, total=100)
    again.add([("a", "empty")])
    assert again.count == 2
    assert path.read_text().splitlines()[1] == "a,empty,2"
    assert os.listdir(path.parent) == ["quarantine.csv"]


def test_quarantine_stops_above_its_rate_and_names_file_and_reasons(tmp_path):
    path = tmp_path / "quarantine.csv"
    quarantine = Quarantine(path, total=60, max_rate=0.05)
    quarantine.add([("a", "a is empty"), ("b", "b is damaged"), ("c", "c is text")] * 9)
    with pytest.raises(AsjaxError) as raised:
        quarantine.add([("d", "d is missing")])
    message = str(raised.value)
    assert "4 of 60 clips" in message
    assert str(path) in message
    assert "a is empty; b is damaged; c is text)" in message
    assert "max_bad" in message
    assert "d,d is missing,1" in path.read_text().splitlines()


def test_quarantine_refuses_files_of_others_and_full_disks(tmp_path):
    path = tmp_path / "quarantine.csv"
    path.write_text("filename,labels\nx,y\n")
    with pytest.raises(AsjaxError, match="move it away"):
        Quarantine(path, total=10)
    with pytest.raises(AsjaxError, match="max_bad must be 0 to 1"):
        Quarantine(tmp_path / "new.csv", total=10, max_rate=5)
    (tmp_path / "file").write_text("")
    with pytest.raises(AsjaxError, match="cannot be written"):
        Quarantine(tmp_path / "file" / "q.csv", total=10).add([("a", "b")])


def test_a_long_quarantine_grows_by_lines_and_is_tidied_when_closed(tmp_path):
    """The cost of a clip does not depend on the length of the list, and a kill loses nothing."""
    path = tmp_path / "quarantine.csv"
    many = [(f"clip{i:05d}", f"clip{i:05d} is, empty\nor so") for i in range(3000)]
    with Quarantine(path, total=10**6) as quarantine:
        quarantine.add(many)
        size, inode = path.stat().st_size, path.stat().st_ino
        for number in range(40):
            quarantine.add([("new", "new is empty"), many[number]])
            assert path.stat().st_ino == inode  # not rewritten
        grown = path.stat().st_size - size
        assert 40 * len("new,new is empty,1") < grown < 40 * 100
        assert quarantine.count == 3001
        killed = tmp_path / "killed.csv"
        killed.write_bytes(path.read_bytes() + b"half,a li")
    rows = list(csv.reader(path.open(newline="")))
    assert rows[0] == ["id", "reason", "count"]
    assert rows[1:] == sorted(rows[1:])
    counts = {clip: int(count) for clip, _, count in rows[1:]}
    assert len(rows) == 1 + len(counts) == 3002
    assert counts["new"] == 40
    assert [counts[clip] for clip, _ in many] == [2] * 40 + [1] * 2960
    assert Quarantine(killed, total=10**6).count == 3001
    assert killed.read_bytes() == path.read_bytes()
    with Quarantine(killed, total=10**6) as quarantine:
        for _ in range(3):  # the list is rewritten when its size has doubled
            quarantine.add(many)
        assert len(killed.read_text().splitlines()) < 3 * 2 * 3002
    assert list(csv.reader(killed.open(newline="")))[1][2] == "5"


def test_processes_have_one_limit_for_all_of_them_and_count_a_clip_once(tmp_path, monkeypatch):
    monkeypatch.setattr(quarantine, "OTHERS_S", 0.0)
    lists = [quarantine.in_folder(tmp_path, 100, 0.05, process) for process in range(3)]
    for one in lists:
        one.add([("same", "cut"), ("same", "cut")])
    lists[1].add([("b", "cut"), ("c", "cut")])
    lists[2].add([("d", "cut"), ("e", "cut")])
    assert lists[2].count == 5
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"quarantine.csv", "quarantine-1.csv", "quarantine-2.csv"}
    with pytest.raises(AsjaxError, match=r"6 of 100 clips .*listed in \S+/quarantine\*.csv"):
        lists[0].add([("f", "cut")])
    with quarantine.in_folder(tmp_path, 100, 0.05, 0) as again:  # a run that goes on with one
        assert again.count == 2
        with pytest.raises(AsjaxError, match="6 of 100 clips"):
            again.add([("same", "cut")])


def test_lists_of_others_are_read_at_most_every_few_seconds(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(quarantine.time, "monotonic", lambda: clock[0])
    one, two = (quarantine.in_folder(tmp_path, 100, 0.5, process) for process in range(2))
    one.add([("a", "cut")])
    two.add([("b", "cut")])
    one.add([("c", "cut")])
    assert one.count == 2
    clock[0] += quarantine.OTHERS_S
    one.add([("c", "cut")])
    assert one.count == 3

"""Label lists in the formats of users, spreadsheets and data sets; nested folders; groups."""

import os
from unicodedata import normalize

import numpy as np
import pytest
import sounds
from scipy import sparse

from asjax import build, labels
from asjax.__main__ import main as asjax_main
from asjax.config import AsjaxError
from asjax.data import audioset, content, groups, layouts, lists, names, records, sources
from asjax.labels import LabelSet

PETS = LabelSet("pets", ("/m/dog", "/m/cat", "/m/cow"), ("Dog", "Cat", "Cow"))
CLIP = sounds.encode(sounds.noise(0.05, rate=8000), 8000)


def clips(root, *paths):
    for i, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(CLIP[:-2] + bytes([i, 0]))
    return root


def read(tmp_path, text, encoding="utf-8", label_set=PETS, **options):
    table = tmp_path / "list.csv"
    table.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return lists.read_folder(table, tmp_path, label_set, **options)


def short(found):
    return [(f.row.filename, [PETS.names[i] for i in f.classes], f.row.split) for f in found]


EXPECTED = [("a.wav", ["Dog"], "fold1"), ("b.wav", ["Dog", "Cat"], "fold2")]
PLAIN = "filename,labels,fold\na.wav,Dog,1\nb.wav,Dog;Cat,2\n"


# --------------------------------------------------------------------- text and its separators


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (PLAIN, "utf-8"),
        (PLAIN, "utf-8-sig"),
        (PLAIN, "utf-16"),
        (PLAIN, "utf-16-le"),
        (PLAIN, "utf-16-be"),
        ("\ufeff" + PLAIN, "utf-16-be"),
        (PLAIN.replace("\n", "\r\n"), "utf-8"),
        (PLAIN.replace("\n", "\r"), "utf-8"),
        ('filename;labels;fold\na.wav;Dog;1\nb.wav;"Dog;Cat";2\n', "utf-8"),
        ("filename\tlabels\tfold\na.wav\tDog\t1\nb.wav\tDog;Cat\t2\n", "utf-16"),
        ("filename|labels|fold\na.wav|Dog|1\nb.wav|Dog;Cat|2\n", "utf-8"),
        ('sep=;\nfilename;labels;fold\na.wav;Dog;1\nb.wav;"Dog;Cat";2\n', "utf-8-sig"),
        ("Filename, Labels, Fold\na.wav, Dog, 1\nb.wav, Dog; Cat, 2\n", "utf-8"),
        ('"filename","labels","fold"\n"a.wav","Dog","1"\n"b.wav","Dog;Cat","2"\n', "utf-8"),
        ("filename,labels,fold\n'a.wav','Dog',1\n“b.wav”,“Dog;Cat”,„2“\n", "utf-8"),
        (",filename,labels,fold\n0,a.wav,Dog,1\n1,b.wav,Dog;Cat,2\n", "utf-8"),  # pandas' index
        ("filename,labels,fold\na.wav,['Dog'],1\nb.wav,\"['Dog', 'Cat']\",2\n", "utf-8"),
        ("filename,labels,fold\na.wav,['Dog'],1\nb.wav,['Dog' 'Cat'],2\n", "utf-8"),  # numpy's
    ],
)
def test_a_list_is_read_however_it_was_saved(tmp_path, text, encoding):
    clips(tmp_path, "a.wav", "b.wav")
    assert short(read(tmp_path, text, encoding)) == EXPECTED


def test_bytes_that_are_no_text_are_told_with_their_line(tmp_path):
    with pytest.raises(AsjaxError, match="UTF-8 CSV: line 3 holds the byte 0xf6; save it as UTF-8"):
        read(tmp_path, "filename,labels\na.wav,Dog\nvögel.wav,Dog\n", "latin-1")


@pytest.mark.parametrize(
    ("header", "option"),
    [
        ("file,label", "--columns file=file,labels=label"),
        ("path;species", "--columns file=path,labels=species"),
        ("Audio_File\tClass_Name\tx", "--columns file=Audio_File,labels=Class_Name"),
        ("filename,class", "--columns file=filename,labels=class"),
        ("file_nam,lable", "--columns file=file_nam,labels=lable"),
    ],
)
def test_unknown_columns_are_named_with_the_option_to_give(tmp_path, header, option):
    with pytest.raises(AsjaxError, match="must start with the header filename,labels") as caught:
        read(tmp_path, f"{header}\na.wav,Dog\n")
    assert str(caught.value).endswith(f"perhaps give {option}")
    clips(tmp_path, "a.wav")
    separator = next(s for s in ";\t," if s in header)
    row = separator.join(["a.wav", "Dog", "x"][: header.count(separator) + 1])
    columns = option.removeprefix("--columns ")
    assert short(read(tmp_path, f"{header}\n{row}\n", columns=columns))[0][1] == ["Dog"]


def test_columns_are_checked(tmp_path):
    assert layouts.parse_columns("file=a, labels = b c") == {"file": "a", "labels": "b c"}
    for columns, words in [
        ({"fil": "x"}, "role 'fil' does not exist; did you mean 'file'"),
        ({"labels": "tags"}, "does not have the columns tags"),
        ("file", "must look like file=NAME"),
    ]:
        with pytest.raises(AsjaxError, match=words):
            read(tmp_path, PLAIN, columns=columns)


# ------------------------------------------------------------------------ published layouts


@pytest.mark.parametrize(
    "header", ["filename,labels,labels", "Filename,filename,labels", "filename;labels;x;X"]
)
def test_a_column_that_is_there_twice_is_refused(tmp_path, header):
    clips(tmp_path, "a.wav")
    row = "a.wav;Dog;1;2" if ";" in header else "a.wav,Dog,Cat"
    with pytest.raises(AsjaxError, match="has the column (labels|filename|x) twice; rename"):
        read(tmp_path, f"{header}\n{row}\n")


def test_fsd50k(tmp_path):
    clips(tmp_path, "64760.wav", "1.wav")
    text = 'fname,labels,mids,split\n64760,"Electric_guitar,Guitar,Music","/m/02sgy,/m/0342h,'
    text += '/m/04rlf",train\n1,"Bark,Dog","/m/05tny_,/m/0bt9lr",val\n'
    fsd = labels.get("fsd50k200")
    found = read(tmp_path, text, label_set=fsd)
    assert [f.row.filename for f in found] == ["64760", "1"]
    assert [os.path.basename(f.path) for f in found] == ["64760.wav", "1.wav"]
    assert [fsd.names[i] for i in found[0].classes] == ["Electric_guitar", "Guitar", "Music"]
    assert [f.row.split for f in found] == ["train", "val"]
    audioset = labels.get("audioset527")
    with pytest.raises(AsjaxError, match="list of FSD50K.*fsd50k200.*labels=mids"):
        read(tmp_path, text, label_set=audioset)
    by_mid = read(tmp_path, text, label_set=audioset, columns="file=fname,labels=mids")
    assert [audioset.names[i] for i in by_mid[1].classes] == ["Dog", "Bark"]


def test_esc50(tmp_path):
    clips(tmp_path, "1-100032-A-0.wav")
    text = "filename,fold,target,category,esc10,src_file,take\n"
    text += "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
    (row,) = read(tmp_path, text)
    assert (row.row.labels, row.row.split, row.row.group) == (("dog",), "fold1", "100032")


def test_urbansound8k(tmp_path):
    clips(tmp_path, "fold5/100032-3-0-0.wav", "fold10/7-1-0-0.wav")
    text = "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
    text += "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog\n7-1-0-0.wav,7,0,4,1,10,1,cat\n"
    found = read(tmp_path, text)
    assert [f.row.filename for f in found] == ["fold5/100032-3-0-0.wav", "fold10/7-1-0-0.wav"]
    assert [f.row.split for f in found] == ["fold5", "fold10"]
    assert [f.row.group for f in found] == ["100032", "7"]
    assert all(f.size > 0 for f in found)
    flat = clips(tmp_path / "flat", "100032-3-0-0.wav", "7-1-0-0.wav")
    found = lists.read_folder(tmp_path / "list.csv", flat, PETS)
    assert all(f.size > 0 for f in found)


def test_audiofolder_of_the_hub(tmp_path):
    clips(tmp_path, "data/a.wav", "b.wav")
    found = read(tmp_path, "file_name,label\ndata/a.wav,Dog\nb.wav,Cat\n")
    assert short(found) == [("data/a.wav", ["Dog"], "train"), ("b.wav", ["Cat"], "train")]


@pytest.mark.parametrize(
    "name",
    ["--PJHxphWEs.wav", "Y--PJHxphWEs.flac", "--PJHxphWEs_30.wav", "--PJHxphWEs_30.000_40.000.wav",
     "--PJHxphWEs_30000_40000.mp3", "Y--PJHxphWEs_30.0_40.0.wav"],
)  # fmt: skip
def test_audioset_as_pandas_writes_it(tmp_path, name):
    clips(tmp_path, name)
    text = ",YTID,start_seconds,end_seconds,positive_labels\n"
    text += '0,--PJHxphWEs,30.0,40.0,"/m/09x0r,/t/dd00088"\n'
    (found,) = read(tmp_path, text, label_set=labels.get("audioset527"))
    assert os.path.basename(found.path) == name
    assert found.row.labels == ("/m/09x0r", "/t/dd00088")
    assert found.row.filename == "--PJHxphWEs"


def test_segment_lists_with_spaces_marks_and_headers(tmp_path):
    head = "# num_segs=1, num_positive_labels=2\n"
    line = '--PJHxphWEs, 30.000, 40.000, "/m/09x0r, /t/dd00088"\n'
    for text in (
        head + line,
        "\ufeff" + head + line,
        head + line.replace(", ", ","),
        "YTID,start_seconds,end_seconds,positive_labels\n" + line,
    ):
        path = tmp_path / "segments.csv"
        path.write_text(text, encoding="utf-8")
        table = audioset.read_segments(path, "audioset527", progress=False)
        named = [labels.get("audioset527").ids[i] for i in table.indices]
        assert named == ["/m/09x0r", "/t/dd00088"]
    path.write_text(f",YTID,start_seconds,end_seconds,positive_labels\n0,{line}", encoding="utf-8")
    with pytest.raises(AsjaxError, match=r"index before YTID; write it with to_csv\(index=False\)"):
        audioset.read_segments(path, "audioset527", progress=False)


# ------------------------------------------------------------------------- labels and splits


def test_labels_are_compared_in_nfc(tmp_path):
    clips(tmp_path, "a.wav", "b.wav")
    nfc, nfd = (normalize(form, "Vögel") for form in ("NFC", "NFD"))
    table = tmp_path / "list.csv"
    table.write_text(f"filename,labels\na.wav,{nfc}\nb.wav,{nfd}\n", encoding="utf-8")
    own = sources.own_labels(table)
    assert own.ids == (nfc,)
    source = build.source(dict(name="folder", csv=str(table)), own)
    assert source.labels.toarray().tolist() == [[1], [1]]
    composed = LabelSet("x", (nfd,), (nfd,))
    assert composed.index(nfc) == composed.index(nfd) == composed.index(nfc.upper()) == 0
    with pytest.raises(AsjaxError, match="twice"):
        LabelSet("x", (nfc, nfd), ("a", "b"))
    with pytest.raises(AsjaxError, match="twice"):
        LabelSet("x", ("a", "b"), (nfc, nfd))


def test_control_characters_in_labels_are_refused():
    with pytest.raises(AsjaxError, match="control character"):
        LabelSet("x", ("a",), ("\x1b[31mred",))


def test_clips_without_labels_are_negatives_and_counted(tmp_path):
    clips(tmp_path, "a.wav", "b.wav", "c.wav")
    with pytest.warns(UserWarning, match="2 of its 3 clips have no labels.*negative example"):
        found = read(tmp_path, "filename,labels\na.wav,Dog\nb.wav,\nc.wav, ; \n")
    assert [f.classes.tolist() for f in found] == [[0], [], []]
    with pytest.raises(AsjaxError, match="no label in any of its rows"):
        read(tmp_path, "filename,labels\na.wav,\nb.wav,\n")


def test_labels_with_commas_are_told(tmp_path):
    clips(tmp_path, "a.wav")
    text = 'filename,labels\na.wav,"Dog,Cat"\n'
    with pytest.raises(AsjaxError, match="several labels with commas: give label_separator=','"):
        read(tmp_path, text)
    assert short(read(tmp_path, text, label_separator=","))[0][1] == ["Dog", "Cat"]
    with pytest.warns(UserWarning, match="1 labels hold commas, such as 'Dog,Cat'"):
        assert sources.own_labels(tmp_path / "list.csv").ids == ("Dog,Cat",)


def test_what_a_split_may_be_called_is_told(tmp_path):
    clips(tmp_path, "a.wav", "b.wav")
    text = "filename,labels,split\na.wav,Dog,training set\nb.wav,Cat,my-test\n"
    words = "2 unusable splits: line 2 'training set', line 3 'my-test'.*such as training_set"
    with pytest.raises(AsjaxError, match=words):
        read(tmp_path, text)


# ---------------------------------------------------------------------------- files on disk


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_files_are_found_across_unicode_forms(tmp_path, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    clips(tmp_path, normalize(form, "größe/vögel.wav"))
    asked = normalize(other, "größe/vögel.wav")
    (found,) = read(tmp_path, f"filename,labels\n{asked},Dog\n")
    assert found.size == len(CLIP)
    assert found.row.filename == normalize("NFC", asked)
    assert normalize("NFC", os.path.relpath(found.path, tmp_path)) == normalize("NFC", asked)


@pytest.mark.skipif(os.sep != "/", reason="backslashes are separators there")
def test_backslashes_are_slashes_unless_they_are_in_the_name(tmp_path):
    clips(tmp_path, "kitchen/c.wav", "odd\\d.wav")
    found = read(tmp_path, "filename,labels\nkitchen\\c.wav,Dog\nodd\\d.wav,Cat\n")
    assert [os.path.relpath(f.path, tmp_path) for f in found] == ["kitchen/c.wav", "odd\\d.wav"]


def test_extensions_may_be_missing_where_it_is_clear_which(tmp_path):
    clips(tmp_path, "a.wav", "b.wav", "b.flac", "c.txt", "D.wav")
    found = names.Names(tmp_path)
    assert found.find("a").path == os.path.join(tmp_path, "a.wav")
    assert found.find("b") == (os.path.join(tmp_path, "b"), -1, " (it may mean b.flac or b.wav)")
    assert found.find("c").size == -1
    assert found.find("d.wav").hint in (" (there is 'D.wav')", "")
    with pytest.raises(
        AsjaxError, match=r"missing files: line 2 'b' \(it may mean b.flac or b.wav"
    ):
        read(tmp_path, "filename,labels\nb,Dog\n")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_fifo_in_a_list_is_called_a_fifo(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(AsjaxError, match=r"missing files: line 2 'a.wav' \(it is a FIFO\)"):
        read(tmp_path, "filename,labels\na.wav,Dog\n")


def test_names_in_errors_are_harmless_and_short(tmp_path):
    with pytest.raises(AsjaxError) as caught:
        read(tmp_path, f"filename,labels\n\x1b[31m{'x' * 5000}.wav,Dog\n")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


# ------------------------------------------------------------------------- folders of folders


def test_a_folder_of_folders_has_its_classes_as_names(tmp_path):
    clips(tmp_path / "set", "dog/1.wav", "dog/deep/2.wav", "Cat/1.wav", "._x.wav", "dog/._1.wav",
          "__MACOSX/dog/1.wav")  # fmt: skip
    source = build.source(dict(name="folder", root=str(tmp_path / "set")), PETS)
    assert source.ids == ["Cat/1.wav", "dog/1.wav", "dog/deep/2.wav"]
    assert source.labels.toarray().tolist() == [[0, 1, 0], [1, 0, 0], [1, 0, 0]]
    assert set(source.split) == {"train"}
    own = sources.own_labels(tmp_path / "set")
    assert own.ids == ("Cat", "dog")
    cfg = dict(
        labels=dict(name="own"), data=dict(train=dict(name="folder", root=str(tmp_path / "set")))
    )
    assert build.label_set(cfg).ids == ("Cat", "dog")


def test_a_folder_of_splits_of_folders(tmp_path):
    clips(tmp_path, "train/dog/1.wav", "test/cat/1.wav", "train/cow/x/1.wav")
    source = build.source(dict(name="folder", root=str(tmp_path)), PETS)
    assert source.split == ["test", "train", "train"]
    assert source.labels.indices.tolist() == [1, 2, 0]
    folds = clips(tmp_path / "f", "fold1/dog/1.wav", "fold2/cat/1.wav")
    assert build.source(dict(name="folder", root=str(folds)), PETS).split == ["fold1", "fold2"]


def test_strays_and_unknown_folders_are_errors(tmp_path):
    clips(tmp_path, "dog/1.wav", "2.wav")
    with pytest.raises(AsjaxError, match="1 audio files outside of any class folder: '2.wav'"):
        build.source(dict(name="folder", root=str(tmp_path)), PETS)
    (tmp_path / "2.wav").unlink()
    clips(tmp_path, "dgo/1.wav")
    with pytest.raises(AsjaxError, match="unknown labels: line 1 'dgo'"):
        build.source(dict(name="folder", root=str(tmp_path)), PETS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AsjaxError, match="holds no audio"):
        build.source(dict(name="folder", root=str(tmp_path / "empty")), PETS)
    with pytest.raises(AsjaxError, match="needs csv"):
        build.source(dict(name="folder"), PETS)


@pytest.mark.parametrize(
    "odd", ["background/9.wav", "train/9.wav", "train_set/dog/9.wav", "9.wav", "noise/cat/9.wav"]
)
def test_every_file_must_fit_splits_of_classes(tmp_path, odd):
    clips(tmp_path, "train/dog/1.wav", "dev/dog/1.wav", "test/dog/deep/1.wav", odd)
    for work in (sources.own_labels, lambda root: lists.read_folder("", root, PETS)):
        with pytest.raises(AsjaxError, match=f"split/class/file, got {odd}; move") as caught:
            work(tmp_path)
        assert "\n" not in str(caught.value)


def test_flat_folders_named_as_splits_are_classes(tmp_path):
    """A train is also a sound."""
    clips(tmp_path, "train/1.wav", "dog/1.wav")
    assert sources.own_labels(tmp_path).ids == ("dog", "train")


def test_dot_folders_are_no_classes(tmp_path):
    clips(tmp_path, "dog/1.wav", "cat/.cache/2.wav", "cat/1.wav", ".cache/x/1.wav")
    assert sources.own_labels(tmp_path).ids == ("cat", "dog")
    found = lists.read_folder("", tmp_path, PETS)
    assert [f.row.filename for f in found] == ["cat/1.wav", "dog/1.wav"]


def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    clips(tmp_path, "else/cat/1.wav", "set/train/dog/1.wav", "set/test/cow/1.wav")
    for link, to in {
        "train/cat": "else/cat", "test/cat": "else/cat", "train/dog/up": "set",
        "train/dog/over": "set/test/cow", "test/cow/back": "set/train/dog",
    }.items():  # fmt: skip
        (tmp_path / "set" / link).symlink_to(tmp_path / to)
    found = lists.read_folder("", tmp_path / "set", PETS)
    assert [f.row.filename for f in found] == [
        "test/cat/1.wav", "test/cow/1.wav", "test/cow/back/1.wav",
        "train/cat/1.wav", "train/dog/1.wav", "train/dog/over/1.wav",
    ]  # fmt: skip


def test_prepare_takes_a_folder_of_folders(tmp_path, capsys):
    clips(tmp_path / "set", "dog/1.wav", "dog/2.wav", "cat/1.wav", "cat/2.wav")
    words = ["prepare", "folder", "--audio", str(tmp_path / "set"), "--labels", "own", "--out"]
    assert asjax_main([*words, str(tmp_path / "out"), "--folds", "2"]) == 0
    assert "kept 4 clips (fold1 2, fold2 2)" in capsys.readouterr().out
    own = sources.own_labels(tmp_path / "out")
    assert own.ids == ("cat", "dog")
    stored = build.source(dict(name="records", path=str(tmp_path / "out")), own)
    assert sorted(stored.ids) == ["cat/1.wav", "cat/2.wav", "dog/1.wav", "dog/2.wav"]


# ------------------------------------------------------------------------------------ groups


def test_groups_are_carried_by_lists_records_and_selections(tmp_path, capsys):
    clips(tmp_path, *(f"{i}.wav" for i in range(6)))
    rows = "".join(f"{i}.wav,Dog,site {i // 2},{1 + i // 3}\n" for i in range(6))
    (tmp_path / "list.csv").write_text("filename,labels,group,fold\n" + rows)
    spec = dict(name="folder", csv=str(tmp_path / "list.csv"))
    with pytest.warns(UserWarning, match="1 groups have clips in more than one split.*'site 1'"):
        source = build.source(spec, PETS)
    assert source.group == [f"site {i // 2}" for i in range(6)]
    assert source.select("fold2").group == ["site 1", "site 2", "site 2"]
    PETS.to_csv(tmp_path / "pets.csv")
    words = ["prepare", "folder", "--csv", str(tmp_path / "list.csv"), "--audio", str(tmp_path)]
    words += ["--labels", str(tmp_path / "pets.csv"), "--out", str(tmp_path / "out")]
    assert asjax_main(words) == 0
    capsys.readouterr()
    stored = build.source(dict(name="records", path=str(tmp_path / "out"), folds=3), PETS)
    assert stored.group == source.group
    assert len(set(zip(stored.group, stored.split, strict=True))) == 3
    named = {"split": "fold", "group": "fold"}
    assert build.source({**spec, "columns": named}, PETS).group == ["1"] * 3 + ["2"] * 3
    groups_file = records.find(tmp_path / "out") / "groups.csv"
    groups_file.write_text(groups_file.read_text().replace("site 2", "site 1"))
    with pytest.raises(AsjaxError, match=r"groups\.csv is missing or was changed"):
        build.source(dict(name="records", path=str(tmp_path / "out")), PETS)


def test_folds_keep_groups_together_and_spread_classes():
    rng = np.random.default_rng(0)
    group = [f"g{i}" for i in np.sort(rng.integers(0, 120, 1200))]
    table = sparse.csr_matrix(
        (rng.random((1200, 6)) < [0.5, 0.3, 0.1, 0.1, 0.05, 0.05]).astype("i1")
    )
    found = groups.folds(group, table, 5)
    assert groups.straddling(group, found) == []
    assert set(found) == {f"fold{i}" for i in range(1, 6)}
    sizes = np.array([found.count(f"fold{i}") for i in range(1, 6)])
    assert sizes.max() - sizes.min() <= 30
    per_fold = np.array(
        [table[[f == f"fold{i}" for f in found]].sum(0).A1 for i in range(1, 6)]
    )  # fmt: skip
    assert (np.abs(per_fold / table.sum(0).A1 - 0.2) < 0.06).all()
    order = rng.permutation(1200)  # the order of the list does not matter
    again = groups.folds([group[i] for i in order], table[order], 5)
    assert [again[i] for i in np.argsort(order)] == found
    for count in (1, 2.5, True, 1000):
        with pytest.raises(AsjaxError, match="folds must be"):
            groups.folds(group, table, count)


def test_folds_replace_the_splits_of_a_source(tmp_path):
    whole = build.source("esc10()", labels.get("audioset527"))
    source = build.source("esc10(folds=4, splits=['fold1', 'fold2'])", labels.get("audioset527"))
    assert 190 <= len(source) <= 210
    assert source.hash != whole.hash
    counts = np.asarray(source.labels.sum(0)).ravel()
    assert set(counts[counts > 0]) <= {19, 20, 21}


# --------------------------------------------------------------------------- content of files


@pytest.mark.parametrize("full", [True, False])
def test_a_swapped_clip_of_the_same_size_is_noticed_and_a_copy_is_not(tmp_path, full, monkeypatch):
    if not full:
        monkeypatch.setattr(content, "FULL_BYTES", 0)
    root = tmp_path / "set"
    root.mkdir()
    (root / "a.wav").write_bytes(sounds.encode(sounds.noise(4, rate=8000), 8000))
    (root / "list.csv").write_text("filename,labels\na.wav,Dog\n")
    spec = dict(name="folder", csv=str(root / "list.csv"))
    first = build.source(spec, PETS).hash
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("a.wav", "list.csv"):
        (copy / name).write_bytes((root / name).read_bytes())
    os.utime(copy / "a.wav", (1, 1))
    assert build.source(dict(name="folder", csv=str(copy / "list.csv")), PETS).hash == first
    other = sounds.encode(sounds.noise(4, rate=8000, seed=1), 8000)
    assert len(other) == (root / "a.wav").stat().st_size
    (root / "a.wav").write_bytes(other)
    os.utime(root / "a.wav", (1, 1))
    assert build.source(spec, PETS).hash != first


def test_small_sets_are_read_to_the_last_byte(tmp_path):
    data = bytearray(100_000)
    path = tmp_path / "x"
    seen = set()
    for at in (None, 0, 50_001, 99_999):
        changed = bytearray(data)
        if at is not None:
            changed[at] = 1
        path.write_bytes(changed)
        content._known.clear()
        seen.add(content.digests([str(path)], [len(data)])[0])
    assert len(seen) == 4
    with pytest.raises(AsjaxError, match="cannot be read"):
        content.digests([str(tmp_path / "gone")], [1])

"""Data sets written by TFDS, with every kind of audio, labels and ids."""

import io
import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from asjax import build, labels
from asjax.config import AsjaxError
from asjax.data import records, sources, tfds
from asjax.labels import LabelSet

RATE = 8000
LABELS = LabelSet("three", ("/l", "/h", "/x"), ("low", "high", "noise, other"))


def wave(i, n=600):
    """int16 [n] with both ends of the range."""
    x = (9000 * np.sin(np.arange(n + i) * 0.1 * (i + 1))).astype(np.int16)
    x[:2] = -32768, 32767
    return x


def as_file(x, kind="FLAC"):
    out = io.BytesIO()
    soundfile.write(out, x, RATE, format=kind, subtype="PCM_16")
    return out.getvalue()


def write(root, features, examples, called="tones", **splits):
    """A data set written by TFDS itself: splits name -> number of examples."""
    import tensorflow_datasets as tf_datasets

    class Written(tf_datasets.core.GeneratorBasedBuilder):
        name = called
        VERSION = tf_datasets.core.Version("1.2.0")
        pkg_dir_path = root  # else TFDS looks for a README beside this file

        def _info(self):
            kinds = tf_datasets.features.FeaturesDict(features(tf_datasets.features))
            return tf_datasets.core.DatasetInfo(builder=self, features=kinds)

        def _split_generators(self, manager):
            sizes = splits or {"train": 7, "test": 3}
            starts = np.cumsum([0, *sizes.values()])
            pairs = zip(sizes, starts, strict=False)
            return {name: self._some(int(start), sizes[name]) for name, start in pairs}

        def _some(self, start, count):
            for i in range(start, start + count):
                yield i, examples(i)

        def _generate_examples(self):
            raise AssertionError

    builder = Written(data_dir=str(root), file_format="array_record")
    tf_datasets.disable_progress_bar()
    builder.download_and_prepare()
    return root / called / "1.2.0"


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """A data set with numbers and files as audio, and classes, texts and sequences as labels."""

    def features(f):
        names = ["high", "low", "noise, other"]  # not in the order of the label set
        return {
            "audio": f.Tensor(shape=(None,), dtype=np.int16),
            "long": f.Tensor(shape=(None,), dtype=np.int64),
            "deep": f.Tensor(shape=(None,), dtype=np.int32),
            "thin": f.Tensor(shape=(None,), dtype=np.int8),
            "float": f.Tensor(shape=(None,), dtype=np.float32),
            "stereo": f.Tensor(shape=(None, 2), dtype=np.int16),
            "zlib": f.Tensor(shape=(None,), dtype=np.int16, encoding="zlib"),
            "raw": f.Tensor(shape=(None,), dtype=np.int32, encoding="bytes"),
            "file": f.Text(),
            "sample_rate": f.Scalar(np.int32),
            "filename": f.Text(),
            "label": f.ClassLabel(names=names),
            "tags": f.Sequence(f.ClassLabel(names=names)),
            "word": f.Text(),
            "words": f.Sequence(f.Text()),
            "events": f.Sequence({"label": f.ClassLabel(names=names), "at": f.Scalar(np.float32)}),
            "about": {"label": f.ClassLabel(names=names), "n": f.Scalar(np.int64)},
            "image": f.Tensor(shape=(2, 2, 3), dtype=np.uint8),
        }

    def examples(i):
        x = wave(i)
        return {
            "audio": x,
            "long": x.astype(np.int64),
            "deep": x.astype(np.int32) * 65536 + 77,
            "thin": (x // 256).astype(np.int8),
            "float": x.astype(np.float32) / 32768,
            "stereo": np.stack([x, -(x // 2)], axis=1).astype(np.int16),
            "zlib": x,
            "raw": x.astype(np.int32) * 3,
            "file": as_file(x),
            "sample_rate": RATE,
            "filename": f"clip {i}.wav",
            "label": i % 3,
            "tags": [2, 0] if i % 2 else [],
            "word": "/h" if i % 2 else "noise, other; low",
            "words": ["/x", "high"],
            "events": [{"label": 1, "at": 0.5}, {"label": 1, "at": 0.7}],
            "about": {"label": i % 2, "n": i},
            "image": np.zeros((2, 2, 3), np.uint8),
        }

    return write(tmp_path_factory.mktemp("tfds"), features, examples)


def number(clip):
    """`clip 5.wav` -> 5, because TFDS shuffles."""
    return int(clip["id"].split()[1].split(".")[0])


def read(data, dtype="int16"):
    return soundfile.read(io.BytesIO(data), dtype=dtype)


@pytest.mark.parametrize(
    ("audio", "dtype", "expected"),
    [
        ("", "int16", wave),
        ("long", "int16", wave),
        ("zlib", "int16", wave),
        ("file", "int16", wave),
        ("deep", "int32", lambda i: wave(i).astype(np.int32) * 65536 + 77),
        ("raw", "int32", lambda i: wave(i).astype(np.int32) * 3),
        ("thin", "int16", lambda i: wave(i) // 256 * 256),
        ("float", "float32", lambda i: wave(i).astype(np.float32) / 32768),
        ("stereo", "int16", lambda i: np.stack([wave(i), -(wave(i) // 2)], 1)),
    ],
)
def test_every_kind_of_audio_comes_out_bit_for_bit(audio, dtype, expected, tones):
    source = sources.tfds(LABELS, builder=str(tones), audio=audio)
    assert len(source) == 7
    for clip in source:
        got, rate = read(clip["audio"], dtype)
        assert rate == RATE
        np.testing.assert_array_equal(got, expected(number(clip)))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, lambda i: [[1], [0], [2]][i % 3]),
        ({"labels": "tags"}, lambda i: [1, 2] if i % 2 else []),
        ({"labels": "words"}, lambda i: [1, 2]),
        ({"labels": "events/label"}, lambda i: [0]),
        ({"labels": "about/label"}, lambda i: [0] if i % 2 else [1]),
        (
            {"labels": "word", "label_separator": ";"},
            lambda i: [1] if i % 2 else [0, 2],
        ),
    ],
)
def test_every_kind_of_label_is_looked_up_by_name(fields, expected, tones):
    source = sources.tfds(LABELS, builder=str(tones), split="train+test", **fields)
    assert len(source) == 10
    for i, clip in enumerate(source):
        assert clip["labels"].tolist() == expected(number(clip))
        assert np.flatnonzero(source.labels[i].toarray()).tolist() == expected(number(clip))


def test_splits_are_tfds_s_and_each_clip_knows_its_own(tones):
    import tensorflow_datasets as tf_datasets

    theirs = tf_datasets.builder_from_directory(str(tones))
    for split in ("train", "test", "train[:3]", "train[50%:]+test[1:2]", "test+train"):
        want = [x["filename"].decode() for x in theirs.as_data_source(split=split)]
        source = sources.tfds(LABELS, builder=str(tones), split=split)
        assert source.ids == want
        assert set(source.split) == {part.partition("[")[0] for part in split.split("+")}
    both = sources.tfds(LABELS, builder=str(tones), split="train+test", splits="test")
    assert both.ids == [x["filename"].decode() for x in theirs.as_data_source(split="test")]


def test_ids_are_a_feature_or_the_place_and_the_hash_follows_the_data(tones, tmp_path):
    source = sources.tfds(LABELS, builder=str(tones))
    by_number = sources.tfds(LABELS, builder=str(tones), ids="about/n")
    assert by_number.ids == [str(number(clip)) for clip in source]
    copy = tmp_path / "tones" / "1.2.0"
    shutil.copytree(tones, copy)
    assert sources.tfds(LABELS, builder=str(copy)).hash == source.hash
    others = [
        sources.tfds(LABELS, builder=str(tones), split="train[:6]"),
        sources.tfds(LABELS, builder=str(tones), labels="tags"),
        by_number,
    ]
    assert len({source.hash, *(other.hash for other in others)}) == 4


def _first(source):
    return source[0]["audio"], "tensorflow_datasets" in sys.modules


def test_a_source_pickles_small_and_a_worker_needs_no_tfds(tones):
    source = sources.tfds(LABELS, builder=str(tones))
    want = source[0]["audio"]  # opened here: the worker must open its own
    assert len(pickle.dumps(source.audio)) < 2000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_first, (source,)) == (want, False)


def test_names_find_data_sets_where_tfds_keeps_them(tones, monkeypatch, tmp_path):
    root = tones.parent.parent
    shutil.copytree(tones, tmp_path / "tones" / "1.10.0")
    shutil.copytree(tones, tmp_path / "tones" / "1.9.0")
    assert tfds.find(tmp_path / "tones") == tmp_path / "tones" / "1.10.0"
    assert tfds.find(tmp_path / "tones:1.9.0") == tmp_path / "tones" / "1.9.0"
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    assert tfds.find("tones") == tfds.find("tones:1.2.0") == tones
    shutil.copytree(tones, tmp_path / "many" / "small" / "1.0.0")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert tfds.find("many/small").name == "1.0.0"
    with pytest.raises(AsjaxError, match="configs small: add /CONFIG"):
        tfds.find("many")


def test_a_feature_that_tfds_needs_tensorflow_for_is_read_too(tones, tmp_path):
    """features.Audio needs TensorFlow. Its stored form is that of a Tensor or a Text."""
    folder = tmp_path / "tones" / "1.2.0"
    shutil.copytree(tones, folder)
    config = json.loads((folder / "features.json").read_text())
    shape = config["featuresDict"]["features"]
    kind = "tensorflow_datasets.core.features.audio_feature.Audio"
    plain = {"dtype": "int64", "encoding": "none", "shape": {"dimensions": ["-1"]}}
    shape["long"] = {"pythonClassName": kind, "audio": {**plain, "sampleRate": "4000"}}
    shape["file"] = {"pythonClassName": kind, "audio": {**plain, "lazyDecode": True}}
    (folder / "features.json").write_text(json.dumps(config))
    for audio, rate in (("long", 4000), ("file", RATE)):
        for clip in sources.tfds(LABELS, builder=str(folder), audio=audio):
            got, at = read(clip["audio"])
            assert at == rate
            np.testing.assert_array_equal(got, wave(number(clip)))


def test_asjax_s_own_records_are_a_data_set_of_tfds():
    audioset = labels.get("audioset527")
    theirs = sources.tfds(audioset, builder=str(sources.ESC10), split="fold1")
    ours = sources.esc10(audioset, splits="fold1")
    assert theirs.ids == ours.ids
    assert (theirs.labels != ours.labels).nnz == 0
    assert theirs[3]["audio"] == ours[3]["audio"]


def test_a_config_trains_on_it_with_its_own_classes(tones):
    cfg = {"labels": {"name": "own"}, "data": {"train": dict(name="tfds", builder=str(tones))}}
    label_set = build.label_set(cfg)
    assert label_set.names == ("high", "low", "noise, other")
    source = build.source(cfg["data"]["train"], label_set)
    stream = build.pipeline(
        source, num_classes=3, batch_size=7, sample_rate=RATE, clip_s=0.05, train=False
    )
    with stream.iterate() as batches:
        (batch,) = list(batches)
    for name, x, target in zip(batch["id"], batch["wave"], batch["target"], strict=True):
        i = number({"id": name})
        np.testing.assert_allclose(np.asarray(x) / (32768 if x.dtype == np.int16 else 1),
                                   wave(i)[:400] / 32768, atol=1e-6)  # fmt: skip
        assert np.argmax(target) == i % 3
    cfg["data"]["train"] |= dict(labels="words")
    assert build.label_set(cfg).names == ("/x", "high")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(split="valid"), "split 'valid' cannot be read .*Known: train, test, and TFDS's slic"),
        (dict(split="train[:0]"), "has no clips"),
        (dict(audio="sound"), "feature 'sound' does not exist"),
        (dict(audio="tags"), "feature tags has a type that cannot be audio"),
        (dict(audio="image"), "feature image has a type that cannot be audio"),
        (dict(labels="audio"), "feature audio has a type that cannot be labels"),
        (dict(labels="filename"), "7 labels are not classes of three: 'clip "),
        (dict(ids="word"), "word must be unique, got '/h' twice|got 'noise, other; low' twice"),
        (dict(builder="nothing/here"), "no data set at nothing/here"),
    ],
)
def test_what_does_not_fit_is_one_line(fields, message, tones):
    with pytest.raises(AsjaxError, match=message) as caught:
        sources.tfds(LABELS, **{"builder": str(tones), **fields})
    assert "\n" not in str(caught.value)


def test_values_beyond_the_bits_and_missing_rates_are_refused(tmp_path):
    def features(f):
        return {
            "audio": f.Tensor(shape=(None,), dtype=np.int64),
            "label": f.ClassLabel(names=["low", "high"]),
        }

    folder = write(
        tmp_path,
        features,
        lambda i: {"audio": np.full(9, 70_000), "label": -1 if i == 9 else 0},
        called="loud",
    )
    with pytest.raises(AsjaxError, match="give rate=HZ"):
        sources.tfds(LABELS, builder=str(folder))
    source = sources.tfds(LABELS, builder=str(folder), rate=RATE)
    assert source.ids[0] == "loud-train.array_record-00000-of-00001__0"
    with pytest.raises(AsjaxError, match="__0: no audio in audio: samples from 70000 to 70000"):
        source[0]
    with pytest.raises(AsjaxError, match="has no label"):
        sources.tfds(LABELS, builder=str(folder), split="test", rate=RATE)


@pytest.mark.parametrize("fault", ["cut", "gone", "info", "features", "tfrecord", "record"])
def test_damage_is_one_line_that_names_the_file(fault, tones, tmp_path):
    folder = tmp_path / "tones" / "1.2.0"
    shutil.copytree(tones, folder)
    shard = folder / "tones-train.array_record-00000-of-00001"
    info = folder / "dataset_info.json"
    if fault == "cut":
        shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    elif fault == "gone":
        shard.unlink()
    elif fault == "info":
        info.write_text("{")
    elif fault == "features":
        (folder / "features.json").write_text('{"featuresDict": 3}')
    elif fault == "tfrecord":
        info.write_text(info.read_text().replace("array_record", "tfrecord"))
    else:
        raw = bytearray(shard.read_bytes())
        raw[1000:9000] = bytes(8000)
        shard.write_bytes(raw)
    with pytest.raises(AsjaxError) as caught:
        list(sources.tfds(LABELS, builder=str(folder)))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tensorflow_is_not_needed_and_tfds_only_for_this_source(tones):
    code = f"""
import sys
from asjax.data import sources
from asjax.labels import LabelSet
assert "tensorflow_datasets" not in sys.modules
labels = LabelSet("three", ("/l", "/h", "/x"), ("low", "high", "noise, other"))
source = sources.tfds(labels, builder={str(tones)!r})
print(len(source), len(source[0]["audio"]) > 1000, "tensorflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.split() == ["7", "True", "False"], done.stderr


def test_records_skip_fields_that_are_not_wanted():
    """Against a full parse, for names of any length and fields in any order."""
    from asjax.data import example

    fields = {"a" * 200: list(range(300)), "b": b"x" * 70_000, "": 5, "label": ["u", "v"]}
    fields = {k: v if k != "a" * 200 else v[0] for k, v in fields.items()}
    record = example.encode(fields)
    whole = example.decode(record)
    for names in ([], ["b"], ["label", ""], list(fields), ["no such"]):
        some = example.decode(record, names)
        assert some == {k: whole[k] for k in names if k in whole}
    assert records.is_version("1.2.0")
    for cut in (1, 5, len(record) // 2, len(record) - 1):
        with pytest.raises(ValueError, match=r"not a tf\.train\.Example"):
            example.decode(record[:cut], ["label"])

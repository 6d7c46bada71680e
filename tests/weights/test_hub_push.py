"""The folder for the Hub: model card, licence, preprocessor_config.json, and what a push sends."""

import json
from pathlib import Path

import fake_hub
import pytest
from small_models import CONFIG, LABELS, VARIABLES, reseal, small_model

from asjax import frontends
from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.labels import LabelSet
from asjax.store import files, model_dir
from asjax.weights import hub_card, hub_config, hub_folder, hub_push, published

library = pytest.importorskip("huggingface_hub")
RECORD = {
    "scores": {
        "labels": {"mean_ap": 0.123456789012345, "d_prime": -1.5, "mean_auc": None,
                   "ci": {"mean_ap": [0.1, 0.2], "d_prime": [None, 1.0]},
                   "n_clips": 80, "n_classes": 3},
        "esc10": {"accuracy": 0.5, "top_k": 0.75, "k": 5, "n_clips": 79, "n_classes": 2},
    },
    "events": {"psds1": 0.25, "ci": {"psds1": [0.2, 0.3]}, "n_events": 9, "hours": 0.5,
               "tuned_on": "other half", "only_with_events": False},
    "train_data": {"name": "tr", "clips": 318, "hash": "c" * 64},
    "eval_data": {"name": "ev", "clips": 80, "hash": "e" * 64},
    "test_data": {"name": "te", "clips": 81, "hash": "f" * 64},
    "evaluated_on": "test",
    "parameters": 6,
    "seed": 3,
}  # fmt: skip


def scored(folder, cfg=CONFIG, **record):
    return model_dir.save_model(
        folder, config=cfg, label_set=LABELS, variables=VARIABLES, record={**RECORD, **record}
    )


def ported(folder, licence, checkpoint="mn04_as"):
    about = {"file": "x.pt", "sha256": "d" * 64, "checkpoint": checkpoint, "licence": licence}
    return scored(folder, scores=None, events=None, ported_from=about)


def card_of(folder):
    return library.ModelCard.load(Path(folder) / "README.md")


# ------------------------------------------------------------------------------------ the folder


def test_the_folder_is_the_model_and_two_files_more(tmp_path):
    model = scored(tmp_path / "model")
    to = hub_folder.save(model, tmp_path / "out")
    names = {"card.json", *model_dir.FILES}
    assert {p.name for p in to.iterdir()} == {*names, "README.md", "preprocessor_config.json"}
    for name in names:
        assert (to / name).read_bytes() == (model / name).read_bytes()
    (to / "README.md").write_text("---\n: broken [ yaml\n---\nby hand")
    assert model_dir.load_model(to)[3]["seed"] == 3
    (to / "model.safetensors").write_bytes(b"x")
    with pytest.raises(AsjaxError, match=r"model\.safetensors was changed"):
        model_dir.load_model(to)


def test_saving_again_replaces_the_two_files(tmp_path):
    model = scored(tmp_path / "model")
    to = hub_folder.save(model, tmp_path / "out")
    (to / "README.md").write_text("by hand")
    (to / "notes.txt").write_text("the user's")
    hub_folder.save(scored(tmp_path / "other", seed=4), to)
    assert "- seed: 4" in (to / "README.md").read_text()
    assert (to / "notes.txt").read_text() == "the user's"
    assert not list(tmp_path.glob(".out*"))
    assert hub_folder.save(to, to) == to  # onto itself
    with pytest.raises(AsjaxError, match="other contents"):
        hub_folder.save(model, tmp_path)


def test_config_json_has_what_the_hub_reads_and_loading_leaves_it_out(tmp_path):
    model = scored(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("asjax", ["mini"])
    assert config["id2label"] == {"0": "Dog", "1": "Cat", "2": "Rain, heavy"}
    assert config["label2id"] == {"Dog": 0, "Cat": 1, "Rain, heavy": 2}
    assert model_dir.load_model(model)[0] == CONFIG


def test_a_training_takes_the_config_of_a_model_folder(tmp_path, repo):
    from asjax import build, labels

    cfg = build.load(f"{repo}/configs/quickstart.py:tiny")
    label_set = labels.get("audioset527")
    how = dict(label_set=label_set, variables=VARIABLES, record={})
    model = model_dir.save_model(tmp_path / "m", config=cfg, **how)
    assert build.load(str(model / "config.json")) == cfg


def test_a_folder_of_an_older_asjax_gets_the_fields_and_a_new_hash(tmp_path):
    model = scored(tmp_path / "model")
    (model / "config.json").write_text(json.dumps(CONFIG))
    reseal(model)
    to = hub_folder.save(model, tmp_path / "out")
    assert json.loads((to / "config.json").read_text())["model_type"] == "asjax"
    config, label_set, _, card = model_dir.load_model(to)
    before = model_dir.load_model(model)
    assert (config, label_set) == before[:2]
    assert card["sha256"].pop("card.json") != before[3]["sha256"].pop("card.json")
    assert card["sha256"].pop("config.json") == files.digest(to / "config.json")
    before[3]["sha256"].pop("config.json")
    assert card == before[3]
    assert hub_card.hash_in((to / "README.md").read_text()) == model_dir.hash_of(to)


@pytest.mark.parametrize("name", ["panns_logmel64", "kaldi_fbank128", "passt_mel128"])
def test_preprocessor_config_is_read_back_as_the_frontend(name, tmp_path):
    """The reader of `asjax port` is the oracle: it knows these names from other libraries."""
    model = scored(tmp_path / "m", {**CONFIG, "frontend": {"name": name}})
    to = hub_folder.save(model, tmp_path / "out")
    path = to / "preprocessor_config.json"
    found = hub_config.read({path.name: path}, "x").features
    frontend = frontends.build(name)
    assert found.pop("sample_rate") == CONFIG["data"]["sample_rate"]
    wanted = {key: getattr(frontend, key, None) for key in hub_config.FEATURES}
    wanted.pop("sample_rate")
    assert found == {key: value for key, value in wanted.items() if value is not None}
    stated = json.loads(path.read_text())
    assert stated["clip_s"] == 1.0
    if name == "panns_logmel64":
        assert [stated[k] for k in ("n_fft", "hop_length", "num_mel_bins")] == [1024, 320, 64]
        assert [stated[k] for k in ("f_min", "f_max")] == [50, 14_000]


def test_a_foreign_frontend_is_not_started(tmp_path):
    spec = {"name": "my_package.x:front", "n_mels": 40}
    model = scored(tmp_path / "m", {**CONFIG, "frontend": spec})
    path = hub_folder.save(model, tmp_path / "out") / "preprocessor_config.json"
    stated = json.loads(path.read_text())
    assert (stated["num_mel_bins"], stated["sampling_rate"]) == (40, 16_000)


# -------------------------------------------------------------------------------- the model card


def test_the_index_has_the_scores_of_card_json_and_no_other_number(tmp_path):
    folder = hub_folder.save(scored(tmp_path / "model"), tmp_path / "my-model", licence="mit")
    data = card_of(folder).data.to_dict()
    (index,) = data["model-index"]
    assert index["name"] == "my-model"
    found, intervals, counts = {}, {}, {}
    for result in index["results"]:
        assert result["task"]["type"] == "audio-classification"
        about = result["dataset"]
        assert (about["name"], about["revision"]) == ("te", "f" * 64)  # evaluated_on: test
        counts[about["config"]] = about["args"]
        for metric in result["metrics"]:
            key = about["config"], metric["config"]
            found[key] = metric["value"]
            intervals[key] = metric.get("args")
    assert found == {
        ("labels", "mean_ap"): 0.123456789012345,
        ("labels", "d_prime"): -1.5,
        ("esc10", "accuracy"): 0.5,
        ("esc10", "top_k"): 0.75,
        ("events", "psds1"): 0.25,
    }
    assert intervals["labels", "mean_ap"] == {"interval_95": [0.1, 0.2]}
    assert intervals["events", "psds1"] == {"interval_95": [0.2, 0.3]}
    assert intervals["labels", "d_prime"] is None
    assert counts["labels"] == {"n_clips": 80, "n_classes": 3}
    assert counts["events"] == {"n_events": 9, "hours": 0.5}
    assert (data["license"], data["library_name"]) == ("mit", "asjax")
    assert (data["pipeline_tag"], data["datasets"]) == ("audio-classification", ["tr"])


def test_the_text_has_interval_clips_and_hash(tmp_path):
    folder = hub_folder.save(scored(tmp_path / "model"), tmp_path / "x")
    text = card_of(folder).text
    assert "| labels | 80 | 3 | mAP | 0.1235 [0.1, 0.2] |" in text
    assert "| esc10 | 79 | 2 | top-5 accuracy | 0.75 |" in text
    assert f"Measured by asjax on te: 81 clips, manifest hash `{'f' * 64}`" in text
    assert "In brackets: 95 %" in text
    assert "events were tuned on: other half." in text
    assert f"- data: tr, 318 clips, manifest hash `{'c' * 64}`" in text
    assert "No licence is stated" in text
    assert model_dir.hash_of(folder) in text
    chosen = hub_folder.save(scored(tmp_path / "m2", evaluated_on="eval"), tmp_path / "y")
    assert "80 clips (the clips that also chose the step)" in card_of(chosen).text


def test_a_model_without_scores_has_no_index(tmp_path):
    folder = hub_folder.save(ported(tmp_path / "m", "MIT (author, issue 44)"), tmp_path / "x")
    card = card_of(folder)
    assert "model-index" not in card.data.to_dict()
    assert "asjax did not measure this score" in card.text
    assert published.find("mn04_as").claim in card.text
    assert "MIT (author, issue 44), as the authors of the checkpoint state." in card.text


def test_the_licence_of_the_weights_that_a_training_started_from_is_said(tmp_path):
    start = ported(tmp_path / "start", "MIT (author, issue 44)")
    for i, (name, licence) in enumerate(
        ((str(start), "MIT (author, issue 44)"), ("backbone:mn04_as", "MIT (author, issue 44)"))
    ):
        model = scored(tmp_path / f"m{i}", {**CONFIG, "init_from": name})
        text = card_of(hub_folder.save(model, tmp_path / f"x{i}")).text
        assert f"weights of `{name}`, licence of those weights: {licence}" in text
    soup = scored(tmp_path / "soup", soup={"members": [{"path": "a"}, {"path": "b"}]})
    assert (
        "the mean of the weights of 2 models" in card_of(hub_folder.save(soup, tmp_path / "s")).text
    )


def test_names_with_markup_stay_one_line(tmp_path):
    odd = {"name": "a|b`c\nd", "clips": 1, "hash": "e"}
    folder = hub_folder.save(scored(tmp_path / "m", train_data=odd), tmp_path / "x")
    assert "- data: a/b'c?d, 1 clips" in card_of(folder).text
    assert card_of(folder).data.datasets == ["a|b`c\nd"]


# ---------------------------------------------------------------------------------- the licence


def test_no_push_without_a_licence_and_none_over_the_authors(tmp_path, capsys):
    own, stated = scored(tmp_path / "own"), ported(tmp_path / "mn", "MIT (author, issue 44)")
    silent = ported(tmp_path / "cnn", "not stated", "cnn14")

    def dry(model, *more):
        code = main(["push", str(model), "org/name", "--dry-run", *more])
        out = capsys.readouterr()
        assert out.err.count("\n") == (code != 0)
        return out.out if code == 0 else out.err

    assert "yours is not stated" in dry(own)
    assert "nothing was sent" in dry(own, "--license=cc-by-4.0")
    assert "nothing was sent" in dry(stated)
    assert "nothing was sent" in dry(stated, "--license=MIT")
    assert "state the licence MIT (author, issue 44), which stays" in dry(
        stated, "--license=gpl-3.0"
    )
    assert "its authors state none" in dry(silent)
    assert "nothing was sent" in dry(silent, "--license=cc-by-4.0")
    assert "must be a name such as" in dry(own, "--license=a\nb")


# ------------------------------------------------------------------------------------- the push


class Api:
    """HfApi that records its calls."""

    def __init__(self, calls, **how):
        self.calls = calls
        calls.append(("api", how))

    def create_repo(self, repo_id, **how):
        self.calls.append(("create_repo", repo_id, how))
        return f"https://hub/{repo_id}"

    def upload_folder(self, *, folder_path, **how):
        sent = {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}
        self.calls.append(("upload_folder", sent, how))
        pr = "https://hub/org/name/discussions/1" if how["create_pr"] else None
        return type("Commit", (), {"pr_url": pr})


def test_the_library_is_called_with_what_the_user_gave(tmp_path, monkeypatch):
    calls, model = [], scored(tmp_path / "model")
    monkeypatch.setattr(library, "HfApi", lambda **how: Api(calls, **how))
    how = dict(private=True, token="hf_x", commit_message="m", revision="dev", create_pr=True)
    url = hub_push.push(model, "org/name", licence="mit", **how)
    assert url == "https://hub/org/name/discussions/1"
    (_, of_api), (_, repo, of_repo), (_, sent, of_upload) = calls
    assert of_api["token"] == "hf_x"
    assert (repo, of_repo) == ("org/name", {"private": True, "exist_ok": True})
    wanted = dict(repo_id="org/name", commit_message="m", revision="dev", create_pr=True)
    assert of_upload == wanted
    for name in ("card.json", *model_dir.FILES):
        assert sent[name] == (model / name).read_bytes()
    assert sent.keys() == {"card.json", *model_dir.FILES, "README.md", "preprocessor_config.json"}
    calls.clear()
    assert hub_push.push(model, "org/name", licence="mit") == "https://hub/org/name"
    assert calls[1][2] == {"private": None, "exist_ok": True}
    assert calls[2][2]["commit_message"] == "Upload a model of asjax"
    assert {p.name for p in model.iterdir()} == {"card.json", *model_dir.FILES}  # untouched


def test_a_dry_run_lists_what_a_push_sends(tmp_path, monkeypatch, capsys):
    calls, model = [], scored(tmp_path / "model")
    monkeypatch.setattr(library, "HfApi", lambda **how: Api(calls, **how))
    words = ["push", str(model), "org/name", "--license=mit"]
    assert main([*words, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not calls
    listed = {line.split()[1]: int(line.split()[0].replace(",", "")) for line in lines[:-2]}
    assert main([*words, "--private", "--message=x", "--revision=dev", "--create-pr"]) == 0
    sent = calls[2][1]
    assert listed == {name: len(content) for name, content in sent.items()}
    total = f"{sum(map(len, sent.values())):,}  bytes in {len(sent)} files"
    assert lines[-2].strip().startswith(total)
    assert "discussions/1" in capsys.readouterr().out
    assert (calls[1][2]["private"], calls[2][2]["revision"]) == (True, "dev")


def test_a_readme_by_hand_is_pushed_and_one_of_another_model_is_not(tmp_path):
    model = hub_folder.save(scored(tmp_path / "m"), tmp_path / "model", licence="mit")
    readme = model / "README.md"

    def staged(licence=None):
        new = tmp_path / "new"
        new.mkdir(exist_ok=True)
        for path in new.iterdir():
            path.unlink()
        _, note = hub_folder.staged(model, new, "org/name", licence)
        return (new / "README.md").read_text(), note

    ours = readme.read_text()
    readme.write_text(ours + "\nMy words.\n")
    text, note = staged()  # the README states the licence
    assert text.endswith("My words.\n")
    assert "as it is" in note
    with pytest.raises(AsjaxError, match="states the license mit, and the model has gpl-3.0"):
        staged("gpl-3.0")
    readme.write_text("# only words\n")
    with pytest.raises(AsjaxError, match="states no license"):
        staged("mit")
    readme.write_text("---\nlicense: [\n---\n")
    with pytest.raises(AsjaxError, match="is no YAML"):
        staged("mit")
    readme.write_text(ours.replace(model_dir.hash_of(model), "0" * 64) + "Old words.")
    text, note = staged("mit")
    assert "Old words" not in text
    assert "is about another model" in note


def test_a_real_upload_and_its_errors(tmp_path, monkeypatch):
    """huggingface_hub against a small hub: the commit has the bytes; refusals are one line."""
    from huggingface_hub import constants

    server, model = fake_hub.Hub(), scored(tmp_path / "model")
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)

    def refused(repo="org/name", **how):
        with pytest.raises(AsjaxError) as caught:
            hub_push.push(model, repo, licence="mit", **how)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    try:
        assert "none was given; check the name, or sign in" in refused()
        assert "does not accept this token" in refused(token="hf_bad")
        assert "does not accept this token" in refused("others/name", token=fake_hub.TOKEN)
        assert "must be org/name" in refused("name", token=fake_hub.TOKEN)
        hub_push.push(model, "org/name", token=fake_hub.TOKEN, licence="mit")
        (tree,) = server.repos["org/name"]["commits"].values()
        assert tree["model.safetensors"] == (model / "model.safetensors").read_bytes()
        assert library.ModelCard(tree["README.md"].decode()).data.license == "mit"
        assert "asjax tag dog.wav --model=org/name" in tree["README.md"].decode()
        other = scored(tmp_path / "other", seed=5)
        hub_push.push(other, "org/name", token=fake_hub.TOKEN, licence="mit")  # it exists already
        assert len(server.repos["org/name"]["commits"]) == 2
    finally:
        server.close()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "the Hub cannot be reached" in refused(token=fake_hub.TOKEN)


def test_without_the_library_the_line_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    model = scored(tmp_path / "model")
    with pytest.raises(AsjaxError, match=r"pip install 'asjax\[hub\]'"):
        hub_folder.save(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(AsjaxError, match=r"pip install 'asjax\[hub\]'"):
        hub_push.push(model, "org/name", licence="mit")


def test_classes_of_any_script_are_in_the_config(tmp_path):
    names = ("\u96e8", 'Dog "x"', "caf\u00e9")
    label_set = LabelSet("odd", ("a", "b", "c"), names)
    model = small_model(tmp_path / "m", label_set=label_set)
    assert model_dir.load_model(hub_folder.save(model, tmp_path / "o"))[1].names == names

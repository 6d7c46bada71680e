"""`asjax models`: the computed sizes equal the numbers that the authors print."""

import json
import re

import jax
import pytest

from asjax import models
from asjax.__main__ import main
from asjax.weights import published, zoo


def printed(capsys, *words):
    assert main(["models", *words]) == 0
    return capsys.readouterr().out


def test_the_table_has_every_variant_with_the_parameters_of_the_authors(capsys):
    text = printed(capsys, "cnn", "ast")
    for variant, count in (
        ("cnn6", "4,837,455"),
        ("cnn14", "80,753,615"),
        ("base384", "86,594,063"),
    ):
        assert re.search(rf"^(cnn|ast) +{variant} +{count} ", text, re.M), variant
    rows = [line.split()[1] for line in text.splitlines() if re.match("(cnn|ast) ", line)]
    assert rows == [*models.family("cnn").VARIANTS, *models.family("ast").VARIANTS]


def test_json_is_the_same_table_with_what_builds_the_model(capsys):
    rows = json.loads(printed(capsys, "resnet", "--json"))
    assert [row["variant"] for row in rows] == list(models.family("resnet").VARIANTS)
    for row in rows:
        module = models.build(row["family"], row["variant"], **row["fields"])
        assert models.parameters(module) == row["parameters"]
        assert row["n_mels"] == module.n_mels
        assert row["sample_rate"] == 32000


def test_the_arrays_of_a_variant_sum_to_its_size(capsys):
    text = printed(capsys, "cnn", "--parameters=cnn6")
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    sizes = {name: int(size.replace(",", "")) for name, _, _, size in rows[1:]}
    assert sum(sizes.values()) == 4_837_455
    assert f"Total: {4_837_455:,}" in text
    shapes = models.abstract(models.build("cnn", "cnn6"))["params"]
    flat = jax.tree_util.tree_leaves_with_path(shapes)
    paths = {"/".join(k.key for k in path): str(leaf.shape) for path, leaf in flat}
    assert {name: shape for name, shape, *_ in rows[1:]} == paths


def test_published_checkpoints_are_those_of_the_families_asked_for(capsys):
    rows = json.loads(printed(capsys, "convnext", "--published", "--json"))
    assert {row["family"] for row in rows} == {"convnext"}
    names = [row.name for row in published.ROWS if row.family == "convnext"]
    assert [row["name"] for row in rows] == names
    text = printed(capsys, "convnext", "--published")
    assert all(name in text for name in names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cnm"], "model family 'cnm' does not exist; did you mean 'cnn'"),
        (["cnn14"], "cnn14 is a variant of the family cnn: asjax models cnn"),
        (["--parameters=cnn6"], "needs one family"),
        (["cnn", "ast", "--parameters=cnn6"], "needs one family"),
        (["cnn", "--parameters=cnn7"], "'cnn7' does not exist; did you mean 'cnn"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert main(["models", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_frontend_is_shown_as_it_is_written_in_a_config():
    assert zoo._call({"name": "x"}) == "x"
    assert zoo._call({"name": "x", "hop": 320, "kind": "y"}) == "x(hop=320, kind='y')"

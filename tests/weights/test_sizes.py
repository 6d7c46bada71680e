"""The stored zoo: sizes by hand and by the authors, every variant there, nothing stale.

`python tests/weights/test_sizes.py` counts everything and writes assets/models/zoo.json again.
"""

import json
import subprocess
import sys
from math import ceil

import pytest

from asjax import frontends, models
from asjax.__main__ import main
from asjax.weights import published, sizes, zoo

ROWS = {(row["family"], row["variant"]): row for row in sizes.stored()}


def test_every_variant_is_stored_with_what_builds_it():
    assert list(ROWS) == [(f, v) for f in models.families() for v in models.family(f).VARIANTS]
    for (family, variant), row in ROWS.items():
        file = models.family(family)
        assert row["frontend"] == dict(file.FRONTENDS[variant])
        assert row["fields"] == json.loads(json.dumps(dict(file.VARIANTS[variant])))
        frontend, module = frontends.build(**row["frontend"]), file.model(variant)
        assert (row["sample_rate"], row["n_mels"]) == (frontend.sample_rate, module.n_mels)


@pytest.mark.parametrize(
    "key", [("cnn", "mini"), ("mobilenet", "mn04"), ("talnet", "crnn_mini"), ("ced", "ced_tiny")]
)
def test_a_stored_size_is_what_the_model_has_now(key):
    """`python tests/weights/test_sizes.py` writes the file again after a change of the models."""
    now = next(row for row in sizes.computed([key[0]]) if row["variant"] == key[1])
    assert json.loads(json.dumps(now)) == {k: ROWS[key][k] for k in now}


@pytest.mark.slow
def test_all_stored_sizes_are_what_the_models_have_now():
    for now in sizes.computed():
        row = ROWS[now["family"], now["variant"]]
        assert json.loads(json.dumps(now)) == {k: row[k] for k in now}


def test_cnn6_has_the_macs_of_its_layers():
    """Kernels of 5 x 5 over 1001 frames x 64 bands, halved by each block; two layers at the end."""
    frames, bands, channels, total = 1001, 64, 1, 0
    for width in (64, 128, 256, 512):
        total += frames * bands * 25 * channels * width
        frames, bands, channels = frames // 2, bands // 2, width
    total += 512 * 512 + 512 * 527
    assert ROWS["cnn", "cnn6"]["macs"] == total


@pytest.mark.parametrize(("variant", "millions"), [("mn04", 110), ("mn10", 540), ("mn40", 8030)])
def test_mobilenets_have_the_macs_that_their_authors_print(variant, millions):
    """EfficientAT's README counts 10 s of audio."""
    assert ROWS["mobilenet", variant]["macs"] / 1e6 == pytest.approx(millions, rel=0.06)


def test_a_model_of_twenty_seconds_is_counted_for_ten():
    """Its tokens: 12 rows of 16 x 16 patches at stride 10, and two more; projections alone."""
    columns = ceil((2000 - 16 - 2 + 1) / 10)
    tokens = 12 * columns + 2
    projections = tokens * 12 * (4 * 768**2 + 2 * 768 * 3072)
    attention = 12 * 2 * tokens**2 * 768
    assert ROWS["passt", "passt_s_20s"]["macs"] == pytest.approx(
        (projections + attention) / 2, rel=0.02
    )


def test_parity_is_the_worst_number_of_the_table(repo):
    worst = {}
    for line in (repo / "asjax" / "models" / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 7 and cells[-1] == "yes":
            worst.setdefault(tuple(cells[1].split()), []).append(float(cells[4]))
    assert len(worst) > 30
    for key, row in ROWS.items():
        assert row["parity"] == (max(worst[key]) if key in worst else None), key


def test_the_best_published_score_and_all_licences_are_shown():
    rows = {(row["family"], row["variant"]): row for row in zoo.listed()}
    assert rows["cnn", "cnn14"]["published"] == "mAP .431"
    assert rows["passt", "passt_s"]["published"] == "mAP .486"
    assert rows["passt", "passt_u"]["published"] == "mAP .85 on OpenMIC-2018 test"
    assert rows["beats", "beats_base"]["published"] == "PSDS1 .465, mAP .486"
    assert rows["ced", "ced_tiny"]["licence"] == "not stated; Apache-2.0"
    shown = [name for row in rows.values() for name in row["checkpoints"]]
    assert sorted(shown) == sorted(row.name for row in published.ROWS)


def test_own_scores_are_those_of_the_readme_files_or_not_run(repo):
    """No number without a measurement: each is in the README, in per cent or not."""
    text = (repo / "README.md").read_text() + (repo / "benchmarks" / "README.md").read_text()
    for key, own in zoo.OWN.items():
        assert key in ROWS
        low = [float(n) for n in own.split("]")[0].replace("[", "").replace(",", "").split()[2:]]
        forms = [("{:.3f} [{:.3f}, {:.3f}]", 1), ("{:.1f} [{:.1f}, {:.1f}]", 100)]
        assert any(form.format(*(k * n for n in low)) in text for form, k in forms), own
    assert {row["own"] for row in zoo.listed(["cnn"])} == {zoo.NOT_RUN, zoo.OWN["cnn", "mini"]}


def test_the_table_needs_no_jax(capsys):
    code = "import sys; from asjax.__main__ import main; main(['models']); "
    code += "assert 'jax' not in sys.modules"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = found.stdout.splitlines()
    assert sum(line.split()[:2] == [*key] for key in ROWS for line in lines) == len(ROWS)
    assert main(["models", "convnext", "cnn"]) == 0
    first = capsys.readouterr().out.splitlines()[1]
    assert first.startswith("convnext")


if __name__ == "__main__":
    sizes.write()

"""Licences of weights, as the authors state them and as the Hub writes them."""

import pytest

from asjax.config import AsjaxError
from asjax.weights import hub_licence, published


@pytest.mark.parametrize(
    ("stated", "fields"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("MIT (author, issue 44)", {"license": "mit"}),
        (
            "Apache-2.0 as far as the training data allow (authors, issue 51)",
            {"license": "other",
             "license_name": "apache-2.0-as-far-as-the-training-data-allow"},
        ),
        ("NTT's own (LICENSE.pdf of its repository)",
         {"license": "other", "license_name": "ntt-s-own"}),
    ],
)  # fmt: skip
def test_a_licence_of_the_table_as_the_hub_writes_it(stated, fields):
    assert hub_licence.Licence(stated, "").fields == fields


def test_every_licence_of_the_table_has_a_form():
    for row in published.ROWS:
        found = hub_licence.stated({"ported_from": {"licence": row.licence}})
        assert (found is None) == (row.licence == "not stated")
        assert found is None or found.fields["license"]


def test_a_given_licence_is_for_weights_without_one():
    theirs = {"ported_from": {"licence": "MIT (author, issue 44)"}}
    assert hub_licence.licence({}, None) is None
    assert hub_licence.licence({}, "cc0-1.0").fields == {"license": "cc0-1.0"}
    assert hub_licence.licence(theirs, None) == hub_licence.licence(theirs, "mit")
    with pytest.raises(AsjaxError, match="which stays"):
        hub_licence.licence(theirs, "cc0-1.0")
    with pytest.raises(AsjaxError, match="must be a name such as apache-2.0"):
        hub_licence.licence({}, "a: b")

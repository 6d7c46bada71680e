"""The licence of a model's weights: what its authors or its owner state, as the Hub writes it."""

from __future__ import annotations

import re
from typing import NamedTuple

from asjax.config import AsjaxError, quoted

# Licences that the Hub knows by an id; any other one is "other", with its name.
IDS = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "cc0-1.0",
    "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nd-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
    "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "mpl-2.0", "lgpl-3.0", "gpl-2.0", "gpl-3.0", "agpl-3.0",
    "odc-by", "odbl", "openrail", "bigscience-openrail-m",
}  # fmt: skip


class Licence(NamedTuple):
    """A licence. text: as stated. by: who states it, as the end of a sentence."""

    text: str
    by: str

    @property
    def fields(self) -> dict:
        """`license` of a model card, with `license_name` if the Hub has no id for it.

        A remark in brackets is left to the text. A condition is not: "MIT as far as ..." is no MIT.
        """
        plain = re.sub(r"\s*\([^()]*\)$", "", self.text).strip()
        if plain.lower() in IDS:
            return {"license": plain.lower()}
        name = re.sub(r"[^a-z0-9.]+", "-", plain.lower()).strip("-.")
        return {"license": "other", "license_name": name}


def stated(card: dict) -> Licence | None:
    """The licence in the card of a ported checkpoint, or None."""
    ported = card.get("ported_from")
    text = ported.get("licence") if isinstance(ported, dict) else None
    if not isinstance(text, str) or text == "not stated":
        return None
    return Licence(text, "as the authors of the checkpoint state")


def licence(card: dict, given: str | None) -> Licence | None:
    """The licence of a model: that of a ported checkpoint, else the given one, or None.

    Raises:
      AsjaxError: the given one differs from that of the authors, or is no name of a licence.
    """
    theirs = stated(card)
    if given is None:
        return theirs
    if not re.fullmatch(r"[\w][\w .,()/+-]{0,99}", given):
        raise AsjaxError(f"the licence must be a name such as apache-2.0, got {quoted(given)}")
    ours = Licence(given, "as the owner of this repository states")
    if theirs is not None and theirs.fields != ours.fields:
        raise AsjaxError(
            f"the authors of these weights state the licence {theirs.text}, which stays; "
            f"--license {given} is for your own models"
        )
    return theirs or ours

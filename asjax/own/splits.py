"""Which splits of a data set train, choose the step and test, by their names."""

from __future__ import annotations

import re

from asjax.config import AsjaxError, unknown

ROLES = ("train", "eval", "test")
HELD_OUT = 5  # one of so many parts evaluates if the data have no split for it
_TRAIN = ("train", "training")
_DEV = ("dev", "devel", "development", "val", "valid", "validation")
_EVAL = ("eval", "evaluation")
_TEST = ("test", "testing")
_FOLD = re.compile(r"fold_?\d+")


def divide(groups: dict[str, int], wanted=None, within=None) -> tuple[dict[str, dict], str]:
    """Role -> fields of a source spec (splits, perhaps folds and of), and the reason in words.

    - train, a split that chooses the step (dev, val, eval, ...) and test: as named. Without the
      second one, one in five recordings of the training split is held out for it.
    - fold1 to foldK: the last one tests, the one before chooses, the others train.
    - a single split: one in five recordings evaluates.

    Args:
      groups: split -> number of recordings that can be held out.
      wanted: role -> splits, as the user says.
      within: the splits that the user's own spec names, if it does.

    Raises:
      AsjaxError: names that have no known meaning, or a single recording.
    """
    folds = folds_of(groups)
    if wanted:
        roles, why = dict(wanted), "as --splits says"
    elif len(groups) == 1:
        roles, why = {"train": list(groups)}, "it has no splits"
    elif folds:
        last = {"eval": folds[-1:]}
        if len(folds) > 2:
            last = {"eval": folds[-2:-1], "test": folds[-1:]}
        roles, why = {"train": folds[: -len(last)], **last}, "by its folds"
    else:
        roles, why = _by_name(groups), "by its splits"
    fields = {role: {"splits": names} for role, names in roles.items()}
    if "eval" not in roles:
        parts = min(HELD_OUT, sum(groups[name] for name in roles["train"]))
        if parts < 2:
            raise AsjaxError("a single recording cannot train and evaluate; give more clips")
        again, word = {"folds": parts}, "fold"
        if within or len(groups) > 1:
            again, word = {**again, "of": roles["train"]}, "part"
        fields["train"] = {**again, "splits": [f"{word}{i + 1}" for i in range(parts - 1)]}
        fields["eval"] = {**again, "splits": [f"{word}{parts}"]}
        why += f"; 1 in {parts} recordings is held out, chosen by the hash of its name"
    return {role: fields[role] for role in ROLES if role in fields}, why


def folds_of(splits) -> list[str]:
    """The splits in the order of their numbers if each has a name such as fold3, else []."""
    if not all(_FOLD.fullmatch(name.casefold()) for name in splits):
        return []
    return sorted(splits, key=lambda name: int(re.sub(r"\D", "", name)))


def _by_name(names) -> dict[str, list[str]]:
    """Role -> splits, by the usual names. Other splits are not used.

    FSD50K and DCASE have "dev" and "eval" without "train": then dev trains and eval tests.
    """
    train, dev, final, test = (
        [n for n in names if n.casefold() in known] for known in (_TRAIN, _DEV, _EVAL, _TEST)
    )
    if any(len(found) > 1 for found in (train, dev, final, test)) or (dev and final and test):
        raise _unclear(names)
    if not train:
        train, dev, test, final = dev, [], test or final, []
    if dev and final:
        final, test = [], final
    roles = {"train": train, "eval": dev or final, "test": test}
    if not train or not (roles["eval"] or test):
        raise _unclear(names)
    return {role: splits for role, splits in roles.items() if splits}


def _unclear(names) -> AsjaxError:
    return AsjaxError(
        f"the splits of --data are {', '.join(sorted(names))}; say which one is which with "
        "--splits train=NAME,eval=NAME,test=NAME"
    )


def parse(text: str) -> dict[str, list[str]]:
    """`"train=a+b,eval=c"` -> `{"train": ["a", "b"], "eval": ["c"]}`. AsjaxError: another form."""
    roles: dict[str, list[str]] = {}
    for item in filter(None, map(str.strip, text.split(","))):
        role, equals, names = item.partition("=")
        if role.strip() not in ROLES:
            raise unknown("--splits: role", role.strip(), ROLES)
        roles[role.strip()] = [name for name in map(str.strip, names.split("+")) if name]
        if not equals or not roles[role.strip()]:
            raise AsjaxError(f"--splits must look like train=NAME,eval=NAME, got {text!r}")
    if "train" not in roles:
        raise AsjaxError(f"--splits must name at least train=NAME, got {text!r}")
    return roles

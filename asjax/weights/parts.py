"""Split a checkpoint into parts; each part may be the weights of one model.

A file may hold several sets of weights. Each set is wrapped by dicts ("state_dict", "model_ema")
and by prefixes of the names ("module.", "net_swa."). We treat both in the same way: every array
has a dotted place in the file, such as "state_dict.net.bn0.weight". A *part* is the set of arrays
below one prefix of these places. The best part has the most names that a model family knows. The
caller tells which names a family knows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from asjax.config import AsjaxError, unknown
from asjax.weights.torch_values import Inert, Tensor

MAX_DEPTH = 12  # of nested dicts
MIN_ARRAYS = 4  # of a part; the smallest model has more
CLASSES = "label_dict"  # in BEATs' files: class index -> class id
# Names of torch's wrapper modules; they may occur anywhere in a name.
_WRAPPERS = {
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
}
# Words in a prefix that mark averaged weights or a teacher model.
_AVERAGED = {"ema", "swa", "avg", "average", "averaged", "mean", "shadow", "teacher", "momentum",
             "target"}  # fmt: skip
# Names of constants that training code stores with the weights: counters, windows, mel filters.
_TABLES = re.compile(
    r"(.*\.)?(n_averaged|num_batches_tracked)"
    r"|(.*\.)?\w*(mel|spectrogram|stft|fbank|preemph|pre_emph|resampl|mfcc)\w*(\..*)?"
    r"|(.*\.)?(window|fb|frontend|front_end|feature_extractor|preprocess\w*)(\..*)?"
)
_LAYER = re.compile(r"(.*\.)?(weight|bias)")
_DFT = re.compile(r".*(stft|spectrogram_extractor|logmel_extractor).*")


class Part(NamedTuple):
    """The arrays below a prefix.

    prefix: dotted; "" is the whole file.
    places: name below the prefix, without torch's wrappers -> place in the file.
    strangers: the names that the family does not know.
    family: the family that knows most of the names, or None if no family knows any.
    """

    prefix: str
    places: dict[str, str]
    strangers: list[str]
    family: str | None

    @property
    def known(self) -> int:
        return len(self.places) - len(self.strangers)

    def holds(self, place: str) -> bool:
        """True if a place in the file, or a longer prefix, belongs to this part."""
        return not self.prefix or place == self.prefix or place.startswith(f"{self.prefix}.")


def maps(value):
    """Yield (dotted place, name -> array) of every map and list, in the file's order.

    Every value with a shape counts as an array. A list of classes becomes an array of strings.
    """
    seen, waiting = set(), [("", value, 0)]
    while waiting:
        place, item, depth = waiting.pop()
        if id(item) in seen or depth > MAX_DEPTH:  # a map may contain itself
            continue
        seen.add(id(item))
        pairs = item.items() if isinstance(item, Mapping) else enumerate(item)
        arrays, below = {}, []
        for key, inner in pairs:
            if (
                key == CLASSES
                and isinstance(inner, Mapping)
                and set(inner) == set(range(len(inner)))
            ):
                arrays[key] = np.array([str(inner[i]) for i in range(len(inner))])
            elif isinstance(inner, (Mapping, list, tuple)):
                below.append((f"{place}.{key}" if place else str(key), inner, depth + 1))
            elif hasattr(inner, "shape") and not isinstance(inner, Tensor):
                arrays[str(key)] = inner
        waiting += reversed(below)
        yield place, arrays


def averaged(prefix: str) -> bool:
    """True if a prefix marks averaged weights or a teacher model."""
    return bool(_AVERAGED & set(re.split(r"[._]", prefix.lower())))


def flat(value) -> dict:
    """Dotted place -> array, for every array of a checkpoint.

    Raises:
      AsjaxError: there is no array, or two arrays have the same place.
    """
    arrays = {}
    for place, held in maps(value) if isinstance(value, (Mapping, list, tuple)) else ():
        for name, array in held.items():
            whole = f"{place}.{name}" if place else name
            if whole in arrays:
                raise AsjaxError(f"two arrays of the checkpoint are called {whole}")
            arrays[whole] = _numpy(array)
    if not arrays:
        raise AsjaxError(
            "a checkpoint must map names to arrays, alone or under a name such as 'model' or "
            f"'state_dict'; got {_summary(value)}"
        )
    return arrays


def _numpy(array):
    """A tensor of torch in memory as a numpy array, other values as they are; without torch.

    numpy has no bfloat16 and reads no tensor that records gradients, such as an nn.Parameter.
    """
    if not hasattr(array, "detach"):
        return array
    array = array.detach().cpu()
    return (array.float() if array.is_floating_point() else array).numpy()


def not_finite(arrays: Mapping) -> str | None:
    """How many numbers of which arrays are NaN or infinite, or None if there are none."""
    counts = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        if array.dtype.kind in "biuOSU":
            continue
        with np.errstate(over="ignore"):
            finite = np.isfinite(array.astype(np.float32, copy=False))
        if bad := array.size - int(finite.sum()):
            counts[name] = f"{name} ({bad} of {array.size})"
    if not counts:
        return None
    more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
    return (
        f"{len(counts)} of {len(arrays)} arrays have numbers that are not finite (NaN or "
        f"infinite): {', '.join(list(counts.values())[:5])}{more}; outputs of the model may be NaN"
    )


def plain(value) -> dict:
    """The weights of a file without asking any family, for example of an image model.

    We take the map that directly holds the most arrays. Among equal maps we take the first that is
    not averaged.

    Raises:
      AsjaxError: there is no array.
    """
    flat(value)
    candidates = [(place, held) for place, held in maps(value) if held]
    _, held = max(candidates, key=lambda pair: (len(pair[1]), not averaged(pair[0])))
    return {name: held[place] for name, place in _below(held, "").items()}


def table(name: str) -> bool:
    """True for the name of a constant that training code stores with the weights."""
    return bool(_TABLES.fullmatch(name)) and (not _LAYER.fullmatch(name) or bool(_DFT.match(name)))


def prefixes(arrays: Mapping) -> list[str]:
    """Every prefix with at least MIN_ARRAYS arrays, and ""; short ones first, then file order."""
    counts = Counter()
    for place in arrays:
        pieces = place.split(".")
        counts.update(".".join(pieces[:i]) for i in range(1, len(pieces)))
    many = [prefix for prefix, n in counts.items() if n >= MIN_ARRAYS]
    return ["", *sorted(many, key=lambda prefix: prefix.count("."))]


def named(arrays: Mapping, prefix: str) -> str:
    """The full prefix for one that a user gives in full or only by its end, such as "net_swa".

    Raises:
      AsjaxError: no prefix fits, or several do.
    """
    wanted, known = prefix.strip("."), prefixes(arrays)
    fits = [p for p in known if p == wanted] or [p for p in known if p.endswith(f".{wanted}")]
    if not fits:
        outer = [p for p in known if p and p.count(".") < 2]
        raise unknown("prefix", prefix, outer)
    if len(fits) > 1:
        raise AsjaxError(f"prefix {prefix} may be {' or '.join(fits)}; give it in full")
    return fits[0]


def ranked(arrays: Mapping, families: Mapping[str, Callable], prefix: str = "") -> list[Part]:
    """The parts of a file at or below a prefix, sorted by the number of known names.

    Args:
      families: name -> function that takes weights and returns the names that the family does not
        know.
    """
    parts = []
    for at in prefixes(arrays):
        if prefix and at != prefix and not at.startswith(f"{prefix}."):
            continue
        places = _below(arrays, at)
        if any(not p.strangers and p.holds(at) and len(places) < p.known for p in parts):
            continue  # it lies inside a larger part with only known names
        weights = {name: arrays[place] for name, place in places.items()}
        best = Part(at, places, list(places), None)
        for family, strangers in families.items():
            odd = strangers(weights)
            if len(odd) < len(best.strangers):
                best = Part(at, places, odd, family)
        tables = {name for name in best.strangers if table(name)}
        parts.append(
            best._replace(
                places={k: v for k, v in places.items() if k not in tables},
                strangers=[name for name in best.strangers if name not in tables],
            )
        )
    return sorted(parts, key=lambda part: (-part.known, len(part.strangers)))


def _below(arrays: Mapping, prefix: str) -> dict[str, str]:
    """Name below a prefix -> place; torch's wrappers are removed if names stay distinct."""
    start = len(prefix) + 1 if prefix else 0
    places = [p for p in arrays if not prefix or p.startswith(f"{prefix}.")]
    names = [_bare(place[start:]) for place in places]
    if len(set(names)) < len(names):
        names = [place[start:] for place in places]
    return dict(zip(names, places, strict=True))


def _bare(name: str) -> str:
    return ".".join(piece for piece in name.split(".") if piece not in _WRAPPERS)


def _summary(value) -> str:
    if isinstance(value, Mapping):
        names = [str(key)[:40] for key in list(value)[:5]]
        return f"a map of {len(value)} entries ({', '.join(names) or 'empty'})"
    if isinstance(value, Inert):
        return f"an object of {value.name}"
    return f"a {type(value).__name__}"

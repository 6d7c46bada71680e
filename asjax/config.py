"""Specs and configs: parse calls without eval, build things by name, compare and hash configs.

A *spec* is a dict `{"name": ..., **keywords}` or a string in call syntax, `"mixup(alpha=1)"`; a
*chain* is a string of such calls joined by `|`. A thing is found by the name of its file and
function: there is no registry.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib.util
import inspect
import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

# kind -> (module, a keyword that all its functions of that kind take, and no helper does)
_MODULES = {"objective": ("asjax.objectives", "model"), "optim": ("asjax.optim", "total_steps")}


class AsjaxError(ValueError):
    """An error the user can act on: one line saying what is wrong, where, and what to do."""


def unknown(thing: str, name: Any, known) -> AsjaxError:
    """The error for a name that does not exist: lists what does and the nearest spelling."""
    known = sorted(map(str, known))
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return AsjaxError(f"{thing} {name!r} does not exist{hint} Known: {', '.join(known)}")


# --------------------------------------------------------------------------------- parsing


def _literal(node: ast.expr, text: str):
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise AsjaxError(f"spec {text!r}: arguments must be Python literals") from None


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """`"specaug(time=64, freq=8)"` -> `("specaug", {"time": 64, "freq": 8})`; keywords only."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise AsjaxError(f"spec {text!r} must look like name or name(key=value, ...)") from None
    if isinstance(node, ast.Name):
        return node.id, {}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise AsjaxError(f"spec {text!r} must look like name or name(key=value, ...)")
    if node.args or any(k.arg is None for k in node.keywords):
        raise AsjaxError(f"spec {text!r}: give every argument by keyword, as key=value")
    return node.func.id, {k.arg: _literal(k.value, text) for k in node.keywords}


def _split_pipes(text: str) -> list[str]:
    """Split on `|` outside brackets and quotes, so that string arguments may hold a pipe."""
    parts, depth, quote, start = [], 0, "", 0
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "|" and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [p for p in map(str.strip, [*parts, text[start:]]) if p]


def chain(text: str | None) -> list[tuple[str, dict[str, Any]]]:
    """`"a(x=1) | b"` -> `[("a", {"x": 1}), ("b", {})]`; empty or None -> `[]`."""
    return [parse_call(part) for part in _split_pipes(text or "")]


def split_spec(spec) -> tuple[str, dict[str, Any]]:
    """A spec in either form -> `(name, keywords)`."""
    if isinstance(spec, str):
        return parse_call(spec)
    fields = dict(to_plain(spec))
    if "name" not in fields:
        raise AsjaxError(f"spec {fields!r} must have a 'name'")
    return fields.pop("name"), fields


def parse_value(text: str):
    """A command-line value: a Python literal where it reads as one, else the string itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def parse_arg(arg: str | None, **defaults):
    """`"beta=0.5,hlp=False,tiny"` over typed defaults -> ConfigDict (a bare name means True).

    Raises:
      AsjaxError: unknown name (the known ones are listed) or a value of another type.
    """
    values = dict(defaults)
    for item in filter(None, (arg or "").split(",")):
        key, eq, text = item.partition("=")
        if key not in defaults:
            raise unknown("config argument", key, defaults)
        values[key] = _typed(key, parse_value(text) if eq else True, defaults[key])
    return _config_dict(values)


def _typed(key: str, value, default):
    """`value` in the type of `default`: int may widen to float, everything else must agree."""
    if default is None or value is None or isinstance(value, type(default)):
        if isinstance(default, int) and not isinstance(default, bool) and isinstance(value, bool):
            raise AsjaxError(f"{key} must be int, got {value!r}")
        return value
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, str) and not isinstance(value, (dict, list, tuple)):
        return str(value)
    if isinstance(default, (tuple, list)) and isinstance(value, (tuple, list)):
        return type(default)(value)
    raise AsjaxError(f"{key} must be {type(default).__name__}, got {value!r}")


# --------------------------------------------------------------------------------- building


def build(kind: str, spec, **extra):
    """The object a spec describes: `build("frontend", dict(name="panns_logmel"))`.

    `kind` is frontend, augment (a chain), model, objective or optim; `extra` are keywords that
    the caller knows and the config does not. Raises AsjaxError for unknown names and keywords.
    """
    if kind == "augment":
        return import_module("asjax.augment").chain(spec)
    name, fields = split_spec(spec)
    if kind == "model":
        from asjax import models

        return models.build(name, **fields, **extra)
    if kind == "frontend":
        return import_module("asjax.frontends").build(name, **fields, **extra)
    if kind not in _MODULES:
        raise unknown("kind", kind, [*_MODULES, "augment", "frontend", "model"])
    path, mark = _MODULES[kind]
    public = {n: f for n, f in vars(import_module(path)).items() if not n.startswith("_")}
    made = {
        n: f
        for n, f in public.items()
        if inspect.isfunction(f) and mark in inspect.signature(f).parameters
    }
    if name not in made:
        raise unknown(kind, name, made)
    return call(made[name], f"{kind} {name}", **fields, **extra)


def call(function, label: str, /, *args, **fields):
    """Call `function`, turning an unknown keyword into an error that lists the known ones."""
    known = inspect.signature(function).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        for key in fields:
            if key not in known:
                raise unknown(f"{label}: field", key, known)
    return function(*args, **fields)


# --------------------------------------------------------------------------------- configs


def _config_dict(values: dict):
    try:
        from ml_collections import ConfigDict
    except ImportError:  # an accelerator machine without it: attribute access is all we need
        return _Namespace(values)
    return ConfigDict(values)


class _Namespace(dict):
    def __getattr__(self, key):
        try:
            return self[key]
        except KeyError:
            raise AttributeError(key) from None


def to_plain(value):
    """ConfigDicts, tuples and numpy scalars as plain dicts, lists and numbers (for JSON)."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def to_json(value) -> str:
    """Readable, sorted JSON of a config."""
    return json.dumps(to_plain(value), indent=2, sort_keys=True) + "\n"


def fingerprint(value) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    text = json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def flatten(value, prefix: str = "") -> dict[str, Any]:
    """Nested dict -> `{"optim.lr": 1e-3, ...}`."""
    flat = {}
    for key, item in to_plain(value).items():
        if isinstance(item, dict) and item:
            flat.update(flatten(item, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def differences(old, new) -> list[str]:
    """One line per field that differs: `optim.lr: 0.001 -> 0.01`."""
    a, b = flatten(old), flatten(new)
    return [
        f"{key}: {a.get(key, '(absent)')!r} -> {b.get(key, '(absent)')!r}"
        for key in sorted({*a, *b})
        if a.get(key, "(absent)") != b.get(key, "(absent)")
    ]


def load(path_and_arg: str, overrides: dict[str, str] | None = None):
    """`"configs/x.py:arg"` plus `{"optim.lr": "3e-4"}` -> locked ConfigDict.

    Raises:
      AsjaxError: no such file, no `get_config`, unknown field (with the nearest known one), or a
        value of another type than the field has.
    """
    name, _, arg = path_and_arg.partition(":")
    path = Path(name)
    if not path.is_file():
        raise AsjaxError(f"config {path} does not exist; give a file such as configs/quickstart.py")
    spec = importlib.util.spec_from_file_location(f"asjax_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise AsjaxError(f"config {path} is not valid Python: {error}") from None
    if not hasattr(module, "get_config"):
        raise AsjaxError(f"config {path} must define get_config(arg=None)")
    config = module.get_config(arg or None)
    for key, text in (overrides or {}).items():
        _override(config, key, parse_value(text))
    return config.lock() if hasattr(config, "lock") else config


def _override(config, dotted: str, value):
    *parents, leaf = dotted.split(".")
    known = flatten(config)
    at = config
    for part in parents:
        at = at.get(part) if hasattr(at, "get") else None
        if at is None:
            raise unknown("config field", dotted, known)
    if not hasattr(at, "keys") or leaf not in at:
        raise unknown("config field", dotted, known)
    at[leaf] = _typed(f"config field {dotted}", value, at[leaf])


def new():
    """An empty ConfigDict: what a config file fills."""
    return _config_dict({})


def audioset_data(*, tiny: bool, draw: str, sample_rate: int = 32_000, clip_s: float = 10.0):
    """The `data` of an AudioSet recipe: records in $ASJAX_DATA/audioset, splits train and eval.

    `tiny` takes one second of the embedded recordings instead, so that a recipe runs anywhere.
    """
    folder = os.path.join(os.environ.get("ASJAX_DATA", "data"), "audioset")

    def source(split: str, stand_in: str) -> dict:
        if tiny:
            return dict(name="esc10", splits=[stand_in])
        return dict(name="records", path=folder, splits=[split])

    return dict(
        train=dict(source("train", "fold1"), labels_csv=""),  # see asjax prepare enhance
        eval=source("eval", "fold5"),
        sample_rate=sample_rate,
        clip_s=1.0 if tiny else clip_s,
        draw=draw,
        workers=0 if tiny else 8,
        threads=2,
        cache=False,
        max_bad=0.05,
    )

"""Specs and configs: parse calls without eval, find things by name, compare and hash configs.

A *spec* is a dict `{"name": ..., **keywords}` or a string in call syntax, `"mixup(alpha=1)"`. A
*chain* is a string of calls joined by `|`. A name is either a short public name (build.py has the
table of places) or the name of a user's own code, `"my_package.my_file:thing"`.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import errno
import hashlib
import importlib.util
import inspect
import json
import os
import re
import sys
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

_OWN = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*):(?=[A-Za-z_])")  # "my_package.my_file:"
_TRUSTED: set[str] = set()  # names of the user's code, from the user's config files and programs


class AsjaxError(ValueError):
    """An error the user can act on: one line saying what is wrong, where, and what to do."""

    code = 2  # the exit code of the program

    def __init__(self, *args):
        super().__init__(*(printable(a) if isinstance(a, str) else a for a in args))


class NoArgument(AsjaxError):
    """A recipe has no argument of this name, the attribute `name` of the error."""

    name = ""


class AsjaxWarning(UserWarning):
    """Something that the user should know. The work goes on."""


def in_words(error: BaseException) -> str:
    """The type and the message of an error, on one line of at most 300 characters."""
    text = " ".join(str(error).split())
    return shown(f"{type(error).__name__}: {text}" if text else type(error).__name__, 300)


@contextlib.contextmanager
def blaming(label: str, *passing):
    """Turn an error of the part `label` into an AsjaxError that names it; the cause is kept.

    Args:
      passing: types of exceptions that pass unchanged, besides AsjaxError.
    """
    try:
        yield
    except (AsjaxError, MemoryError, *passing):
        raise
    except Exception as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        raise AsjaxError(f"{label}: {in_words(error)}") from error


def printable(text: str) -> str:
    """Text without control characters, because a file name may have line breaks or escape codes."""
    return "".join(c if c.isprintable() else "?" for c in text)


def shown(name, width: int = 160) -> str:
    """A name for a message: printable, at most `width` characters, shortened in the middle."""
    text = printable(os.fspath(name) if isinstance(name, os.PathLike) else str(name))
    if len(text) <= width:
        return text
    return f"{text[: width // 3]}...{text[3 + width // 3 - width :]}"


def warn(text: str) -> None:
    """Warn the user, once per text. The verbs print the text as one line."""
    warnings.warn(printable(str(text)), AsjaxWarning, stacklevel=2)


@contextlib.contextmanager
def warnings_as_lines(program: str):
    """Print the texts of `warn` as lines on stderr, "asjax tag: ...", above any progress bar."""

    def show(message, category, filename, lineno, file=None, line=None):
        if not issubclass(category, AsjaxWarning):
            return before(message, category, filename, lineno, file, line)
        tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
        bars = tqdm.external_write_mode(file=sys.stderr) if tqdm else contextlib.nullcontext()
        with bars:
            print(f"{program}: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default", AsjaxWarning)
        before, warnings.showwarning = warnings.showwarning, show
        yield


def unknown(thing: str, name: Any, known) -> AsjaxError:
    """The error for an unknown name. It lists the known names and the nearest spelling."""
    known = sorted(map(str, known))
    hint = nearest(name, known) or "."
    return AsjaxError(f"{thing} {quoted(name, 200)} does not exist{hint} Known: {', '.join(known)}")


def nearest(name: Any, known) -> str:
    """`"; did you mean 'x'?"` with the most similar known name, or "" if none is similar."""
    folded = {str(one).casefold(): str(one) for one in known}
    near = difflib.get_close_matches(str(name)[:200].casefold(), folded, n=1)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def quoted(value: Any, most: int = 60) -> str:
    """A value from a user's file for a message: always printable, short and on one line."""
    if isinstance(value, int) and value.bit_length() > 128:
        return "a huge integer"
    if isinstance(value, (dict, list)) and len(value) > 20:
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    try:
        text = repr(value[: most + 1] if isinstance(value, str) else value)
    except (RecursionError, ValueError):
        return f"a {type(value).__name__}"
    return text if len(text) <= most + 2 else f"{text[:most]}..."


# --------------------------------------------------------------------------------- parsing


def _literal(node: ast.expr, text: str):
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise AsjaxError(f"spec {text!r}: arguments must be Python literals") from None


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """`"specaug(time=64, freq=8)"` -> `("specaug", {"time": 64, "freq": 8})`; keywords only.

    The name may be that of a user's own code, as in `"my_package.my_file:thing(x=1)"`.
    """
    shape = AsjaxError(f"spec {text!r} must look like name or name(key=value, ...)")
    own = _OWN.match(text.strip())
    module = own[1] + ":" if own else ""
    try:
        node = ast.parse(text.strip()[len(module) :], mode="eval").body
    except SyntaxError:
        raise shape from None
    if isinstance(node, ast.Name):
        return module + node.id, {}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise shape
    if node.args or any(k.arg is None for k in node.keywords):
        raise AsjaxError(f"spec {text!r}: give every argument by keyword, as key=value")
    return module + node.func.id, {k.arg: _literal(k.value, text) for k in node.keywords}


def counted(count: int, noun: str, plural: str = "") -> str:
    """`(1, "clip")` -> "1 clip", `(2000, "clip")` -> "2,000 clips"."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def _split(text: str, at: str) -> list[str]:
    """Split at a character, but not inside brackets or quotes."""
    parts, depth, quote, start, escaped = [], 0, "", 0, False
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote and not escaped else quote
            escaped = char == "\\" and not escaped
        elif char in "'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == at and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [part.strip() for part in (*parts, text[start:])]


def chain(text: str | None) -> list[tuple[str, dict[str, Any]]]:
    """`"a(x=1) | b"` -> `[("a", {"x": 1}), ("b", {})]`; empty or None -> `[]`."""
    links = _split(text or "", "|")
    if links == [""]:
        return []
    if "" in links:
        raise AsjaxError(f"chain {text!r} has an empty link; give one | between two calls")
    return [parse_call(part) for part in links]


def split_spec(spec) -> tuple[str, dict[str, Any]]:
    """A spec in either form -> `(name, keywords)`."""
    if isinstance(spec, str):
        return parse_call(spec)
    fields = dict(to_plain(spec))
    if "name" not in fields:
        raise AsjaxError(f"spec {fields!r} must have a 'name'")
    return fields.pop("name"), fields


def parse_value(text: str):
    """A command-line value: a Python literal if it can be parsed as one, else the string itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def parse_arg(arg: str | dict | None, **defaults):
    """`"beta=0.5,hlp=False,tiny"` over typed defaults -> ConfigDict (a bare name means True).

    A program may also give a dict of values.

    Raises:
      AsjaxError: an unknown name (the known names are listed) or a value of another type.
    """
    values = dict(defaults)
    if isinstance(arg, dict):
        given = list(arg.items())
    else:
        items = [item.partition("=") for item in _split(arg or "", ",") if item]
        given = [(key, parse_value(text) if eq else True) for key, eq, text in items]
    for key, value in given:
        if key not in defaults:
            error = NoArgument(str(unknown("config argument", key, defaults)))
            error.name = key
            raise error
        values[key] = typed(key, value, defaults[key])
    return new(values)


def typed(key: str, value, default):
    """`value` in the type of `default`. An int may become a float; no other type may change.

    Raises:
      AsjaxError: `value` has another type. `key` is its name in the message.
    """
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


# ---------------------------------------------------------------------------------- finding


def find(kind: str, place: str, name: str):
    """The thing called `name`.

    Args:
      kind: for messages. place: the meaning of short names, "module:{name}" (a public name of that
        module) or "package.{name}:thing" (a public file of that package).
      name: a short name, or the name of the user's own code, "my_package.my_file:thing".

    Raises:
      AsjaxError: no such name (the message lists the known names and the nearest), or a name of
        the user's code that comes only from a stored file. Such code runs only if the user's config
        or program names it.
    """
    if ":" in name:
        return _own(kind, name)
    if name not in (known := names(place)):
        raise unknown(kind, name, known)
    module, _, thing = place.format(name=name).partition(":")
    return getattr(import_module(module), thing)


def names(place: str) -> list[str]:
    """The short names of a place: `__all__` of a module, the public files of a package."""
    module, _, thing = place.partition(":")
    if thing == "{name}":
        return list(import_module(module).__all__)
    folder = Path(import_module(module.rpartition(".")[0]).__file__).parent
    return sorted(path.stem for path in folder.glob("[!_]*.py"))


def _own(kind: str, name: str):
    module, _, thing = name.partition(":")
    if name not in _TRUSTED:
        raise AsjaxError(
            f"{kind} {name!r} is code outside of asjax, and a stored file may not run such code; "
            "if you trust it, give its name to --trust, or to asjax.config.trust in a program"
        )
    try:
        found = getattr(import_module(module), thing)
    except (ImportError, AttributeError) as error:
        raise AsjaxError(
            f"{kind} {name!r} cannot be imported: {error}; is it on PYTHONPATH?"
        ) from None
    except Exception as error:
        raise AsjaxError(f"{kind} {name!r} cannot be imported: {in_words(error)}") from error
    if not callable(found):
        raise AsjaxError(f"{kind} {name!r} must be a function, got {quoted(found)}")
    return found


def trust(value) -> None:
    """Allow all names of user code, "my_package.my_file:thing", in a string or in a config.

    `load` calls it for config files and overrides, because a config file is code that runs anyway.
    """
    if isinstance(value, str):
        _TRUSTED.update(re.findall(r"[A-Za-z_]\w*(?:\.\w+)*:[A-Za-z_]\w*", value))
        return
    for item in to_plain(value).values() if hasattr(value, "keys") else value:
        if isinstance(item, (str, dict, list, tuple)) or hasattr(item, "keys"):
            trust(item)


def trust_named(names) -> None:
    """`trust` for the values of an option --trust. AsjaxError: a value is no name of user code."""
    for name in names or ():
        if not re.fullmatch(_OWN.pattern + r"\w+", name):
            raise AsjaxError(
                f"--trust must be a name such as my_package.parts:model, got {quoted(name)}"
            )
        trust(name)


TRUST = dict(  # how a verb declares its option --trust
    action="append", metavar="NAME", help="let the model run your own code of this name; repeatable"
)


def call(function, label: str, /, *args, offered: dict | None = None, **fields):
    """Call `function`. An unknown keyword raises an error that lists the known keywords.

    Args:
      label: for messages. offered: values from the program, passed only if the function takes them.
    """
    known = inspect.signature(function).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in known.values())
    offered = {k: v for k, v in (offered or {}).items() if k in known or anything}
    takes = [
        name
        for name, p in list(known.items())[len(args) :]
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) and name not in offered
    ]
    for key in fields:
        if key in offered:
            raise AsjaxError(f"{label}: {key} is set by the program; remove it from the config")
        if key not in takes and not anything:
            raise unknown(f"{label}: field", key, takes)
    for name in takes:
        if known[name].default is inspect.Parameter.empty and name not in fields:
            raise AsjaxError(f"{label} needs {name}, as {name}=...")
    with blaming(label):
        return function(*args, **offered, **fields)


# --------------------------------------------------------------------------------- configs


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
    """One line per field that differs: `optim.lr: 0.001 -> 0.01`; long values are shortened."""
    a, b = flatten(old), flatten(new)
    return [
        f"{key[:100]}: {quoted(a.get(key, '(absent)'))} -> {quoted(b.get(key, '(absent)'))}"
        for key in sorted({*a, *b})
        if a.get(key, "(absent)") != b.get(key, "(absent)")
    ]


def read(path_and_arg: str, values: dict | None = None):
    """`"configs/x.py:arg"` -> the unlocked ConfigDict that its `get_config` returns.

    Args:
      values: arguments as a dict, in place of the text after the colon.

    Raises:
      AsjaxError: no such file, not Python, no `get_config`, or one that fails or returns no config.
    """
    name, _, arg = path_and_arg.partition(":")
    path = Path(name)
    if path.is_file() and path.suffix != ".py":
        raise AsjaxError(
            f"config {shown(path)} must be a Python file, FILE.py, or the config.json of a workdir"
        )
    if not path.is_file():
        raise AsjaxError(f"config {path} does not exist; give a file such as configs/quickstart.py")
    spec = importlib.util.spec_from_file_location(f"asjax_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise AsjaxError(f"config {path} must define get_config(arg=None)")
        cfg = module.get_config(values or arg or None)
        cfg = new(cfg) if isinstance(cfg, dict) else cfg
    except SyntaxError as error:
        raise AsjaxError(f"config {path} is not valid Python: {error}") from None
    except AsjaxError:
        raise
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == name]
        at = f", line {lines[-1]}" if lines else ""
        raise AsjaxError(f"config {path}{at}: {in_words(error)}") from error
    if not hasattr(cfg, "keys"):
        raise AsjaxError(
            f"config {path}: get_config must return a config, such as asjax.config.new(), got "
            f"{quoted(cfg)}"
        )
    return cfg


def new(values: dict | None = None):
    """A ConfigDict, empty for a config file to fill or with `values`."""
    from ml_collections import ConfigDict  # not at the top: training parts import without it

    return ConfigDict(values or {})


# The arguments with which a recipe saves memory, and their defaults.
MEMORY = {"dtype": "float32", "remat": False, "accumulate": 1}


def teacher_of(arg, command: str) -> str:
    """The argument `teacher` of a recipe for students: a folder, or "" for labels alone.

    Args: command: the `asjax logits` command that makes the folder.

    Raises:
      AsjaxError: it is not given. `teacher=none` and `tiny` mean labels alone.
    """
    if not arg.teacher and not arg.tiny:
        raise AsjaxError(
            f"this recipe needs a teacher, teacher=FOLDER, which {command} makes; teacher=none "
            "trains on the labels alone"
        )
    return "" if arg.teacher == "none" else arg.teacher


def save_memory(cfg, arg) -> None:
    """Write a recipe's arguments MEMORY into its fields; call it when model and optim are set.

    A model family that has no such field refuses it when it is built.
    """
    cfg.optim.accumulate_steps = arg.accumulate
    cfg.model.update(dtype=arg.dtype, remat=arg.remat)

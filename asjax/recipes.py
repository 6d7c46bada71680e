"""`asjax configs`: the recipes that come with asjax. In a clone they are the folder configs/."""

from __future__ import annotations

import ast
from pathlib import Path

from asjax import config
from asjax.config import AsjaxError, shown, unknown

HERE = Path(__file__).parent
PLACES = (HERE / "_configs", HERE.parent / "configs")  # installed (see setup.py); in a clone


def folder() -> Path:
    """The folder of the recipes. AsjaxError: this copy of asjax comes without them."""
    for place in PLACES:
        if (place / "quickstart.py").is_file():
            return place
    raise AsjaxError("this copy of asjax comes without its recipes; install it again with pip")


def names() -> list[str]:
    """The names of the recipes."""
    return sorted(path.stem for path in folder().glob("[!_]*.py"))


def path_of(name: str) -> Path:
    """The file of a recipe. AsjaxError lists the known names and the nearest one."""
    if name not in (known := names()):
        raise unknown("recipe", name, known)
    return folder() / f"{name}.py"


def resolve(path_and_arg: str) -> tuple[str, str]:
    """`--config` -> (the same with the path of an existing file, a line about it or "").

    A file of the user comes first. If there is none, `quickstart`, `quickstart.py` and
    `configs/quickstart.py` mean the recipe of that name.

    Raises:
      AsjaxError: neither a file nor a recipe.
    """
    name, colon, arg = path_and_arg.partition(":")
    path = Path(name)
    if path.is_file() and path.suffix:
        return path_and_arg, ""
    stem = path.stem if path.suffix in ("", ".py") else ""
    if path.is_file() and stem not in names():
        return path_and_arg, ""  # config.read says what a config must be
    if stem in names() and path.parent in (Path(), Path("configs")):
        recipe = path_of(stem)
        return f"{recipe}{colon}{arg}", f"config {shown(name)}: the recipe that comes with asjax"
    raise AsjaxError(
        f"config {shown(path)} does not exist; give a file such as configs/quickstart.py, or a "
        f"recipe: {', '.join(names())}{config.nearest(stem, names()) if stem else ''}"
    )


def about(name: str) -> tuple[str, str]:
    """(first line of a recipe's docstring, its arguments with defaults), without running it."""
    tree = ast.parse(path_of(name).read_text(encoding="utf-8"))
    first = (ast.get_docstring(tree) or "").partition("\n")[0]
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    call = next((c for c in calls if ast.unparse(c.func) == "config.parse_arg"), None)
    parts = []
    for keyword in call.keywords if call else ():
        if keyword.arg is None:  # **config.MEMORY
            parts += [f"{key}={value}" for key, value in config.MEMORY.items()]
        else:
            parts.append(f"{keyword.arg}={ast.unparse(keyword.value)}")
    return first, ", ".join(parts)


# ------------------------------------------------------------------------------------ the verb


def add_arguments(parser):
    parser.add_argument("what", choices=("list", "show", "copy"), help="what to do")
    parser.add_argument("name", nargs="?", help="the recipe to show or to copy")
    parser.add_argument("--to", metavar="FILE", help="where to copy it (default: NAME.py here)")


def main(args) -> int:
    if (args.what == "list") == bool(args.name):
        lists = "asjax configs list takes no name; asjax configs show NAME prints a recipe"
        raise AsjaxError(lists if args.name else f"asjax configs {args.what} needs a recipe's name")
    if args.to and args.what != "copy":
        raise AsjaxError(f"--to belongs to asjax configs copy, not to {args.what}")
    if args.what == "list":
        width = max(map(len, names()))
        for name in names():
            first, fields = about(name)
            print(f"{name:<{width}}  {first} ({fields})")
        return 0
    name = args.name.removesuffix(".py").removeprefix("configs/")
    text = path_of(name).read_text(encoding="utf-8")
    if args.what == "show":
        print(text, end="")
        return 0
    to = Path(args.to or f"{name}.py")
    to = to / f"{name}.py" if to.is_dir() else to
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with to.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise AsjaxError(f"{shown(to)} exists already; give another file with --to") from None
    except ValueError as error:
        raise AsjaxError(f"--to {shown(to)} is no name of a file: {error}") from None
    print(f"{to}\ntrain with: asjax train --config={to} --workdir=runs/{to.stem}")
    return 0

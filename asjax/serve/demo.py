"""`asjax demo`: a folder with a page that runs a model in the browser; any web server can send it.

Exit codes: 0 the folder is complete; 2 nothing has changed, one line says why.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from asjax.config import TRUST, AsjaxError, printable, shown, trust_named

MODEL, LABELS = "model.onnx", "labels.json"
_MARK = "asjax demo"  # in labels.json: the folder may be replaced


def add_arguments(parser):
    parser.epilog = (
        f"{parser.epilog}\n  asjax demo model.onnx --to site/\n\nthen:\n"
        "  python -m http.server --bind 127.0.0.1 --directory site 8000\n"
        "and open http://127.0.0.1:8000/ in a browser."
    )
    parser.add_argument("model", metavar="MODEL", help="model folder, finished run or .onnx file")
    parser.add_argument(
        "--to", required=True, metavar="DIR", help="the folder to make; an older page is replaced"
    )
    parser.add_argument(
        "--ort",
        metavar="DIR",
        help="folder with the files of onnxruntime-web, such as node_modules/onnxruntime-web/dist "
        "(default: npm downloads the package)",
    )
    parser.add_argument(
        "--weights",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="how the weights are stored in model.onnx, as in asjax export (default float32)",
    )
    parser.add_argument("--trust", **TRUST)


def main(args) -> int:
    trust_named(args.trust)
    from asjax.predict import onnx_tagger

    source, onnx = Path(args.model), onnx_tagger.is_file(args.model)
    if onnx and not source.is_file():
        raise AsjaxError(f"the model {shown(source)} does not exist")
    if onnx and args.weights != "float32":
        raise AsjaxError("--weights is for a model folder; an .onnx file is taken as it is")
    from asjax import predict
    from asjax.serve import answers

    if not onnx:
        from asjax import devices

        devices.setup()
    tagger = predict.load(args.model)

    def model(path: Path) -> None:
        if onnx:
            shutil.copyfile(source, path)
        else:
            from asjax import export

            export.to_onnx(args.model, path, weights=args.weights)

    write(tagger, answers.title(args.model), model, args.to, args.ort)
    to = printable(shlex.quote(args.to))
    total = sum(file.stat().st_size for file in Path(args.to).iterdir() if file.is_file())
    print(
        f"{shown(args.to)}: a page with {total / 1e6:.1f} MB. To see it:\n"
        f"  python -m http.server --bind 127.0.0.1 --directory {to} 8000"
    )
    return 0


def write(tagger, name: str, model, to, ort_folder: str | None) -> None:
    """Make the folder of a page, all of it or nothing.

    Args:
      tagger: has the model's classes and input. name: of the model, for people.
      model: a function that writes the ONNX file to a path.
      ort_folder: see `ort.put`.

    Raises:
      AsjaxError: `to` has other contents, files are missing, or the disk is full.
    """
    from asjax.serve import answers, ort
    from asjax.serve.service import PAGE, as_json
    from asjax.store import files, swap

    try:
        with swap.folder(to, what="page", ours=_ours) as new:
            version = ort.put(new, ort_folder)
            model(new / MODEL)
            for file in PAGE.iterdir():
                shutil.copyfile(file, new / file.name)
            about = answers.about(tagger, name, onnx=MODEL, ort=version, made_by=_MARK)
            (new / LABELS).write_bytes(as_json(about))
    except OSError as error:
        raise AsjaxError(f"--to {shown(to)} cannot be written: {files.reason(error)}") from None


def _ours(folder: Path) -> set[str] | None:
    """The names that `write` may have written; None if the folder is no page."""
    from asjax.serve import ort
    from asjax.serve.service import PAGE

    try:
        known = f'"made_by": "{_MARK}"' in (folder / LABELS).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return {MODEL, LABELS, *ort.NAMES, *(file.name for file in PAGE.iterdir())} if known else None

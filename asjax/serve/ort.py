"""The files of onnxruntime-web, which runs an ONNX model in a browser. The wheel has none of them.

They come from a folder, such as node_modules/onnxruntime-web/dist, or from the npm package of the
pinned version. Its code is under the MIT licence, which is copied with them; the package itself
has no licence file.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from asjax.config import AsjaxError, shown, warn
from asjax.store import files

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
LICENCE = "ort-LICENSE.txt"
SHA256 = {  # of the pinned version
    "ort.wasm.min.js": (
        "faece07e84faa9001f5104bbe4e5c70861d06cb2376a0dea1fa0ad33a67adc81"
    ),
    "ort-wasm-simd-threaded.mjs": (
        "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b"
    ),
    "ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}  # fmt: skip
NAMES = (*SHA256, LICENCE)
HOW = (
    f"run npm install {PACKAGE}@{VERSION} and give --ort node_modules/{PACKAGE}/dist; without npm, "
    "copy that folder from another machine"
)
_NPM_S = 300  # longest download


def put(to: Path, folder: str | None) -> str:
    """Copy the files and their licence into `to`; returns their version.

    Args:
      folder: where they are; None: npm downloads the package into a temporary folder.

    Raises:
      AsjaxError: they are not there, or damaged; no npm, or it failed.
      OSError: `to` cannot be written.
    """
    if folder is not None:
        version = _copy(Path(folder), to)
    else:
        with tempfile.TemporaryDirectory(prefix="asjax-ort-") as temporary:
            version = _copy(_packed(Path(temporary)), to)
    shutil.copyfile(Path(__file__).parent / LICENCE, to / LICENCE)
    return version


def _copy(folder: Path, to: Path) -> str:
    inner = folder / "dist"
    folder = inner if not (folder / "ort.wasm.min.js").exists() and inner.is_dir() else folder
    for name in SHA256:
        try:
            source = (folder / name).open("rb")
        except OSError as error:
            raise AsjaxError(
                f"--ort {shown(folder)} needs {', '.join(SHA256)}; {name} cannot be read: "
                f"{files.reason(error)}; {HOW}"
            ) from None
        with source, (to / name).open("wb") as copy:
            shutil.copyfileobj(source, copy)
    with (to / "ort.wasm.min.js").open("rb") as script:
        found = re.search(rb"ONNX Runtime Web v(\d[\w.+-]*)", script.read(1000))
    version = found[1].decode("ascii") if found else "unknown"
    if version != VERSION:
        warn(
            f"--ort {shown(folder)} is {PACKAGE} {version}; the page was tested with {VERSION}. If "
            "it does not load, take that version"
        )
        return version
    for name, wanted in SHA256.items():
        if files.digest(to / name) != wanted:
            raise AsjaxError(
                f"--ort {shown(folder)}: {name} is not that of {PACKAGE} {VERSION} (its SHA-256 "
                f"differs); {HOW}"
            )
    return version


def _packed(temporary: Path) -> Path:
    """The folder with the files of the npm package, downloaded into a temporary folder."""
    npm = shutil.which("npm")
    if npm is None:
        raise AsjaxError(f"the page needs files of {PACKAGE}, and there is no npm here; {HOW}")
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--silent"]
    command += ["--pack-destination", str(temporary)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_NPM_S, cwd=temporary,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        said = [one.strip() for one in done.stderr.splitlines() if one.strip()]
        reason = "" if not done.returncode else (said or [f"exit code {done.returncode}"])[0]
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = files.reason(error)
    archives = list(temporary.glob("*.tgz"))
    if reason or len(archives) != 1:
        raise AsjaxError(f"npm could not get {PACKAGE} {VERSION}: {shown(reason)}; {HOW}")
    out = temporary / "dist"
    out.mkdir()
    try:
        with tarfile.open(archives[0]) as archive:
            for name in SHA256:
                source = archive.extractfile(f"package/dist/{name}")
                with source, (out / name).open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except (KeyError, tarfile.TarError, OSError, EOFError) as error:
        raise AsjaxError(
            f"the npm package {PACKAGE} {VERSION} is damaged: {files.reason(error)}; {HOW}"
        ) from None
    return out

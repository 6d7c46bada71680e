"""`resolve`: the model folder for a path, a repository of the Hugging Face Hub, a published name.

    runs/quickstart               a local path; one that exists always wins
    org/name, org/name@revision   a repository, unless the folder `org` exists here
    hf://org/name@revision        a repository in any case
    cnn14                         a published checkpoint (fetched.py)

Only the files of a model folder are downloaded: no pickle, and no code. The folder is then read as
any other, with all hashes. What is in the library's cache is used without opening a socket; a
branch or tag that the user names is asked for anew, because it may have moved.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from asjax.config import AsjaxError, quoted, shown
from asjax.store import model_dir, schema, swap
from asjax.weights import hub_errors

SCHEME = "hf://"
DERIVED = ("preprocessor_config.json", "README.md")  # written for the Hub, without a hash
_NAMES = ("card.json", *model_dir.FILES, model_dir.PARENTS, model_dir.EXTRA, *DERIVED)
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_REPO = re.compile(rf"{_PART}/{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FILES = (".onnx", ".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".json", ".npz")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill")


class Repository(NamedTuple):
    """A repository of the Hub and perhaps a branch, a tag or a commit."""

    id: str
    revision: str | None = None


def resolve(
    source, *, revision=None, cache_dir=None, token=None, local_files_only: bool = False
) -> Path:
    """The model folder for what the user names. A path that does not exist comes back as it is.

    Args:
      source: see above. A `pathlib.Path` is always a path.
      revision, cache_dir, token, local_files_only: of a repository, as `snapshot_download` of
        huggingface_hub takes them.

    Raises:
      AsjaxError: a repository or a published checkpoint that cannot be had, or an empty name; one
        line says why.
      TypeError: `source` is no path.
    """
    if source == "":
        raise AsjaxError("a model must be a path or a name, got an empty one")
    path, text = Path(source), source if isinstance(source, str) else ""
    named, repository = text.startswith(SCHEME), parse(text)
    here = not named and (swap.find(path) is not None or (repository and path.parent.is_dir()))
    if repository and not here:
        if revision is not None and repository.revision not in (None, revision):
            raise AsjaxError(f"{shown(text)} names another revision than {quoted(revision)}")
        wanted = repository.revision if revision is None else revision
        repository = repository._replace(revision=_revision(wanted))
        return _from_hub(repository, cache_dir, token, local_files_only, named)
    if revision is not None:
        raise AsjaxError(f"revision {quoted(revision)} needs a repository org/name, got {text}")
    if text and not here:
        from asjax.weights import fetched

        if fetched.rows_of(text):
            return fetched.model(text)
    return path


def local(paths) -> list[str]:
    """The model folders of the options of a verb, as text. AsjaxError: as `resolve`."""
    return [str(resolve(path)) for path in paths]


def slug(source: str) -> str | None:
    """A name for a folder of results if `source` is no local path, else None."""
    if swap.find(Path(source)) is not None:
        return None
    return re.sub(r"[^\w.-]+", "--", source.removeprefix(SCHEME)).strip(".-") or None


def parse(text: str) -> Repository | None:
    """The repository that a text names, or None. AsjaxError: hf:// with something else."""
    name, _, revision = text.removeprefix(SCHEME).partition("@")
    if is_repo(name) and (text.startswith(SCHEME) or not name.endswith(_FILES)):
        return Repository(name, revision or None)
    if text.startswith(SCHEME):
        raise AsjaxError(f"{quoted(text)} must be {SCHEME}org/name or {SCHEME}org/name@revision")
    return None


def is_repo(name: str) -> bool:
    """Whether this is the id of a repository: org/name, of letters, digits and - _ . inside."""
    odd = ".." in name or "--" in name or name.endswith(".git")
    return bool(_REPO.fullmatch(name)) and not odd


def _revision(text: str | None) -> str | None:
    """A revision. AsjaxError: it has characters that no branch has, such as "..", a path."""
    if text is not None and (
        not isinstance(text, str) or not _REVISION.fullmatch(text) or ".." in text
    ):
        raise AsjaxError(f"revision {quoted(text)} must be a branch, a tag or a commit")
    return text


# ---------------------------------------------------------------------------- a repository


def _from_hub(repository: Repository, cache_dir, token, local_files_only: bool, named) -> Path:
    repo, revision = repository
    name = f"{repo}@{revision}" if revision else repo
    nowhere = "" if named else f"{repo} is no folder here; "
    library = hub_errors.library(f"{nowhere}to load it from the Hugging Face Hub")

    def download(patterns, revision, only_cache=False) -> Path:
        return Path(
            library.snapshot_download(
                repo,
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                local_files_only=only_cache,
                allow_patterns=list(patterns),
            )
        )

    closed = local_files_only or hub_errors.offline()
    if closed or revision is None or _COMMIT.fullmatch(revision):
        folder = _cached(download, revision)
        if folder is not None and not _lacking(folder):
            return folder
        if closed:
            raise _not_cached(name, cache_dir, local_files_only, folder, repo, nowhere)
    try:
        about = library.HfApi(token=token).model_info(repo, revision=revision)
        listed = sorted(file.rfilename for file in about.siblings)
        if "card.json" not in listed:
            config = "config.json" in listed and download(["config.json"], about.sha)
            raise _other(name, repo, config or None, listed)
        folder = download(_NAMES, revision)
    except AsjaxError:
        raise
    except Exception as error:  # its own errors, those of its HTTP client, OSError
        error = hub_errors.first(error)
        if not hub_errors.no_network(error):
            found = hub_errors.line(error, repo, revision, token, "fetched")
            raise AsjaxError(f"{nowhere}{found}") from error
        folder = _cached(download, revision)
        if folder is None or _lacking(folder):
            why = (name, cache_dir, local_files_only, folder, repo, nowhere)
            raise _not_cached(*why) from error
    if lacking := _lacking(folder):
        raise AsjaxError(f"the repository {name} lacks {', '.join(lacking)} of its card.json")
    return folder


def _cached(download, revision) -> Path | None:
    """The snapshot in the cache, perhaps with files missing, or None. Opens no socket."""
    try:
        return download(_NAMES, revision, only_cache=True)
    except Exception as error:
        if "LocalEntryNotFoundError" in hub_errors.kinds(error):
            return None
        raise AsjaxError(f"the cache of the Hub cannot be read: {error}") from error


def _lacking(folder: Path) -> list[str]:
    """The files of a model that a snapshot lacks."""
    if not (folder / "card.json").is_file():
        return ["card.json"]
    card = schema.read_json(folder / "card.json", model_dir.CARD_BYTES)
    sums = card.get("sha256") if isinstance(card, dict) else None
    optional = [n for n in (model_dir.PARENTS, model_dir.EXTRA) if n in (sums or {})]
    return [name for name in (*model_dir.FILES, *optional) if not (folder / name).is_file()]


def _not_cached(name, cache_dir, only_local, folder, repo, nowhere) -> AsjaxError:
    """The line for a repository that is not, or not wholly, in the cache."""
    from huggingface_hub import constants

    place = cache_dir or constants.HF_HUB_CACHE
    state = "the Hub cannot be reached"
    if only_local or hub_errors.offline():
        state = "local_files_only is set" if only_local else "HF_HUB_OFFLINE is set"
    if folder is not None and not (folder / "card.json").is_file():
        return _other(name, repo, folder, sorted(p.name for p in folder.iterdir()))
    part = f" (it lacks {', '.join(_lacking(folder))})" if folder is not None else ""
    return AsjaxError(
        f"{nowhere}the repository {name} is not or not wholly in the cache {place}{part}, and "
        f"{state}; load it once with a network, or give a model folder"
    )


def _other(name: str, repo: str, folder: Path | None, listed: list[str]) -> AsjaxError:
    """The line for a repository that holds something else than a model of asjax."""
    from asjax.weights import published

    config = {}
    if folder is not None and (folder / "config.json").is_file():
        config = schema.read_json(folder / "config.json")
    kind = config.get("model_type") if isinstance(config, dict) else None
    row = published.by_hub(repo)
    port = f"convert it with: asjax port {name} --to=FOLDER"
    port += f"; or load it by its name {row.name}" if row is not None else ""
    pickles = [file for file in listed if file.endswith(_PICKLES)]
    tensors = [file for file in listed if file.endswith(".safetensors")]
    if kind and kind != "asjax":
        return AsjaxError(
            f"{name} is no asjax model but one of transformers (model_type {quoted(kind)}); {port}"
        )
    if pickles and not tensors:
        return AsjaxError(
            f"{name} is no asjax model (no card.json), and its weights are a pickle "
            f"({shown(pickles[0])}), which was not downloaded or opened; if it is the checkpoint "
            f"of a known model, {port}, which runs no code of it"
        )
    files = ", ".join(shown(file, 60) for file in listed[:5]) or "none"
    return AsjaxError(f"{name} is no asjax model: it has no card.json; its files: {files}")

"""`asjax push`: put a model folder on the Hugging Face Hub, in one commit."""

from __future__ import annotations

import tempfile
from pathlib import Path

from asjax.config import AsjaxError, quoted
from asjax.weights import hub, hub_errors, hub_folder


def push(
    source,
    repo_id: str,
    *,
    private: bool | None = None,
    token=None,
    commit_message: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    licence: str | None = None,
) -> str:
    """Create the repository if there is none, and upload a model folder; returns the address.

    Args:
      source: a model folder, or a workdir. repo_id: org/name.
      private, token, commit_message, revision, create_pr: as in huggingface_hub. Without `token`
        the stored one is used. private=None leaves a repository as it is; a new one is public.
      licence: of your own weights (see `hub_folder.save`).

    Raises:
      AsjaxError: no sound model, no licence, no token, or the Hub refuses; one line says why.
    """
    from asjax import __version__

    _check(repo_id)
    library = hub_errors.library(f"to push to {repo_id}")
    with tempfile.TemporaryDirectory(prefix="asjax-push-") as folder:
        hub_folder.staged(source, Path(folder), repo_id, licence)
        try:
            api = library.HfApi(token=token, library_name="asjax", library_version=__version__)
            created = api.create_repo(repo_id, private=private, exist_ok=True)
            made = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message or "Upload a model of asjax",
                revision=revision,
                create_pr=create_pr,
            )
        except Exception as error:  # its own errors, those of its HTTP client, OSError
            raise hub_errors.line(error, repo_id, revision, token, "written") from error
    return str(getattr(made, "pr_url", None) or created)


def _check(repo_id: str) -> None:
    if not isinstance(repo_id, str) or not hub.is_repo(repo_id):
        raise AsjaxError(f"the repository must be org/name, got {quoted(repo_id)}")


# ------------------------------------------------------------------------------------- the verb


def add_arguments(parser):
    parser.add_argument("model", metavar="MODEL", help="model folder, or workdir of a finished run")
    parser.add_argument("repo", metavar="ORG/NAME", help="the repository; created if there is none")
    parser.add_argument(
        "--license",
        metavar="NAME",
        help="licence of your own weights, such as apache-2.0; ported weights keep their authors'",
    )
    parser.add_argument(
        "--private", action="store_true", default=None, help="a new repository is private"
    )
    parser.add_argument("--revision", help="branch to write to (default: main)")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead")
    parser.add_argument("--message", help="message of the commit")
    parser.add_argument(
        "--dry-run", action="store_true", help="list files and bytes; needs no network or token"
    )


def main(args) -> int:
    _check(args.repo)
    folder = hub.resolve(args.model)
    with tempfile.TemporaryDirectory(prefix="asjax-push-") as staged:
        sizes, note = hub_folder.staged(folder, Path(staged), args.repo, args.license)
    for name, size in sizes.items():
        print(f"{size:>14,}  {name}")
    print(f"{sum(sizes.values()):>14,}  bytes in {len(sizes)} files; README.md: {note}")
    if args.dry_run:
        print(f"nothing was sent; without --dry-run these files go to {args.repo}")
        return 0
    url = push(
        folder,
        args.repo,
        private=args.private,
        commit_message=args.message,
        revision=args.revision,
        create_pr=args.create_pr,
        licence=args.license,
    )
    print(f"pushed       {url}\ntry it:      asjax tag YOUR_FILE.wav --model={args.repo}")
    return 0

"""`from_pretrained`: a tagger by the arguments that other libraries have."""

from __future__ import annotations

from asjax.predict.loading import load
from asjax.weights import hub


def from_pretrained(
    repo_or_dir,
    *,
    revision: str | None = None,
    cache_dir=None,
    token=None,
    local_files_only: bool = False,
    **settings,
):
    """The tagger of a model folder, or of a repository of the Hugging Face Hub.

    Args:
      repo_or_dir: a path that exists, "org/name", "hf://org/name@revision", or the name of a
        published checkpoint.
      revision: a branch, a tag or a commit. Without one, a copy in the cache is used as it is; a
        branch or tag that is named is asked for anew.
      cache_dir: the library's cache (default: that of HF_HOME).
      token: for private repositories (default: the stored one). False: none.
      local_files_only: use the cache only. HF_HUB_OFFLINE=1 does the same for a program.
      settings: see `Tagger`.

    Raises:
      AsjaxError: no such model, no network, no permission, or damaged files.
    """
    how = dict(cache_dir=cache_dir, token=token, local_files_only=local_files_only)
    return load(hub.resolve(repo_or_dir, revision=revision, **how), **settings)

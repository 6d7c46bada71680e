"""The library of the Hugging Face Hub, and its errors as one line each.

`huggingface_hub` is optional (the extra `hub`). Its exceptions are known here by their names,
because these moved between modules from version 0.24 to 2.
"""

from __future__ import annotations

import os

from asjax.config import AsjaxError
from asjax.store import files

SIGN_IN = "sign in with `hf auth login`, or set HF_TOKEN"


def library(why: str):
    """The module `huggingface_hub`. AsjaxError: it is not installed; `why` says what needs it."""
    try:
        import huggingface_hub
    except ImportError:
        raise AsjaxError(f"{why}, install huggingface_hub (pip install 'asjax[hub]')") from None
    return huggingface_hub


def offline() -> bool:
    """Whether the user forbids the library to use the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def kinds(error: BaseException) -> set[str]:
    """The names of the classes of an exception."""
    return {one.__name__ for one in type(error).__mro__}


def first(error: BaseException) -> BaseException:
    """The answer of the server behind an exception that only says "not in the cache"."""
    cause = error.__cause__
    return cause if cause is not None and "HfHubHTTPError" in kinds(cause) else error


def no_network(error: BaseException) -> bool:
    """Whether an exception says that no server was reached, or that it is out of order."""
    network = {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectionError"}
    network |= {"ConnectError", "TimeoutException", "TransportError", "ProxyError", "Timeout"}
    status = getattr(getattr(error, "response", None), "status_code", None) or 0
    return bool(network & kinds(error)) or status >= 500


def line(error: BaseException, repo: str, revision: str | None, token, verb: str) -> AsjaxError:
    """One line for an exception of the library.

    Args:
      token: what the user gave: a token, True or None (the stored one), False (none).
      verb: "fetched" or "written": what could not be done.
    """
    kind, name = kinds(error), f"{repo}@{revision}" if revision else repo
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "GatedRepoError" in kind:
        return AsjaxError(
            f"{name} is a gated repository: accept its terms on its page of the Hub, then {SIGN_IN}"
        )
    if "RevisionNotFoundError" in kind:
        return AsjaxError(f"the repository {repo} has no revision {revision or 'main'}")
    if {"LocalTokenNotFoundError"} & kind or status in (401, 403) and _token(token) is None:
        return AsjaxError(
            f"{name} could not be {verb}: the repository does not exist, or it needs a token and "
            f"none was given; check the name, or {SIGN_IN}"
        )
    if "RepositoryNotFoundError" in kind or status in (401, 403, 404):
        what = "does not accept this token" if status in (401, 403) else "does not know it"
        return AsjaxError(
            f"{name} could not be {verb}: the Hub {what} (a private repository is shown only to "
            f"those who may read it); check the name, or {SIGN_IN} with a token that may do this"
        )
    if no_network(error):
        state = "HF_HUB_OFFLINE is set" if offline() else "the Hub cannot be reached"
        return AsjaxError(f"{name} could not be {verb}: {state}")
    why = f"{type(error).__name__}: {files.reason(error)}"
    return AsjaxError(f"{name} could not be {verb} ({why}); the same command tries again")


def _token(given):
    """The token that the library would send, or None."""
    if given is False:
        return None
    if isinstance(given, str):
        return given
    from huggingface_hub import get_token

    return get_token()

"""`save_pretrained` and `push_to_hub` of a tagger: its model folder, for the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from asjax.config import AsjaxError
from asjax.store import model_dir


class Saves:
    """The calls of a tagger that write its model folder. It has `folder` and `record`."""

    def save_pretrained(self, directory, *, license: str | None = None) -> Path:
        """Write the model folder with README.md and preprocessor_config.json for the Hub.

        The weights and config are copied from the folder that this tagger was loaded from. An
        older model in `directory` is replaced, with its README.md.

        Args:
          license: of your own weights, such as "apache-2.0"; ported weights keep their authors'.

        Raises:
          AsjaxError: the tagger was not loaded from a folder, or that one has changed.
        """
        from asjax.weights import hub_folder

        return hub_folder.save(self._unchanged(), directory, licence=license)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token=None,
        commit_message: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        license: str | None = None,
    ) -> str:
        """Put the model on the Hugging Face Hub; returns the address (`weights.hub_push.push`)."""
        from asjax.weights import hub_push

        how = dict(private=private, token=token, commit_message=commit_message)
        how |= dict(revision=revision, create_pr=create_pr, licence=license)
        return hub_push.push(self._unchanged(), repo_id, **how)

    def _unchanged(self) -> Path:
        """The folder of this model. AsjaxError: there is none, or it holds another model now."""
        if self.folder is None:
            raise AsjaxError("this tagger was not loaded from a model folder; use asjax.load")
        if model_dir.hash_of(self.folder) != self.record["sha256"]["card.json"]:
            raise AsjaxError(f"{self.folder} holds another model now; load it again")
        return self.folder

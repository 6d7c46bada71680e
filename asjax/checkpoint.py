"""`import asjax.checkpoint`: the short name of `asjax.store.checkpoint`, the same module."""

import sys

from asjax.store import checkpoint

sys.modules[__name__] = checkpoint

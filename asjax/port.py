"""`import asjax.port`: the short name of `asjax.weights.port`, which is the same module."""

import sys

from asjax.weights import port

sys.modules[__name__] = port

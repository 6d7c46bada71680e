"""The counter of FLOPs of asjax, under the name that the benchmarks import."""

from asjax.nn.flops import count

__all__ = ["count"]

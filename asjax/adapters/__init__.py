"""A model folder as an encoder of three benchmarks: HEAR (`hear`), X-ARES (`xares`), MTEB (`mteb`).

All three use `core.Embedder`. No benchmark is imported before its adapter needs it. HEAR and MTEB
need no torch here; an array comes back as the kind that was given.
"""

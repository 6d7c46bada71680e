"""Multi-head attention: all heads at once, head by head (less memory), or by NVIDIA's kernel."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from asjax.config import AsjaxError, unknown
from asjax.nn import graph, placement

BACKENDS = ("auto", "heads", "xla", "cudnn")


def attend(q, k, v, *, bias=None, mask=None, backend: str = "auto"):
    """softmax(q k^T / sqrt(d) + bias) v for q [B, S, N, d], k and v [B, K, N, d].

    Args:
      bias: added to the scores; rank 4, broadcastable to [B, N, S, K].
      mask: bool with a shape as bias; False hides a key.
      backend: "heads" computes one head at a time and stores no scores. "xla" stores the scores of
        all heads, [B, N, S, K]. "cudnn" is the fused kernel of NVIDIA GPUs. It takes bfloat16 and
        float16, a head size of at most 128 that is a multiple of 8, no bias and no mask. "auto" is
        "cudnn" if it can run, else "heads". The softmax is always in float32.

    Raises:
      AsjaxError: unknown backend, or "cudnn" where it cannot run.
    """
    if backend not in BACKENDS:
        raise unknown("attention", backend, BACKENDS)
    if placement.in_graph():
        return graph.attend(q, k, v, bias, mask)
    fused = _fits_cudnn(q, bias, mask) and _has_cudnn()
    if backend == "cudnn" and not fused:
        extras = [name for name, x in (("bias", bias), ("mask", mask)) if x is not None]
        raise AsjaxError(
            "attention 'cudnn' must run on an NVIDIA GPU, in bfloat16 or float16, with heads of at "
            "most 128 numbers that 8 divides, without bias and mask; got "
            f"{', '.join([f'{q.dtype} heads of {q.shape[-1]}', *extras])}; use 'auto'"
        )
    if backend == "auto":
        backend = "cudnn" if fused and placement.platform(q) == "gpu" else "heads"
    if backend == "heads":
        return by_heads(q, k, v, bias, mask)
    return jax.nn.dot_product_attention(q, k, v, bias=bias, mask=mask, implementation=backend)


def _fits_cudnn(q, bias, mask) -> bool:
    """Whether NVIDIA's kernel takes these inputs.

    It wants a bias or mask with all queries and keys written out, and in training with even numbers
    of them (jax, `check_is_flash_attention`). `by_heads` broadcasts both and needs neither.
    """
    fits = q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128
    return fits and bias is None and mask is None


def _has_cudnn() -> bool:
    """Whether this machine has an NVIDIA GPU to compile for."""
    return "cuda" in jax.devices()[0].client.platform_version.lower()


@jax.custom_vjp
def by_heads(q, k, v, bias, mask):
    """`attend` in a loop over the heads, with a hand-written gradient.

    The backward pass recomputes the scores of each head, transposed, so that products read rows
    (Dao et al. 2022, algorithm 4, without its blocks). Stored scores of all heads and layers would
    be most of the memory that a training step writes. On CPU the scores of one head stay in cache:
    191 ms for 1214 tokens of 12 heads with the gradient on one core. Stored scores take 348 ms,
    XLA's own attention three times as long. See benchmarks/README.md for temporaries on a TPU.
    """
    return _forward(q, k, v, bias, mask)[0]


def _forward(q, k, v, bias, mask):
    def head(_, now):
        scores = jnp.einsum("bqd,bkd->bqk", now["q"], now["k"], preferred_element_type=jnp.float32)
        scores = _biased(scores, now)
        top = scores.max(-1, keepdims=True)
        p = jnp.exp(scores - top)
        total = p.sum(-1, keepdims=True)
        out = jnp.einsum("bqk,bkd->bqd", p.astype(v.dtype), now["v"]) / total.astype(v.dtype)
        return None, (out, top + jnp.log(total))

    scaled = (q.astype(jnp.float32) * q.shape[-1] ** -0.5).astype(q.dtype)
    heads = {"q": _split_heads(scaled), "k": _split_heads(k), "v": _split_heads(v)}
    _, (out, lse) = jax.lax.scan(head, None, {**heads, **_per_head(bias, mask, q.shape[2])})
    return _join_heads(out), (heads, out, lse, bias, mask)


def _backward(kept, grad):
    heads, out, lse, bias, mask = kept
    grad = _split_heads(grad)
    mean = jnp.sum(grad.astype(jnp.float32) * out.astype(jnp.float32), -1)

    def head(dbias, now):  # everything [B, K, S]
        q, k, v, grad = now["q"], now["k"], now["v"], now["grad"]
        scores = jnp.einsum("bkd,bqd->bkq", k, q, preferred_element_type=jnp.float32)
        p = jnp.exp(_biased(scores, now) - now["lse"])
        dv = jnp.einsum("bkq,bqd->bkd", p.astype(grad.dtype), grad)
        dp = jnp.einsum("bkd,bqd->bkq", v, grad, preferred_element_type=jnp.float32)
        ds = p * (dp - now["mean"])
        own = None
        if bias is not None:
            own = _bias_gradient(ds.swapaxes(1, 2)[:, None], bias, clips)
            dbias, own = (dbias, own) if bias.shape[1] > 1 else (dbias + own, None)
        ds = ds.astype(q.dtype)
        dk = jnp.einsum("bkq,bqd->bkd", ds, q)
        dq = jnp.einsum("bkq,bkd->bqd", ds, k)
        return dbias, (dq, dk, dv, own)

    rows = {"lse": lse.swapaxes(2, 3), "mean": mean[:, :, None], "grad": grad}
    extras = {name: x.swapaxes(2, 3) for name, x in _per_head(bias, mask, len(out)).items()}
    start, clips = None, 0
    if bias is not None:
        # If the bias has no axis of clips, each device sums over its own clips in the loop. The sum
        # over devices comes after the loop.
        batch = mean.shape[1]
        clips = batch if len(bias) > 1 else placement.splits(batch, grad)
        if bias.shape[1] == 1:
            start = jnp.zeros((clips, *bias.shape[1:]), jnp.float32)
    dbias, (dq, dk, dv, own) = jax.lax.scan(head, start, {**heads, **rows, **extras})
    if bias is not None:
        dbias = dbias if own is None else own[:, :, 0].swapaxes(0, 1)
        dbias = dbias if len(bias) > 1 else dbias.sum(0, keepdims=True)
        dbias = dbias.astype(bias.dtype)
    dq = (_join_heads(dq).astype(jnp.float32) * dq.shape[-1] ** -0.5).astype(dq.dtype)
    return dq, _join_heads(dk), _join_heads(dv), dbias, None


def _biased(scores, now):
    """Scores with the bias and mask of this head, if given."""
    scores = scores + now["bias"] if "bias" in now else scores
    return jnp.where(now["mask"], scores, jnp.finfo(scores.dtype).min) if "mask" in now else scores


def _split_heads(x):
    """[B, S, N, d] -> [N, B, S, d]."""
    return x.transpose(2, 0, 1, 3)


def _join_heads(x):
    return x.transpose(1, 2, 0, 3)


def _per_head(bias, mask, heads: int) -> dict:
    """The given ones of bias and mask, [B, N or 1, S, K], as [N, B, S, K]."""
    given = {name: x for name, x in (("bias", bias), ("mask", mask)) if x is not None}
    whole = {k: jnp.broadcast_to(x, (x.shape[0], heads, *x.shape[2:])) for k, x in given.items()}
    return {k: x.swapaxes(0, 1) for k, x in whole.items()}


def _bias_gradient(ds, bias, clips: int):
    """ds [B, 1, S, K] -> [clips, 1, S, K], summed over the other axes with broadcast bias."""
    ds = ds.reshape(clips, -1, *ds.shape[1:]).sum(1)
    axes = tuple(i for i in (2, 3) if bias.shape[i] == 1)
    return ds.sum(axes, keepdims=True)


by_heads.defvjp(_forward, _backward)

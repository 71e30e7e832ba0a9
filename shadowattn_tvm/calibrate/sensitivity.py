"""How sensitive the loss is to every head's attention output, by one backward pass a window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..errors import WeightsError
from .reference_model import ReferenceModel

_LOSS_BLOCK_TOKENS = 256
"""Tokens whose logits exist at a time: a vocabulary of 50,000 takes 50 MB then."""


@dataclass(frozen=True)
class AttentionTrace:
    """What passed through the attention of one layer over a window, all float32.

    Attributes
    ----------
    q : rotated queries, `[num_q_heads, tokens, head_dim]`.
    k, v : rotated keys, and values, `[num_kv_heads, tokens, head_dim]`.
    output : of dense attention, `[num_q_heads, tokens, head_dim]`.
    gradient : of the window's loss, the sum of its tokens' negative log-likelihoods in nats, by
        `output`; the same shape.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    output: Tensor
    gradient: Tensor


def trace_attention(model: ReferenceModel, token_ids: NDArray[np.int64]) -> list[AttentionTrace]:
    """One `AttentionTrace` a layer, of a window `[tokens]` run densely.

    Only activations get gradients: the first layer's attention output is where they start. Raises
    `WeightsError` when they aren't finite.
    """
    seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        del layer  # they come in order
        output = _causal_attention(q, k, v)
        if not output.requires_grad:
            output.requires_grad_()
        output.retain_grad()
        seen.append((q.detach(), k.detach(), v.detach(), output))
        return output

    hidden = model.prefill(token_ids, chunk_tokens=len(token_ids), attend=attend)
    hidden.backward(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        _loss_gradient(model, hidden.detach(), torch.from_numpy(token_ids))
    )
    traces = []
    for layer, (q, k, v, output) in enumerate(seen):
        gradient = output.grad
        if gradient is None or not bool(torch.isfinite(gradient).all()):
            raise WeightsError(
                f"layer {layer}: expected finite gradients of the loss, got others; the weights "
                "look corrupt"
            )
        traces.append(AttentionTrace(q, k, v, output.detach(), gradient))
    return traces


def _causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Over a whole window; KV heads repeated, so that torch takes its fast kernel both ways."""
    group = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    return functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]


def _loss_gradient(model: ReferenceModel, hidden: Tensor, ids: Tensor) -> Tensor:
    """Gradient of the window's loss by the final hidden states `[tokens, hidden_size]`."""
    hidden.requires_grad_()
    for start in range(0, len(ids) - 1, _LOSS_BLOCK_TOKENS):
        end = min(start + _LOSS_BLOCK_TOKENS, len(ids) - 1)
        logits = model.logits(hidden[start:end])
        loss = functional.cross_entropy(logits, ids[start + 1 : end + 1], reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert hidden.grad is not None, "a window has at least two tokens"
    return hidden.grad

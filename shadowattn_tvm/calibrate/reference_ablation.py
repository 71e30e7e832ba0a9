"""The reference model on many short windows at once, with one head or one layer taken out.

Everything before an ablated layer is the same as without the ablation: hidden states at a layer's
input are computed once and every ablation of that layer starts from them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from .reference_model import AttentionFunction, ReferenceModel

_LOGIT_ROWS = 256
"""Rows of logits in memory at a time: 50 MB for a vocabulary of 49,152."""


class ShortWindows:
    """Windows of one length, run side by side in plain causal attention without a cache.

    Parameters
    ----------
    model : the weights.
    token_ids : `[windows, tokens]` int64, at least two tokens.
    """

    def __init__(self, model: ReferenceModel, token_ids: Tensor) -> None:
        self._model = model
        self._shape = token_ids.shape
        self._ids = token_ids
        self._positions = torch.arange(token_ids.shape[1]).repeat(token_ids.shape[0])

    def embedded(self) -> Tensor:
        """Hidden states at the first layer's input, `[windows * tokens, hidden_size]`."""
        return self._model.embed(self._ids.flatten())

    def run(self, x: Tensor, layers: Iterable[int], removed_head: int | None = None) -> Tensor:
        """Hidden states after `layers` in turn, of `x` before the first of them.

        `removed_head` of the first layer contributes nothing: its output is zero where the output
        projection reads it.
        """
        removed = removed_head
        for layer in layers:
            x = self._model.run_layer(layer, x, self._positions, self._attention(removed))
            removed = None
        return x

    def loss_sum(self, x: Tensor) -> float:
        """The sum over windows and tokens but the last of -ln p(next token), in nats, of hidden
        states `x` after the last layer."""
        windows, tokens = self._shape
        hidden = x.view(windows, tokens, -1)[:, :-1].flatten(0, 1)
        targets = self._ids[:, 1:].flatten()
        total = 0.0
        for start in range(0, len(hidden), _LOGIT_ROWS):
            rows = slice(start, start + _LOGIT_ROWS)
            logits = self._model.logits(self._model.final_norm(hidden[rows]))
            total += float(functional.cross_entropy(logits, targets[rows], reduction="sum"))
        return total

    @property
    def num_windows(self) -> int:
        return int(self._shape[0])

    @property
    def num_predictions(self) -> int:
        """Terms of `loss_sum`."""
        return int(self._shape[0] * (self._shape[1] - 1))

    def _attention(self, removed_head: int | None) -> AttentionFunction:
        """Causal attention inside each window; see `AttentionFunction` for shapes."""

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            del layer
            q, k, v = (
                x.view(x.shape[0], *self._shape, x.shape[2]).transpose(0, 1) for x in (q, k, v)
            )
            output = functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, enable_gqa=True
            )
            if removed_head is not None:
                output[:, removed_head] = 0.0
            return output.transpose(0, 1).flatten(1, 2)

        return attend

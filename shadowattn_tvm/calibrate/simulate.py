"""ShadowAttention in torch: what a plan's kernels do to the model, without compiling them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tir_kernels.spec import ShadowSpec, keep_count

from .pilot_chunk import PilotChunk
from .reference_model import dense_attention
from .rest import rest_means


class ShadowAttention:
    """An `AttentionFunction` that selects what a plan selects, then attends exactly.

    The index sets are the kernels' own, to the bit, where q and k are; the softmax is torch's.

    Parameters
    ----------
    spec : the plan's parameters.
    """

    def __init__(self, spec: ShadowSpec) -> None:
        self._spec = spec

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `AttentionFunction`."""
        num_rows, num_keys = q.shape[1], k.shape[1]
        past = num_keys - num_rows
        keep = [
            keep_count(past, h.keep_ratio_q16, self._spec.k_min) for h in self._spec.heads[layer]
        ]
        if past == 0 or num_rows == 1 or min(keep) == past:  # a single token takes the decode path
            return dense_attention(layer, q, k, v)
        group = self._spec.attention.group_size
        visible = torch.ones(len(q), num_rows, num_keys, dtype=torch.bool)
        visible[:, :, past:] = torch.ones(num_rows, num_rows, dtype=torch.bool).tril()
        visible[:, :, :past] = self.selected(layer, q, k[:, :past], keep)
        bias = torch.zeros_like(visible, dtype=torch.float32).masked_fill_(~visible, -torch.inf)
        means = rest_means(self._spec, k[:, :past], v[:, :past])
        if means is not None:
            k, v = (torch.cat(rows, 1) for rows in zip((k, v), means, strict=True))
            left_out = past - torch.tensor(keep, dtype=torch.float32)[:, None, None]
            bias = torch.cat([bias, left_out.log().expand(-1, num_rows, 1)], dim=2)
        return torch.nn.functional.scaled_dot_product_attention(
            q[None],
            k.repeat_interleave(group, 0)[None],
            v.repeat_interleave(group, 0)[None],
            attn_mask=bias,
            scale=self._spec.attention.sm_scale,
        )[0]

    def selected(self, layer: int, q: Tensor, k_past: Tensor, keep: list[int]) -> Tensor:
        """Which past keys each row keeps: `[num_q_heads, m, n]` bool."""
        pilot = self._spec.pilot
        group = self._spec.attention.group_size if pilot.share_group else 1
        rows = torch.arange(q.shape[1])
        scores = PilotChunk(self._spec, layer, q, k_past).list_scores(rows)
        masks = [largest(scores[head // group], k) for head, k in enumerate(keep)]
        return torch.stack(masks)[:, rows // pilot.query_block]


def largest(scores: Tensor, k: int) -> Tensor:
    """The k largest of each row of `scores` `[lists, n]` int32, ties to the lower index, as a mask
    of the same shape."""
    num_keys = scores.shape[1]
    if k >= num_keys:
        return torch.ones_like(scores, dtype=torch.bool)
    if k == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    values: NDArray[np.int32] = scores.numpy()
    threshold = np.partition(values, num_keys - k, axis=1)[:, num_keys - k, None]
    above, equal = values > threshold, values == threshold
    wanted = k - above.sum(1, keepdims=True)
    ties = equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= wanted)
    return torch.from_numpy(above | ties)

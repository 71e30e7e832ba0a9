"""What a head loses at every keep ratio: the change of its output, weighed by the loss's gradient.

With o the dense output of a row, o_k its output when it keeps the first k keys of its list, and
g = dL/do, the cost of the row is ((o_k - o) . g)^2: the square of the first-order change of the
loss. Averaged over rows, this is the quadratic form of the empirical Fisher information of the
head's output, taken in the direction in which sparsity moves it.

The projection on g makes scalars of vectors. With p_j = exp(score_j) and s_j = v_j . g,
o_k . g = (A + sum_{j<k} p_j s_j) / (Z + sum_{j<k} p_j), where A and Z come from the keys of the
chunk, which are always kept. One sort and two running sums give every k at once. Where the rest of
the past counts by its mean, (n - k) p' is added to the denominator and (n - k) p' s' to the
numerator, with p' and s' of the mean key and value.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tir_kernels.spec import ShadowSpec, keep_count

from .pilot_chunk import PilotChunk, descending_order
from .rest import rest_means
from .sensitivity import AttentionTrace


def layer_costs(
    spec: ShadowSpec,
    layer: int,
    trace: AttentionTrace,
    *,
    grid_q16: Sequence[int],
    chunk_tokens: int,
    row_stride: int,
    query_strides: Sequence[int] = (1,),
) -> Tensor:
    """Mean cost of each head at each keep ratio, over rows sampled from one window.

    Parameters
    ----------
    spec : the pilot, the sharing and k_min; its keep ratios and strides are not used.
    grid_q16 : keep ratios in units of 1/65536.
    chunk_tokens : tokens prefilled together; chunks without a past have no cost.
    row_stride : one list of this many is looked at.
    query_strides : who votes on lists; other than 1 just with shared lists.

    Returns `[len(query_strides), num_q_heads, len(grid_q16)]` float64, squared nats.
    """
    num_tokens = trace.q.shape[1]
    total = torch.zeros(len(query_strides), trace.q.shape[0], len(grid_q16), dtype=torch.float64)
    num_rows = 0
    for index, start in enumerate(range(chunk_tokens, num_tokens, chunk_tokens)):
        end = min(start + chunk_tokens, num_tokens)
        rows = sample_rows(end - start, spec.pilot.query_block, row_stride, index + layer)
        keep = [keep_count(start, ratio, spec.k_min) for ratio in grid_q16]
        costs = _chunk_costs(spec, layer, trace, start, end, rows, keep, query_strides)
        total += costs.sum(2)
        num_rows += len(rows)
    return total / num_rows


def sample_rows(num_rows: int, block: int, stride: int, offset: int) -> Tensor:
    """Rows of every `stride`-th block of `block` rows, the first of them turning with `offset`;
    `[R]` int64, never empty."""
    num_blocks = -(-num_rows // block)
    stride = min(stride, num_blocks)
    rows = torch.arange(num_rows)
    return rows[(rows // block) % stride == offset % stride]


def _chunk_costs(
    spec: ShadowSpec,
    layer: int,
    trace: AttentionTrace,
    start: int,
    end: int,
    rows: Tensor,
    keep: Sequence[int],
    query_strides: Sequence[int],
) -> Tensor:
    """`[len(query_strides), num_q_heads, R, len(keep)]` float64: the cost of each row at each
    number of keys kept."""
    group = spec.attention.group_size
    pilot = PilotChunk(spec, layer, trace.q[:, start:end], trace.k[:, :start])
    orders = list_orders(spec, pilot, rows, query_strides)  # [list heads, lists, start] each
    means = rest_means(spec, trace.k[:, :start], trace.v[:, :start])
    left_out = torch.tensor([start - count for count in keep], dtype=torch.float64)
    list_of_row = torch.unique_consecutive(rows // spec.pilot.query_block, return_inverse=True)[1]
    costs = []
    for head in range(spec.attention.num_q_heads):
        q, g = trace.q[head, start + rows], trace.gradient[head, start + rows]
        k, v = trace.k[head // group, :end], trace.v[head // group, :end]
        logits = (q @ k.T) * spec.attention.sm_scale
        future = torch.arange(start, end)[None] > start + rows[:, None]
        logits[:, start:].masked_fill_(future, -torch.inf)
        largest = logits.amax(1, keepdim=True)
        p = (logits - largest).exp()
        ps = p * (g @ v.T)
        rest_p, rest_ps = torch.zeros(2, len(rows), len(keep), dtype=torch.float64)
        if means is not None:
            mean_k, mean_v = (x[head // group] for x in means)
            logit = (q @ mean_k.T) * spec.attention.sm_scale
            rest_p = (logit - largest).exp().double() * left_out
            rest_ps = rest_p * (g @ mean_v.T)
        list_head = head // group if spec.pilot.share_group else head
        exact = (trace.output[head, start + rows] * g).sum(1).double()
        of_head = []
        for order in orders:
            ranks = order[list_head][list_of_row]
            sum_ps = _running_sum(ps, ranks, start, keep) + rest_ps
            sum_p = _running_sum(p, ranks, start, keep) + rest_p
            of_head.append((sum_ps / sum_p - exact[:, None]).square())
        costs.append(torch.stack(of_head))
    return torch.stack(costs, dim=1)


def list_orders(
    spec: ShadowSpec, pilot: PilotChunk, rows: Tensor, query_strides: Sequence[int]
) -> list[Tensor]:
    """The order in which lists take keys, by who votes: `[list heads, lists, n]` int64 each."""
    if not spec.pilot.pooled:
        return [descending_order(pilot.list_scores(rows))]
    votes = pilot.votes(rows)
    return [
        descending_order(pilot.pooled(votes, rows, [stride] * len(votes)))
        for stride in query_strides
    ]


def _running_sum(x: Tensor, ranks: Tensor, start: int, keep: Sequence[int]) -> Tensor:
    """Sums of `x` `[R, end]` over the chunk's own keys (from `start` on) and over the first k of
    the past in the order `ranks` `[R, start]`, for each k: `[R, len(keep)]` float64."""
    own = x[:, start:].sum(1, dtype=torch.float64)
    past = torch.gather(x[:, :start], 1, ranks).cumsum(1, dtype=torch.float64)
    past = torch.cat([torch.zeros(len(x), 1, dtype=torch.float64), past], dim=1)
    return own[:, None] + past[:, list(keep)]

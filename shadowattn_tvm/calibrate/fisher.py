"""The Fisher allocation: spend the budget where the loss feels it least.

For every head the cost of each keep ratio is measured (`error_curves`), averaged over the windows
and handed to `envelope.spend`, which takes the pairs that lower the total cost most, first.
"""

from __future__ import annotations

import numpy as np
import torch

from tir_kernels.constants import RATIO_ONE

from .allocation import Doubles, Ratios, sparse_pairs
from .build_plan import MethodContext
from .envelope import spend
from .error_curves import layer_costs
from .sensitivity import trace_attention

STAGE = "fisher"

_GRID = (
    *(0.0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2),
    *(0.25, 0.3, 0.37, 0.45, 0.55, 0.65, 0.8, 1.0),
)
"""Keep ratios at which costs are measured, denser where they fall fast."""

GRID_Q16 = tuple(round(ratio * RATIO_ONE) for ratio in _GRID)

_ROW_STRIDE = 4
"""A quarter of the lists: neighbouring queries tell much the same."""


def fisher_ratios(context: MethodContext) -> Ratios:
    """The `Method` of `--method fisher`."""
    return allocate(mean_costs(context)[0], context)  # as if all queries voted


def mean_costs(context: MethodContext) -> Doubles:
    """`[strides, layers, query heads, grid]`: the mean cost of a row, over all windows, squared
    nats, by who votes (`settings.measured_strides`)."""
    windows = context.subject.windows
    total: Doubles = np.zeros(())
    for index, window in enumerate(windows):
        result = context.partial.get(STAGE, index)
        if result is None:
            traces = trace_attention(context.subject.model, window.token_ids)
            with torch.inference_mode():
                costs = [
                    layer_costs(
                        context.spec,
                        layer,
                        trace,
                        grid_q16=GRID_Q16,
                        chunk_tokens=context.subject.prefill_chunk_tokens,
                        row_stride=_ROW_STRIDE,
                        query_strides=context.settings.measured_strides,
                    )
                    for layer, trace in enumerate(traces)
                ]
            result = {"costs": torch.stack(costs, dim=1).numpy()}
            context.partial.put(STAGE, index, result)
        total = total + result["costs"].astype(np.float64)
        context.progress(STAGE, index + 1, len(windows))
    return total / len(windows)


def allocate(costs: Doubles, context: MethodContext) -> Ratios:
    """Keep ratios of least total cost for `costs` `[layers, query heads, grid]`."""
    num_layers, num_heads, num_points = costs.shape
    budget, settings = context.budget, context.settings
    group = context.spec.attention.group_size if settings.sharing.gqa_group else 1
    sparse = [layer for layer in range(num_layers) if layer not in settings.dense_layers]
    # Heads that share their lists keep the same number: their costs add.
    unit_costs = costs[sparse].reshape(-1, group, num_points).sum(axis=1)
    pairs = np.array([budget.kept(ratio) for ratio in GRID_Q16], np.int64)
    available = sparse_pairs(settings.ratio, (num_layers, num_heads), settings.dense_layers, budget)
    spent = spend(pairs, unit_costs, available, weight=group)
    ratios = np.array([budget.ratio_for(int(unit)) for unit in spent], np.int64)
    result: Ratios = np.full((num_layers, num_heads), RATIO_ONE, np.int64)
    result[sparse] = np.repeat(ratios, group).reshape(len(sparse), num_heads)
    return result

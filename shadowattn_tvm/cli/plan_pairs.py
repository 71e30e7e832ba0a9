"""The pairs a plan computes in the windows it was calibrated on."""

from __future__ import annotations

from tir_kernels.constants import RATIO_ONE

from ..plan import Plan
from ..plan.ratios import plan_keep_ratios
from ..runtime.pairs import PairCounter, PairCounts


def window_pairs(plan: Plan) -> PairCounts:
    """Counted as the runtime counts, over one window prefilled in the plan's chunks."""
    made = plan.provenance
    ratios = [[round(ratio * RATIO_ONE) for ratio in row] for row in plan_keep_ratios(plan)]
    counter = PairCounter(ratios, plan.k_min)
    pairs = PairCounts()
    for start in range(0, made.window_tokens, made.prefill_chunk_tokens):
        pairs += counter.chunk(start, min(made.prefill_chunk_tokens, made.window_tokens - start))
    return pairs

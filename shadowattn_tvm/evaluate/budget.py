"""What a plan computes of a prefill: exact fractions, counted, not read off the plan."""

from __future__ import annotations

from tir_kernels.spec import ShadowSpec

from ..runtime.pairs import PairCounter, PairCounts
from .document import Count, Fraction, TaskResult


class Budget(TaskResult):
    """The part of a prefill's (query, key) pairs that is computed exactly, over all layers and
    heads, dense layers and `k_min` included.

    Attributes
    ----------
    past_fraction : of the pairs with a key older than the query's chunk.
    total_fraction : of all causal pairs, the dense triangles inside the chunks included.
    context_tokens, prefill_chunk_tokens : the prefill that was counted.
    """

    past_fraction: Fraction
    total_fraction: Fraction
    context_tokens: Count
    prefill_chunk_tokens: Count


def prefill_budget(spec: ShadowSpec, context_tokens: int, prefill_chunk_tokens: int) -> Budget:
    """The budget of `context_tokens` tokens prefilled in chunks."""
    ratios = [[head.keep_ratio_q16 for head in layer] for layer in spec.heads]
    counter = PairCounter(ratios, spec.k_min)
    pairs = PairCounts()
    for start in range(0, context_tokens, prefill_chunk_tokens):
        pairs += counter.chunk(start, min(prefill_chunk_tokens, context_tokens - start))
    return Budget(
        past_fraction=pairs.past_fraction,
        total_fraction=pairs.total_fraction,
        context_tokens=context_tokens,
        prefill_chunk_tokens=prefill_chunk_tokens,
    )

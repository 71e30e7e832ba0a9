"""The budget, counted pair by pair."""

from __future__ import annotations

import pytest

from shadowattn_tvm.evaluate.budget import prefill_budget
from tir_kernels.constants import RATIO_ONE
from tir_kernels.spec import AttentionSpec, HeadParameters, ShadowSpec, keep_count


def test_every_pair_is_counted() -> None:
    ratios = [[RATIO_ONE, RATIO_ONE], [RATIO_ONE // 4, RATIO_ONE // 3]]
    heads = tuple(tuple(HeadParameters(0.1, 0.1, ratio) for ratio in layer) for layer in ratios)
    spec = ShadowSpec(AttentionSpec(2, 1, 16, 0.25), heads, bucket_sigma=0.5, k_min=5)
    kept = past = causal = 0
    for query in range(50):  # chunks of 16, the last one of 2
        older = query // 16 * 16
        for layer in ratios:
            for ratio in layer:
                kept += keep_count(older, ratio, 5)
                past += older
                causal += query + 1
    budget = prefill_budget(spec, 50, 16)
    assert budget.past_fraction == pytest.approx(kept / past)
    assert budget.total_fraction == pytest.approx((kept + causal - past) / causal)
    assert (budget.context_tokens, budget.prefill_chunk_tokens) == (50, 16)

"""The budget of a plan on heads of another shape."""

from __future__ import annotations

import numpy as np
import pytest

from shadowattn_tvm.bench import AttentionGrid, bench_attention
from shadowattn_tvm.bench.inputs import random_inputs
from shadowattn_tvm.bench.other_shape import on_shape
from tests.tir_kernels.shadow.test_lists import PILOTS, SMALL, plan_of
from tests.tir_kernels.shadow_harness import with_strides
from tir_kernels.pilot.requantize import requantizer
from tir_kernels.reference.requantize import requantize
from tir_kernels.spec import AttentionSpec

OTHER = AttentionSpec(num_q_heads=4, num_kv_heads=2, head_dim=32, sm_scale=0.2)
INPUTS = random_inputs(OTHER, 20, 60, seed=0)


@pytest.mark.parametrize("name", ["plain", "rotated", "block-8", "group-block-16"])
def test_ratios_are_dealt_out(name: str) -> None:
    plan = with_strides(plan_of(SMALL, PILOTS[name]))
    spec = on_shape(plan, OTHER, INPUTS)
    assert spec.attention == OTHER
    own = [(head.keep_ratio_q16, head.query_stride) for head in plan.heads[1]]
    got = [(head.keep_ratio_q16, head.query_stride) for head in spec.heads[1]]
    # groups of 3 share in the plan, groups of 2 in the shape
    expected = [own[0], own[0], own[3], own[3]] if plan.pilot.share_group else own[:4]
    assert got == expected


def test_scores_fill_their_range() -> None:
    plan = plan_of(SMALL, PILOTS["block-8"])
    head = on_shape(plan, OTHER, INPUTS).heads[0][3]
    q, k = INPUTS.q[:, 3], INPUTS.k[:, 1]
    assert head.q_scale == pytest.approx(np.abs(q).max() / 127)
    assert head.requant is not None
    scores = np.rint(q / head.q_scale) @ np.rint(k / head.k_scale).T
    small = requantize(scores.astype(np.int32), requantizer(head.requant[1][1]))
    assert 125 <= np.abs(small).max() <= 127
    # a bucket of half the scale has products twice as large
    assert head.requant[0][1] == pytest.approx(head.requant[1][1] * plan.bucket_sigma)


def test_it_runs() -> None:
    spec = on_shape(plan_of(SMALL, PILOTS["block-8"]), OTHER, INPUTS)
    grid = AttentionGrid(
        spec=spec,
        plan="a plan",
        contexts=(60,),
        chunks=(20,),
        workers=(0,),
        rounds=1,
        inputs="random",
        with_baselines=False,
        with_stock=False,
    )
    (rows,) = bench_attention(grid, lambda queries, keys: [INPUTS])
    assert {row.contender for row in rows} == {"cg_full", "torch_sdpa", "shadow"}
    assert all((row.heads, row.kv_heads, row.head_dim) == (4, 2, 32) for row in rows)

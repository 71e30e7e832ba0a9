"""Which graphs a plan takes, and what is in them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tvm

from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.graph import GRAPH_ENTRY, GraphSizes, pilot_graphs, pilot_module
from tests.tir_kernels.shadow.test_lists import SMALL, plan_of
from tests.tir_kernels.shadow_harness import with_strides
from tir_kernels.pilot.pooling import pooling_step
from tir_kernels.pilot.quantize import bucket_scales
from tir_kernels.pilot.requantize import requantizer
from tir_kernels.spec import PilotSpec

SIZES = GraphSizes(units=(1, 2, 4), queries=128, keys=(512, 1024, 2048))
BLOCKS = PilotSpec(score_bits=9, query_block=8)


def test_a_graph_for_every_bucket_pair_unit_count_and_size() -> None:
    graphs = pilot_graphs(plan_of(SMALL, BLOCKS), SIZES, context_tokens=2000, chunk_tokens=512)
    assert len(graphs) == len({g.symbol for g in graphs}) == 9 * 3 * 3
    pairs = {(g.q_bucket, g.k_bucket) for g in graphs}
    assert pairs == {(i, j) for i in range(3) for j in range(3)}
    assert {(g.spec.units, g.spec.heads) for g in graphs} == {(1, 1), (2, 1), (4, 1)}
    assert {g.spec.keys for g in graphs} == {512, 1024, 2048}
    assert {g.spec.queries for g in graphs} == {128}


def test_every_stride_has_graphs_of_the_rows_that_vote() -> None:
    plan = with_strides(plan_of(SMALL, replace(BLOCKS, query_block=16)))
    graphs = pilot_graphs(plan, SIZES, context_tokens=512, chunk_tokens=250)
    assert len(graphs) == len({g.symbol for g in graphs}) == 9 * 3 * 3
    assert {(g.spec.query_stride, g.spec.queries, g.spec.list_rows) for g in graphs} == {
        (1, 128, 16),
        (2, 128, 8),
        (4, 64, 4),
    }
    assert {g.spec.lists for g in graphs} == {8, 16}


def test_no_graph_is_larger_than_the_model_asks_for() -> None:
    sizes = replace(SIZES, units=(1, 8))
    graphs = pilot_graphs(plan_of(SMALL, BLOCKS), sizes, context_tokens=513, chunk_tokens=20)
    assert {g.spec.keys for g in graphs} == {512, 1024}
    assert {g.spec.queries for g in graphs} == {24}
    assert {g.spec.units for g in graphs} == {1, 6}
    with pytest.raises(ConfigError, match="context_window_size=2048"):
        pilot_graphs(plan_of(SMALL, BLOCKS), SIZES, context_tokens=2049, chunk_tokens=128)


def test_groups_that_share_lists_have_graphs_for_one_head_besides() -> None:
    plan = plan_of(SMALL, PilotSpec(score_bits=8, share_group=True))
    graphs = pilot_graphs(plan, SIZES, context_tokens=512, chunk_tokens=16)
    assert {(g.spec.units, g.spec.heads) for g in graphs} == {(1, 3), (2, 3), (1, 1)}


def test_int32_scores_take_no_scales_and_no_buckets() -> None:
    graphs = pilot_graphs(plan_of(SMALL, PilotSpec()), SIZES, context_tokens=512, chunk_tokens=16)
    assert [(g.q_bucket, g.scales) for g in graphs] == [(None, ())] * 3
    assert graphs[0].symbol == "shadowattn_pilot_u1x1_m16_n512"


def test_scales_are_the_plans() -> None:
    plan = plan_of(SMALL, BLOCKS)
    graphs = pilot_graphs(plan, SIZES, context_tokens=512, chunk_tokens=16)
    graph = next(g for g in graphs if (g.q_bucket, g.k_bucket) == (2, 0))
    head = plan.heads[1][4]
    assert head.requant is not None
    factor = head.requant[2][0]
    fixed = requantizer(factor)
    scales = (bucket_scales(head.q_scale, 0.6)[2], bucket_scales(head.k_scale, 0.6)[0])
    step = pooling_step(plan.pilot_sm_scale, *scales, factor)
    assert graph.scales[1 * 6 + 4] == (fixed.multiplier, fixed.shift, step)


@pytest.mark.parametrize("pilot", [BLOCKS, PilotSpec(), PilotSpec(score_bits=8)])
def test_modules_are_static_and_well_formed(pilot: PilotSpec) -> None:
    graph = pilot_graphs(plan_of(SMALL, pilot), SIZES, context_tokens=512, chunk_tokens=16)[1]
    module = pilot_module(graph)
    tvm.relax.analysis.well_formed(module)  # raises if it isn't
    main = module[GRAPH_ENTRY]
    shapes = [[int(extent) for extent in p.ty.shape] for p in main.params]
    assert shapes == [[2, 1, 16, 64], [2, 512, 64], [2], [2]]
    result = [2, 2, 512] if pilot.pooled else [2, 1, 16, 512]
    assert [int(extent) for extent in main.ret_ty.shape] == result

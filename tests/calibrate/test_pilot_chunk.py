"""The torch pilot against the NumPy twins: the same integers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shadowattn_tvm.calibrate import PilotChunk, ShadowAttention
from shadowattn_tvm.calibrate.pilot_chunk import descending_order
from tir_kernels.pilot.pooling import pooling_step
from tir_kernels.pilot.quantize import bucket_scales
from tir_kernels.pilot.requantize import requantizer
from tir_kernels.reference.pilot import choose_bucket, hadamard, pilot_scores, quantize
from tir_kernels.reference.pooling import importance
from tir_kernels.reference.requantize import requantize
from tir_kernels.reference.top_k import top_k
from tir_kernels.spec import ShadowSpec, keep_count

from ..tir_kernels.shadow_harness import with_strides
from .specs import NUM_LAYERS, PILOTS, make_spec

NUM_ROWS, NUM_PAST = 27, 75  # the last block of 8 or 16 is a short one

Lists = dict[tuple[int, int], np.ndarray]


def activations(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """q (6, m, D) and k (2, n, D), some heads larger than others so that buckets differ."""
    rng = np.random.default_rng(seed)
    q = rng.standard_normal((6, NUM_ROWS, 16)) * rng.uniform(0.3, 3.0, (6, 1, 1))
    k = rng.standard_normal((2, NUM_PAST, 16)) * rng.uniform(0.3, 3.0, (2, 1, 1))
    k[:, NUM_PAST // 2 :] = k[:, : NUM_PAST - NUM_PAST // 2]  # ties
    return q.astype(np.float32), k.astype(np.float32)


def twin_scores(spec: ShadowSpec, layer: int, q: np.ndarray, k: np.ndarray) -> Lists:
    """`(head, first row of the block)` -> what its list is chosen by, from the NumPy twins."""
    group, pilot = spec.attention.group_size, spec.pilot
    if spec.key_means is not None:
        k = k - np.array(spec.key_means[layer], np.float32)[:, None]
    if pilot.hadamard_rotation:
        q, k = hadamard(q), hadamard(k)
    scores, steps = [], []
    for head, plan in enumerate(spec.heads[layer]):
        axis = (spec.bucket_sigma, spec.buckets_per_axis)
        rows, keys = q[head], k[head // group]
        qb = choose_bucket(rows, plan.q_scale, *axis, pilot.quant_max)
        kb = choose_bucket(keys, plan.k_scale, *axis, pilot.quant_max)
        sq = bucket_scales(plan.q_scale, *axis)[qb]
        sk = bucket_scales(plan.k_scale, *axis)[kb]
        q8 = quantize(rows, np.float32(sq), pilot.quant_max)
        acc = pilot_scores(q8, quantize(keys, np.float32(sk), pilot.quant_max))
        if plan.requant is not None:
            factor = plan.requant[qb][kb]
            acc = requantize(acc, requantizer(factor))
            steps.append(pooling_step(spec.pilot_sm_scale, sq, sk, factor))
        scores.append(acc)
    lists = {}
    for head in range(len(scores)):
        first = head // group * group
        heads = range(first, first + group) if pilot.share_group else [head]
        for start in range(0, NUM_ROWS, pilot.query_block):
            rows = slice(start, start + pilot.query_block, spec.heads[layer][head].query_stride)
            lists[head, start] = (
                importance([scores[h][rows] for h in heads], [steps[h] for h in heads])
                if pilot.pooled
                else scores[head][start]
            )
    return lists


@pytest.mark.parametrize("name", PILOTS)
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("per_axis", [1, 3, 5])
def test_list_scores_are_the_twins_to_the_bit(name: str, centered: bool, per_axis: int) -> None:
    spec = make_spec(PILOTS[name], centered=centered, per_axis=per_axis)
    group = spec.attention.group_size if spec.pilot.share_group else 1
    for layer in range(NUM_LAYERS):
        q, k = activations(layer)
        pilot = PilotChunk(spec, layer, torch.from_numpy(q), torch.from_numpy(k))
        got = pilot.list_scores(torch.arange(NUM_ROWS)).numpy()
        for (head, start), want in twin_scores(spec, layer, q, k).items():
            np.testing.assert_array_equal(got[head // group, start // spec.pilot.query_block], want)
        assert len({*pilot.q_buckets}) == min(per_axis, 3)


@pytest.mark.parametrize("name", ["blocks of 8", "groups in blocks of 16"])
def test_those_who_have_no_vote_have_none(name: str) -> None:
    spec = with_strides(make_spec(PILOTS[name]))
    group = spec.attention.group_size if spec.pilot.share_group else 1
    for layer in range(NUM_LAYERS):
        q, k = activations(layer)
        pilot = PilotChunk(spec, layer, torch.from_numpy(q), torch.from_numpy(k))
        got = pilot.list_scores(torch.arange(NUM_ROWS)).numpy()
        for (head, start), want in twin_scores(spec, layer, q, k).items():
            np.testing.assert_array_equal(got[head // group, start // spec.pilot.query_block], want)


@pytest.mark.parametrize("name", PILOTS)
def test_some_blocks_alone_score_as_all_do(name: str) -> None:
    spec = make_spec(PILOTS[name])
    q, k = map(torch.from_numpy, activations(3))
    pilot = PilotChunk(spec, 0, q, k)
    rows = torch.arange(16, NUM_ROWS)
    block = spec.pilot.query_block
    everything = pilot.list_scores(torch.arange(NUM_ROWS))
    assert torch.equal(pilot.list_scores(rows), everything[:, 16 // block :])


@pytest.mark.parametrize("name", PILOTS)
def test_the_simulation_selects_what_the_twins_select(name: str) -> None:
    spec = make_spec(PILOTS[name])
    q, k = activations(7)
    plan = spec.heads[1]
    keep = [keep_count(NUM_PAST, head.keep_ratio_q16, spec.k_min) for head in plan]
    got = ShadowAttention(spec).selected(1, torch.from_numpy(q), torch.from_numpy(k), keep).numpy()
    everything = np.ones(NUM_PAST, bool)
    for (head, start), scores in twin_scores(spec, 1, q, k).items():
        want = top_k(scores, everything, keep[head])
        for row in range(start, min(start + spec.pilot.query_block, NUM_ROWS)):
            np.testing.assert_array_equal(np.nonzero(got[head, row])[0], want)


def test_equal_scores_are_ordered_by_index() -> None:
    scores = torch.tensor([[3, -5, 3, 7, -5]], dtype=torch.int32)
    assert descending_order(scores).tolist() == [[3, 0, 2, 1, 4]]

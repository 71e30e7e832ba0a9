"""Error curves against the definition: outputs recomputed for every keep ratio, row by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from shadowattn_tvm.calibrate.error_curves import layer_costs, sample_rows
from shadowattn_tvm.calibrate.pilot_chunk import PilotChunk
from shadowattn_tvm.calibrate.sensitivity import AttentionTrace
from shadowattn_tvm.calibrate.simulate import largest
from tir_kernels.constants import RATIO_ONE
from tir_kernels.rest_sample import rest_positions
from tir_kernels.spec import Rest, ShadowSpec, keep_count, query_strides

from .specs import PILOTS, make_spec

NUM_TOKENS, CHUNK_TOKENS = 70, 32  # the last chunk is a short one
GRID = tuple(round(r * RATIO_ONE) for r in (0.0, 0.1, 0.3, 0.7, 1.0))


def random_trace(spec: ShadowSpec) -> AttentionTrace:
    rng = np.random.default_rng(17)
    q, k, v, gradient = (
        torch.from_numpy(rng.standard_normal((heads, NUM_TOKENS, 16)).astype(np.float32))
        for heads in (6, 2, 2, 6)
    )
    keys, values = k.repeat_interleave(3, 0), v.repeat_interleave(3, 0)
    output = torch.nn.functional.scaled_dot_product_attention(
        q, keys, values, is_causal=True, scale=spec.attention.sm_scale
    )
    return AttentionTrace(q, k, v, output, gradient)


def costs_by_definition(spec: ShadowSpec, trace: AttentionTrace) -> np.ndarray:
    """Mean of ((o_k - o) . g)^2 over all rows with a past, in float64, `[heads, ratios]`."""
    pilot = spec.pilot
    group = 3 if pilot.share_group else 1
    total, rows = np.zeros((6, len(GRID))), 0
    for start in range(CHUNK_TOKENS, NUM_TOKENS, CHUNK_TOKENS):
        end = min(start + CHUNK_TOKENS, NUM_TOKENS)
        chunk = PilotChunk(spec, 0, trace.q[:, start:end], trace.k[:, :start])
        scores = chunk.list_scores(torch.arange(end - start))
        rows += end - start
        for head in range(6):
            for at, ratio in enumerate(GRID):
                lists = largest(scores[head // group], keep_count(start, ratio, spec.k_min))
                for i in range(end - start):
                    own = torch.ones(i + 1, dtype=torch.bool)
                    seen = torch.cat([lists[i // pilot.query_block], own])
                    k = trace.k[head // 3, : start + i + 1][seen].double()
                    v = trace.v[head // 3, : start + i + 1][seen].double()
                    if spec.rest == "mean":
                        left_out = start - int(lists[i // pilot.query_block].sum())
                        sampled = list(rest_positions(start))
                        k, v = (
                            torch.cat(
                                [x, old[head // 3, sampled].double().mean(0).expand(left_out, -1)]
                            )
                            for x, old in ((k, trace.k), (v, trace.v))
                        )
                    p = (k @ trace.q[head, start + i].double() * spec.attention.sm_scale).softmax(0)
                    change = p @ v - trace.output[head, start + i].double()
                    total[head, at] += float(change @ trace.gradient[head, start + i].double()) ** 2
    return total / rows


@pytest.mark.parametrize("rest", ["dropped", "mean"])
@pytest.mark.parametrize("name", PILOTS)
def test_costs_equal_their_definition(name: str, rest: Rest) -> None:
    spec = replace(make_spec(PILOTS[name]), rest=rest)
    trace = random_trace(spec)
    strides = query_strides(spec.pilot.query_block)
    costs = layer_costs(
        spec,
        0,
        trace,
        grid_q16=GRID,
        chunk_tokens=CHUNK_TOKENS,
        row_stride=1,
        query_strides=strides,
    ).numpy()
    assert costs.shape == (len(strides), 6, len(GRID))
    for got, stride in zip(costs, strides, strict=True):
        heads = tuple(tuple(replace(h, query_stride=stride) for h in row) for row in spec.heads)
        want = costs_by_definition(replace(spec, heads=heads), trace)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-9)
        assert (got[:, 0] > 1e-3).all()
        assert (got[:, -1] < 1e-9).all()


def test_sampled_rows_are_whole_blocks_and_turn() -> None:
    assert sample_rows(20, 8, 2, 0).tolist() == [*range(8), *range(16, 20)]
    assert sample_rows(20, 8, 2, 1).tolist() == [*range(8, 16)]
    assert sample_rows(20, 1, 8, 3).tolist() == [3, 11, 19]
    assert sample_rows(5, 8, 4, 3).tolist() == [0, 1, 2, 3, 4]  # one block: always there
    for stride in (1, 3, 4):
        seen = torch.cat([sample_rows(50, 8, stride, offset) for offset in range(stride)])
        assert sorted(seen.tolist()) == list(range(50))

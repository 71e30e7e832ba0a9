"""`bench decode-attention` on a small layer: what the rows say, and that wrong results aren't
timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from shadowattn_tvm.bench import AttentionGrid, bench_decode_attention, decode_attention
from shadowattn_tvm.bench.decode_attention import attended_fraction
from shadowattn_tvm.bench.inputs import LayerInputs, random_inputs
from shadowattn_tvm.bench.reference import Expected, WrongResultError
from tests.tir_kernels.decode_harness import K_MIN, MIXED_RATIOS, decode_spec
from tests.tir_kernels.dense_harness import SPECS
from tir_kernels.constants import RATIO_ONE
from tir_kernels.spec import ShadowSpec, keep_count

PLAIN = replace(decode_spec(SPECS[1]), attention=SPECS[1])
"""A plan as a bench gets it: of a cache without a shadow."""


def grid(spec: ShadowSpec = PLAIN) -> AttentionGrid:
    return AttentionGrid(
        spec=spec,
        plan="a plan",
        contexts=(150, 40),
        chunks=(1,),
        workers=(0,),
        rounds=2,
        inputs="random",
    )


def one_layer(num_queries: int, num_keys: int) -> Sequence[LayerInputs]:
    return [random_inputs(PLAIN.attention, num_queries, num_keys, seed=3)]


def test_rows_say_what_was_timed() -> None:
    seen: list[tuple[str, int, int]] = []
    batches = list(bench_decode_attention(grid(), one_layer, progress=lambda *at: seen.append(at)))
    assert [[row.context for row in rows] for rows in batches] == [[150, 150], [40, 40]]
    for rows in batches:
        assert [(row.contender, row.plan) for row in rows] == [
            ("dense_decode", None),
            ("sparse_decode", "a plan"),
        ]
        for row in rows:
            assert row.checked
            assert row.rounds == 2
            assert row.median_ms > 0
            assert (row.heads, row.kv_heads, row.head_dim) == (4, 2, 80)
        assert rows[0].attended_fraction == 1.0
        assert rows[1].attended_fraction == attended_fraction(PLAIN, rows[1].context)
    assert seen[-1] == ("40 tokens", 2, 2)


def test_a_group_with_a_dense_head_counts_as_dense() -> None:
    # 4 heads in groups of 2: the mixed layer has ratios 0, 1/8, 1/2 and 65535/65536, which rounds
    # up to everything.
    assert [head.keep_ratio_q16 for head in PLAIN.heads[1]] == MIXED_RATIOS[:4]
    fifth = keep_count(149, RATIO_ONE // 5, K_MIN) + 1
    mixed = (K_MIN + 1) + (keep_count(149, RATIO_ONE // 8, K_MIN) + 1) + 2 * 150
    expected = (4 * fifth + mixed + 4 * 150) / (12 * 150)
    assert attended_fraction(PLAIN, 150) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["dense", "sparse"])
def test_a_wrong_result_is_not_timed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = decode_attention._DecodeCall.expected

    def wrong(self: decode_attention._DecodeCall, which: str) -> Expected:
        expected = right(self, which)
        return Expected(expected.output + np.float32(which == name))

    monkeypatch.setattr(decode_attention._DecodeCall, "expected", wrong)
    with pytest.raises(WrongResultError, match=f"{name}: its result is off"):
        next(bench_decode_attention(grid(), one_layer))

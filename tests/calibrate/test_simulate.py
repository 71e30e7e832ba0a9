from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from shadowattn_tvm.calibrate import ShadowAttention, dense_attention
from shadowattn_tvm.calibrate.simulate import largest
from tir_kernels.constants import RATIO_ONE
from tir_kernels.rest_sample import rest_positions
from tir_kernels.spec import ShadowSpec, keep_count

from .specs import PILOTS, make_spec

NUM_PAST, NUM_NEW = 40, 20


def random_chunk() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    q = torch.randn(6, NUM_NEW, 16, generator=generator)
    k, v = torch.randn(2, 2, NUM_PAST + NUM_NEW, 16, generator=generator)
    return q, k, v


def with_ratio(spec: ShadowSpec, ratio_q16: int) -> ShadowSpec:
    heads = tuple(tuple(replace(h, keep_ratio_q16=ratio_q16) for h in row) for row in spec.heads)
    return replace(spec, heads=heads)


@pytest.mark.parametrize("name", PILOTS)
def test_rows_attend_to_their_list_and_their_own_chunk(name: str) -> None:
    spec = make_spec(PILOTS[name])
    q, k, v = random_chunk()
    attention = ShadowAttention(spec)
    keep = [keep_count(NUM_PAST, head.keep_ratio_q16, spec.k_min) for head in spec.heads[0]]
    selected = attention.selected(0, q, k[:, :NUM_PAST], keep)
    assert selected.sum(-1).tolist() == [[count] * NUM_NEW for count in keep]
    got = attention(0, q, k, v)
    for head in range(6):
        for row in range(NUM_NEW):
            own = torch.arange(NUM_NEW) <= row
            seen = torch.cat([selected[head, row], own])
            scores = k[head // 3, seen].double() @ q[head, row].double()
            want = (scores * spec.attention.sm_scale).softmax(0) @ v[head // 3, seen].double()
            torch.testing.assert_close(got[head, row].double(), want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PILOTS)
def test_the_rest_counts_by_its_mean(name: str) -> None:
    spec = replace(make_spec(PILOTS[name]), rest="mean")
    q, k, v = random_chunk()
    attention = ShadowAttention(spec)
    keep = [keep_count(NUM_PAST, head.keep_ratio_q16, spec.k_min) for head in spec.heads[0]]
    selected = attention.selected(0, q, k[:, :NUM_PAST], keep)
    got = attention(0, q, k, v)
    sampled = list(rest_positions(NUM_PAST))
    assert sampled == [4, 12, 20, 28, 36]
    for head in range(6):
        keys, values = k[head // 3].double(), v[head // 3].double()
        copies = NUM_PAST - keep[head]
        for row in range(NUM_NEW):
            seen = torch.cat([selected[head, row], torch.arange(NUM_NEW) <= row])
            scores = torch.cat([keys[seen], keys[sampled].mean(0).expand(copies, -1)])
            scores = scores @ q[head, row].double() * spec.attention.sm_scale
            rows = torch.cat([values[seen], values[sampled].mean(0).expand(copies, -1)])
            want = scores.softmax(0) @ rows
            torch.testing.assert_close(got[head, row].double(), want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PILOTS)
def test_keeping_everything_is_dense_attention(name: str) -> None:
    spec = replace(with_ratio(make_spec(PILOTS[name]), RATIO_ONE), rest="mean")
    q, k, v = random_chunk()
    torch.testing.assert_close(ShadowAttention(spec)(1, q, k, v), dense_attention(1, q, k, v))


def test_chunks_without_a_past_and_single_tokens_are_dense() -> None:
    spec = with_ratio(make_spec(PILOTS["per query"]), 0)
    q, k, v = random_chunk()
    for rows, keys in ((NUM_NEW, NUM_NEW), (1, NUM_PAST)):
        chunk = q[:, :rows], k[:, :keys], v[:, :keys]
        torch.testing.assert_close(ShadowAttention(spec)(0, *chunk), dense_attention(0, *chunk))


def test_the_largest_by_hand() -> None:
    scores = torch.tensor([[5, 1, 5, 3], [2, 2, 2, 2]], dtype=torch.int32)
    assert largest(scores, 0).sum() == 0
    assert largest(scores, 1).tolist() == [[True, False, False, False], [True] + [False] * 3]
    assert largest(scores, 3).tolist() == [[True, False, True, True], [True] * 3 + [False]]
    assert largest(scores, 4).all()

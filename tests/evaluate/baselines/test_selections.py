"""The dense and the sparse baselines against their definitions, on ragged shapes, GQA and ties."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.evaluate.attention import AttentionImplementation
from shadowattn_tvm.evaluate.baselines import (
    BlockSparse,
    Full,
    RecencyOnly,
    SparseFloat,
    with_uniform_ratio,
)
from shadowattn_tvm.evaluate.baselines.selective import SelectiveAttention
from tests.evaluate.baselines import definitions
from tests.evaluate.baselines.definitions import CASES, Case
from tir_kernels.constants import EMPTY_LSE
from tir_kernels.spec import HeadParameters, ShadowSpec, keep_count

SELECTIONS = {
    SparseFloat: definitions.float_selection,
    BlockSparse: definitions.block_selection,
    RecencyOnly: definitions.recent_selection,
}


def _named(value: object) -> str | None:
    return value.__name__ if isinstance(value, type) else None


def _expect_past(
    implementation: AttentionImplementation,
    case: Case,
    chosen: Callable[[int, int], list[int]],
) -> None:
    """`chosen(query, head)` are the past keys it should have attended to."""
    q, k, v, _, _ = case.tensors()
    output, lse = implementation.paged(0, q, k, v)
    for i in range(case.queries):
        for head in range(case.q_heads):
            keys = chosen(i, head)
            kv = head // (case.q_heads // case.kv_heads)
            expected = definitions.attend(
                q[i, head], k[keys, kv], v[keys, kv], case.geometry.sm_scale
            )
            np.testing.assert_allclose(output[i, head], expected[0], atol=2e-6)
            np.testing.assert_allclose(lse[i, head], expected[1], atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_full_leaves_nothing_out(case: Case) -> None:
    _expect_past(Full(case.geometry), case, lambda i, head: list(range(case.past)))


@pytest.mark.parametrize("ratio", [0.01, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("baseline", SELECTIONS, ids=_named)
def test_a_sparse_baseline_attends_to_its_selection(
    baseline: type[SelectiveAttention], case: Case, ratio: float
) -> None:
    spec = case.spec(ratio)
    keep = keep_count(case.past, spec.heads[0][0].keep_ratio_q16, spec.k_min)
    q, k, _, _, _ = case.tensors()
    group = case.q_heads // case.kv_heads
    _expect_past(
        baseline(spec),
        case,
        lambda i, head: SELECTIONS[baseline](q[:, head], k[:, head // group], i, keep),
    )


@pytest.mark.parametrize("baseline", SELECTIONS, ids=_named)
def test_heads_and_layers_have_their_own_budgets(baseline: type[SelectiveAttention]) -> None:
    case = Case(queries=3, past=100, q_heads=2, kv_heads=1)
    heads = [HeadParameters(0.03, 0.03, ratio) for ratio in (0, 6554, 32768, 65536)]
    spec = ShadowSpec(case.geometry, (tuple(heads[:2]), tuple(heads[2:])), 0.5, k_min=4)
    q, k, *_ = case.tensors()
    kept = [
        [int((np.abs(_weights(baseline(spec), layer, q, k)[0, head]) > 0).sum()) for head in (0, 1)]
        for layer in (0, 1)
    ]
    assert kept == [[4, 11], [50, 100]]


def _weights(
    implementation: SelectiveAttention, layer: int, q: np.ndarray, k: np.ndarray
) -> np.ndarray:
    """(m, Hq, n) attention weights, read off with one-hot values a slice at a time."""
    n, dims = len(k), k.shape[2]
    columns = []
    for start in range(0, n, dims):
        v = np.zeros_like(k)
        v[start : start + dims, 0] = np.eye(n, dims, -start, dtype=np.float32)[start : start + dims]
        columns.append(implementation.paged(layer, q, k, v)[0])
    return np.concatenate(columns, axis=2)[:, :, :n]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(
    "make", [lambda case: Full(case.geometry), lambda case: SparseFloat(case.spec(0.2))]
)
def test_the_chunk_is_dense_and_causal(
    make: Callable[[Case], AttentionImplementation], case: Case
) -> None:
    q, _, _, k, v = case.tensors()
    output, lse = make(case).ragged(0, q, k, v)
    for i in range(case.queries):
        for head in range(case.q_heads):
            kv = head // (case.q_heads // case.kv_heads)
            expected = definitions.attend(
                q[i, head], k[: i + 1, kv], v[: i + 1, kv], case.geometry.sm_scale
            )
            np.testing.assert_allclose(output[i, head], expected[0], atol=2e-6)
            np.testing.assert_allclose(lse[i, head], expected[1], atol=1e-5)


def test_a_uniform_ratio_replaces_every_heads() -> None:
    case = Case(queries=1, past=100)
    spec = with_uniform_ratio(case.spec(1.0), 0.25)
    assert {head.keep_ratio_q16 for layer in spec.heads for head in layer} == {16384}
    _expect_past(RecencyOnly(spec), case, lambda i, head: list(range(75, 100)))
    with pytest.raises(ConfigError, match=r"between 0 and 1, got 1\.5"):
        with_uniform_ratio(spec, 1.5)


def test_nothing_selected_is_an_empty_part() -> None:
    """What `select` may not be asked for, but the attention below it must survive."""
    case = Case(queries=2, past=3)
    q, k, v, _, _ = case.tensors()

    class Nothing(SelectiveAttention):
        def select(self, layer, head, q, k, keep):  # type: ignore[no-untyped-def]
            return np.zeros((len(q), len(k)), np.bool_)

    output, lse = Nothing(case.spec(0.3)).paged(0, q, k, v)
    assert not output.any()
    assert (lse == EMPTY_LSE).all()

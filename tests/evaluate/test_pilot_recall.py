"""Recall inside a model: the lists are the reference selector's, the figure counts them right."""

from __future__ import annotations

import numpy as np
import pytest

from shadowattn_tvm.compiler.kernel_parameters import shadow_spec
from shadowattn_tvm.evaluate.kernel_lists import KernelLists
from shadowattn_tvm.evaluate.open_model import OpenModel, open_model
from shadowattn_tvm.evaluate.pilot_recall import PilotRecall, evenly_spaced
from shadowattn_tvm.plan import BucketGrid, Pilot, Plan, Sharing
from shadowattn_tvm.weights import ModelDirectory
from tests.plan.tiny_plan import K_MIN
from tir_kernels.reference import shadow_prefill as twin
from tir_kernels.spec import ShadowSpec, keep_count

TOKENS = [int(t) for t in np.random.default_rng(4).integers(0, 256, 120)]


def pooled(plan: Plan) -> Plan:
    """`plan` with INT8 scores and lists shared by GQA groups and blocks of 8."""
    layers = tuple(
        layer.model_copy(
            update={
                "heads": tuple(
                    head.model_copy(update={"requant": ((0.02,),)}) for head in layer.heads
                )
            }
        )
        for layer in plan.layers
    )
    document = plan.model_copy(
        update={
            "layers": layers,
            "buckets": BucketGrid(sigma=0.5, per_axis=1),
            "pilot": Pilot(score_bits=8),
            "sharing": Sharing(gqa_group=True, query_block=8),
        }
    )
    return Plan.model_validate(document.model_dump())


@pytest.fixture(scope="module")
def opened(tiny_directory: ModelDirectory) -> OpenModel:
    return open_model(tiny_directory, context_tokens=256, prefill_chunk_tokens=16)


@pytest.fixture(params=["per row", "pooled"])
def spec(
    request: pytest.FixtureRequest, tiny_directory: ModelDirectory, tiny_plan: Plan
) -> ShadowSpec:
    plan = tiny_plan if request.param == "per row" else pooled(tiny_plan)
    return shadow_spec(plan, tiny_directory.architecture)


def chunks(opened: OpenModel) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Layer, queries and past keys of every chunk of a prefill."""
    seen: list[tuple[int, np.ndarray, np.ndarray]] = []
    opened.observe(lambda layer, q, k, v: seen.append((layer, q.copy(), k.copy())))
    opened.session.reset()
    opened.session.prefill(TOKENS)
    opened.use_kernels()
    return seen


def keeps(spec: ShadowSpec, layer: int, num_keys: int) -> list[int]:
    return [keep_count(num_keys, head.keep_ratio_q16, spec.k_min) for head in spec.heads[layer]]


def test_observing_changes_nothing(opened: OpenModel) -> None:
    opened.use_kernels()
    opened.session.reset()
    expected = opened.session.prefill(TOKENS)
    opened.observe(lambda layer, q, k, v: None)
    opened.session.reset()
    np.testing.assert_array_equal(opened.session.prefill(TOKENS), expected)
    opened.use_kernels()


def test_the_kernels_lists_are_the_reference_selectors(opened: OpenModel, spec: ShadowSpec) -> None:
    kernel = KernelLists(spec)
    seen = chunks(opened)
    assert len(seen) == 3 * 7
    for layer, q, k in seen:
        lists = kernel(layer, q, k)
        expected = twin.select(spec, layer, q, k)
        for head, keep in enumerate(keeps(spec, layer, len(k))):
            np.testing.assert_array_equal(lists[:, head, :keep], np.stack(expected[head]))


def test_the_figure_counts_the_keys_in_common(opened: OpenModel, spec: ShadowSpec) -> None:
    observed = PilotRecall(spec, rows=1000)
    recalls: dict[tuple[int, int], list[float]] = {}
    for layer, q, k in chunks(opened):
        observed.observe(layer, q, k, k)
        lists = twin.select(spec, layer, q, k)
        for head, keep in enumerate(keeps(spec, layer, len(k))):
            if keep == len(k):
                continue
            for rows, importance in exact_rows(spec, head, q, k):
                best = set(np.argsort(-importance, kind="stable")[:keep])
                common = len(best & set(lists[head][rows.start].tolist()))
                recalls.setdefault((layer, head), []).append(common / keep)
    assert sorted(recalls) == [(layer, head) for layer in (1, 2) for head in range(6)]
    assert not observed.num_lists[0].any()  # the dense layer
    for (layer, head), values in recalls.items():
        assert observed.num_lists[layer, head] == len(values)
        assert observed.recall_sum[layer, head] == pytest.approx(sum(values))
    mean = observed.recall_sum.sum() / observed.num_lists.sum()
    assert 0.3 < mean < 1.0  # of random keys a quarter would be found


def exact_rows(
    spec: ShadowSpec, head: int, q: np.ndarray, k: np.ndarray
) -> list[tuple[range, np.ndarray]]:
    """The rows of every list and what exact scores rank its keys by."""
    geometry = spec.attention
    keys = k[:, head // geometry.group_size].astype(np.float64)
    if not spec.pilot.pooled:
        scores = q[:, head].astype(np.float64) @ keys.T
        return [(range(i, i + 1), row) for i, row in enumerate(scores)]
    first = head // geometry.group_size * geometry.group_size
    total = 0.0
    for member in range(first, first + geometry.group_size):
        scores = q[:, member].astype(np.float64) @ keys.T * geometry.sm_scale
        weights = np.exp(scores)
        total = total + weights / weights.sum(axis=1, keepdims=True)
    starts = range(0, len(q), spec.pilot.query_block)
    blocks = [range(s, min(s + spec.pilot.query_block, len(q))) for s in starts]
    return [(block, total[block.start : block.stop].sum(axis=0)) for block in blocks]


def test_within_k_min_nothing_is_looked_at(spec: ShadowSpec) -> None:
    observed = PilotRecall(spec, rows=4)
    q, k = np.ones((5, 6, 16), np.float32), np.ones((K_MIN, 2, 16), np.float32)
    observed.observe(1, q, k, k)
    assert not observed.num_lists.any()


def test_rows_are_evenly_spaced() -> None:
    assert evenly_spaced(16, 4).tolist() == [2, 6, 10, 14]
    assert evenly_spaced(3, 10).tolist() == [0, 1, 2]

"""What a plan means to the kernels: every field arrives."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import tirx

from shadowattn_tvm.compiler.kernel_parameters import shadow_spec
from shadowattn_tvm.errors import PlanError
from shadowattn_tvm.plan import Pilot, Plan, Sharing
from shadowattn_tvm.weights import ModelDirectory
from tests.plan.tiny_plan import shared_lists
from tests.tir_kernels.dense_harness import indptr, paged_batch, run_paged_prefill
from tir_kernels.build import build_kernels
from tir_kernels.constants import RATIO_ONE
from tir_kernels.features import cpu_features
from tir_kernels.pilot.pooling import MAX_POOLED_KEYS
from tir_kernels.shadow.prefill import shadow_paged_prefill
from tir_kernels.spec import PilotSpec


def with_everything(plan: Plan) -> Plan:
    """`plan` with every optional field in use."""
    requant = ((0.001, 0.002, 0.003), (0.004, 0.005, 0.006), (0.007, 0.008, 0.009))
    means = tuple(
        tuple(kv_head + d / 64 for d in range(plan.model.head_dim))
        for kv_head in range(plan.model.num_kv_heads)
    )
    layers = tuple(
        layer.model_copy(
            update={
                "key_means": means,
                "heads": tuple(h.model_copy(update={"requant": requant}) for h in layer.heads),
            }
        )
        for layer in plan.layers
    )
    changed = plan.model_copy(
        update={
            "pilot": Pilot(bits=4, center_keys=True, hadamard_rotation=True, score_bits=8),
            "sharing": Sharing(gqa_group=True, query_block=16),
            "layers": layers,
        }
    )
    return Plan.model_validate_json(changed.model_dump_json())


def test_a_plain_plan(tiny_plan: Plan, tiny_directory: ModelDirectory) -> None:
    spec = shadow_spec(tiny_plan, tiny_directory.architecture)
    assert spec.pilot == PilotSpec()
    assert spec.key_means is None
    assert spec.heads[0][0].keep_ratio_q16 == RATIO_ONE  # a dense layer, whatever its ratios
    assert spec.heads[1][0].keep_ratio_q16 == RATIO_ONE // 4
    assert spec.heads[1][0].requant is None
    assert spec.launches is None


def test_every_field_arrives(tiny_plan: Plan, tiny_directory: ModelDirectory) -> None:
    plan = with_everything(tiny_plan)
    spec = shadow_spec(plan, tiny_directory.architecture)
    assert spec.pilot == PilotSpec(
        bits=4, hadamard_rotation=True, score_bits=8, share_group=True, query_block=16
    )
    assert spec.key_means == tuple(layer.key_means for layer in plan.layers)
    assert spec.heads[1][2].requant == plan.layers[1].heads[2].requant
    assert (spec.bucket_sigma, spec.buckets_per_axis) == (0.5, 3)


@pytest.mark.parametrize(("gqa_group", "expected"), [(True, (1, 0)), (False, (3, 4, 5, 0, 1, 2))])
def test_who_keeps_most_comes_first(
    gqa_group: bool,
    expected: tuple[int, ...],
    tiny_plan: Plan,
    tiny_directory: ModelDirectory,
) -> None:
    plan = with_everything(tiny_plan)
    layers = tuple(
        layer.model_copy(
            update={
                "heads": tuple(
                    head.model_copy(update={"keep_ratio": 0.1 + 0.2 * (h // 3)})
                    for h, head in enumerate(layer.heads)
                )
            }
        )
        for layer in plan.layers
    )
    sharing = Sharing(gqa_group=gqa_group, query_block=16)
    plan = plan.model_copy(update={"layers": layers, "sharing": sharing})
    spec = shadow_spec(plan, tiny_directory.architecture)
    assert spec.launches == (tuple((unit,) for unit in expected),) * spec.num_layers


def test_the_plans_order_reaches_the_kernel_and_changes_no_bit(
    tiny_plan: Plan, tiny_directory: ModelDirectory, host_target: tvm.target.Target
) -> None:
    plan = shared_lists(tiny_plan, Sharing(query_block=8), (0.1, 0.2, 0.3, 0.9, 0.25, 0.5))
    orders = {
        "unplanned": None,
        "planned": ((0, 1, 2, 3, 4, 5), (2, 0, 4, 1, 5, 3), (5, 4, 3, 2, 1, 0)),
    }
    results = {}
    for name, order in orders.items():
        ordered = plan.model_copy(update={"head_order": order})
        spec = shadow_spec(ordered, tiny_directory.architecture)
        kernel = shadow_paged_prefill(spec, cpu_features(host_target))
        expected = order or ((3, 5, 2, 4, 1, 0),) * 3  # who keeps most first
        assert tuple(map(spec.owner_order, range(3))) == expected
        assert stored_orders(kernel) == [unit for layer in expected for unit in layer]
        built = build_kernels({"kernel": kernel}, host_target)["kernel"]
        rng = np.random.default_rng(5)
        q = rng.standard_normal((21, 6, spec.attention.head_dim), np.float32)
        batch = paged_batch(spec.attention, [150], rng)
        results[name] = run_paged_prefill(
            built, spec.attention, q, indptr([21]), batch, causal=False, layer=1
        )
    for planned, unplanned in zip(results["planned"], results["unplanned"], strict=True):
        assert np.isfinite(planned).all()
        np.testing.assert_array_equal(planned, unplanned)


def stored_orders(kernel: tirx.PrimFunc) -> list[int]:
    """What the kernel writes to its table of turns, layer after layer."""
    stored = list[int]()

    def visit(node: tvm.Object) -> None:
        if isinstance(node, tirx.BufferStore) and node.buffer.name.endswith("order"):
            stored.append(int(node.value))

    tirx.stmt_functor.post_order_visit(kernel.body, visit)
    return stored


def test_pooling_bounds_the_context(tiny_plan: Plan, tiny_directory: ModelDirectory) -> None:
    architecture = tiny_directory.architecture.model_copy(
        update={"context_window_size": MAX_POOLED_KEYS + 1}
    )
    shadow_spec(tiny_plan, architecture)
    with pytest.raises(PlanError, match=f"contexts of up to {MAX_POOLED_KEYS}"):
        shadow_spec(with_everything(tiny_plan), architecture)

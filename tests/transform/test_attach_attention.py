"""The attach passes, before and expected: which kernels go where, what the model passes to them."""

from __future__ import annotations

import pytest
import tvm

from shadowattn_tvm.errors import CompileError
from shadowattn_tvm.transform import AttachDenseAttention, AttachShadowAttention
from shadowattn_tvm.transform.attach_dense_attention import KERNEL_NAMES
from shadowattn_tvm.transform.attach_shadow_attention import KERNEL_NAME, require_attachable
from shadowattn_tvm.transform.kv_cache_slots import AttentionCall, Slot, attention_calls
from tests.transform.attention_module import HEAD_DIM, NUM_HEADS, attention_module
from tir_kernels.attention.dense import (
    append,
    dense_paged_decode,
    dense_paged_prefill,
    dense_ragged_prefill,
    merge_states,
)
from tir_kernels.features import GENERIC
from tir_kernels.rotary import split_rotary
from tir_kernels.shadow.prefill import shadow_paged_prefill
from tir_kernels.spec import AttentionSpec, HeadParameters, ShadowSpec

SPEC = AttentionSpec(NUM_HEADS, NUM_HEADS, HEAD_DIM, 0.125)


def shadow_spec(num_layers: int = 2, spec: AttentionSpec = SPEC) -> ShadowSpec:
    head = HeadParameters(q_scale=0.05, k_scale=0.04, keep_ratio_q16=1 << 14)
    return ShadowSpec(spec, ((head,) * spec.num_q_heads,) * num_layers, 0.5, 32)


def expected_dense() -> tvm.IRModule:
    kernels = {
        Slot.APPEND: append(SPEC, GENERIC),
        Slot.RAGGED_PREFILL: dense_ragged_prefill(SPEC, GENERIC),
        Slot.PAGED_PREFILL: dense_paged_prefill(SPEC, GENERIC),
        Slot.DECODE: dense_paged_decode(SPEC, GENERIC),
        Slot.MERGE_STATES: merge_states(SPEC, GENERIC),
        Slot.SPLIT_ROTARY: split_rotary(SPEC, 10000.0, None),
    }
    return attention_module(
        {
            slot: (KERNEL_NAMES[slot], kernel.with_attr("tirx.is_scheduled", True))
            for slot, kernel in kernels.items()
        }
    )


def attach_dense(module: tvm.IRModule) -> tvm.IRModule:
    return AttachDenseAttention(SPEC, GENERIC, 10000.0, None)(module)


def test_dense_attention_takes_six_slots_and_leaves_the_model_alone() -> None:
    after = attach_dense(attention_module({}))
    tvm.ir.assert_structural_equal(after, expected_dense())
    tvm.relax.analysis.well_formed(after)  # raises if not


def test_shadow_attention_takes_the_paged_prefill_slot_and_sends_the_layer_id() -> None:
    before = attach_dense(attention_module({}))
    after = AttachShadowAttention(shadow_spec(), GENERIC)(before)
    kernel = shadow_paged_prefill(shadow_spec(), GENERIC).with_attr("tirx.is_scheduled", True)
    dense = {
        slot: (name, before[name])
        for slot, name in KERNEL_NAMES.items()
        if slot is not Slot.PAGED_PREFILL
    }
    expected = attention_module(
        {**dense, Slot.PAGED_PREFILL: (KERNEL_NAME, kernel)}, layers=((0, 0.125), (1, 1.125))
    )
    tvm.ir.assert_structural_equal(after, expected)
    tvm.relax.analysis.well_formed(after)  # raises if not


def test_every_function_that_attends_is_rewritten() -> None:
    module = attach_dense(attention_module({}))
    module["another_prefill"] = module["prefill"].with_attr("global_symbol", "another_prefill")
    after = AttachShadowAttention(shadow_spec(), GENERIC)(module)
    for name in ("prefill", "another_prefill"):
        assert attention_calls(after[name]) == (AttentionCall(0, 0.125), AttentionCall(1, 1.125))


def test_a_plan_for_another_number_of_layers_is_refused() -> None:
    with pytest.raises(CompileError, match="the plan has 3 layers"):
        require_attachable(attention_module({}), shadow_spec(3))


def test_a_plan_with_another_scale_is_refused() -> None:
    other = AttentionSpec(NUM_HEADS, NUM_HEADS, HEAD_DIM, 0.25)
    with pytest.raises(CompileError, match=r"softmax scale 0\.25"):
        require_attachable(attention_module({}), shadow_spec(spec=other))


def test_a_model_that_does_not_attend_is_refused() -> None:
    with pytest.raises(CompileError, match="no function of the model attends"):
        require_attachable(attention_module({}, layers=()), shadow_spec())

"""Finding and replacing the KV cache's kernels, before and after."""

from __future__ import annotations

import pytest
import tvm

from shadowattn_tvm.errors import CompileError
from shadowattn_tvm.transform.kv_cache_slots import (
    AttentionCall,
    Slot,
    attention_calls,
    find_creation,
    replace_slots,
    slot_function,
)
from tests.transform.attention_module import attention_module, marked_kernel


def test_slots_are_where_the_runtime_expects_them() -> None:
    module = attention_module({})
    for slot in Slot:
        assert slot_function(module, slot).name_hint == f"stock_{slot.name.lower()}"


def test_replacing_changes_those_slots_and_nothing_else() -> None:
    replaced = (Slot.PAGED_PREFILL, Slot.MERGE_STATES, Slot.SPLIT_ROTARY)
    names = {slot: f"ours_{slot.name.lower()}" for slot in replaced}
    kernels = {slot: (name, marked_kernel(slot + 100)) for slot, name in names.items()}
    after = replace_slots(attention_module({}), kernels)
    expected = attention_module({slot: (names[slot], marked_kernel(slot + 100)) for slot in names})
    tvm.ir.assert_structural_equal(after, expected)
    tvm.relax.analysis.well_formed(after)  # raises if not


def test_the_kernels_that_were_there_are_removed() -> None:
    after = replace_slots(attention_module({}), {Slot.DECODE: ("ours", marked_kernel(7))})
    names = {global_var.name_hint for global_var in after.get_global_vars()}
    assert "ours" in names
    assert "stock_decode" not in names
    assert "stock_paged_prefill" in names


def test_attention_calls_are_read_in_order() -> None:
    module = attention_module({}, layers=((0, 0.125), (1, 0.125)))
    assert attention_calls(module["prefill"]) == (AttentionCall(0, 0.125), AttentionCall(1, 0.125))


@pytest.mark.parametrize(
    ("kinds", "name"), [((0, 1), "MLA"), ((3, 0), "sliding-window"), ((9,), "kind 9")]
)
def test_other_attention_is_refused_by_name(kinds: tuple[int, ...], name: str) -> None:
    with pytest.raises(CompileError, match=name):
        find_creation(attention_module({}, kinds=kinds))


def test_a_model_without_a_kv_cache_is_refused() -> None:
    with pytest.raises(CompileError, match="found 0"):
        find_creation(tvm.IRModule({}))


def test_another_argument_count_is_refused() -> None:
    with pytest.raises(CompileError, match="expected 28 arguments"):
        find_creation(attention_module({}, extra_arguments=1))

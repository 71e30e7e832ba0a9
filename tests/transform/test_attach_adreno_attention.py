"""Our kernels for Adreno in the slots: what is attached, where, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tvm
from tvm import relax

from shadowattn_tvm.compiler.targets import resolve_device
from shadowattn_tvm.errors import CompileError
from shadowattn_tvm.transform import AttachAdrenoAttention
from shadowattn_tvm.transform.attach_adreno_attention import adreno_kernels
from shadowattn_tvm.transform.kv_cache_slots import (
    AttentionCall,
    Slot,
    attention_calls,
    slot_name,
)
from tests.transform.attention_module import attention_module
from tests.transform.test_attach_attention import SPEC, shadow_spec
from tir_kernels.build import SYSTEM_LIB_PREFIX
from tir_kernels.pilot.shadow_rows import with_key_shadow
from tir_kernels.spec import AttentionSpec, ShadowSpec

OURS = {
    Slot.RAGGED_PREFILL: "shadowattn_dense_ragged_prefill",
    Slot.PAGED_PREFILL: "shadowattn_dense_paged_prefill",
    Slot.DECODE: "shadowattn_dense_paged_decode",
    Slot.MERGE_STATES: "shadowattn_merge_states",
}
PLAIN_CALLS = (AttentionCall(0, 0.125), AttentionCall(1, 0.125))
CALLS_WITH_LAYERS = (AttentionCall(0, 0.125), AttentionCall(1, 1.125))


def attached(shadow: ShadowSpec | None, prefix: str | None = None) -> tvm.IRModule:
    module = attention_module({})
    if prefix is not None:
        module = module.with_attr(SYSTEM_LIB_PREFIX, prefix)
    target = resolve_device("android:adreno").target
    return AttachAdrenoAttention(SPEC, shadow, target, system_lib=prefix is not None)(module)


def names(module: tvm.IRModule) -> dict[Slot, str]:
    return {slot: slot_name(module, slot) for slot in Slot}


@pytest.mark.parametrize("prefix", [None, "some_model_"])
def test_four_slots_find_functions_of_a_module_that_is_linked(prefix: str | None) -> None:
    after = attached(None, prefix)
    ours = {slot: (prefix or "") + name for slot, name in OURS.items()}
    assert names(after) == names(attention_module({})) | ours
    (library,) = after.attrs["external_mods"]
    assert all(library.implements_function(name) for name in ours.values())
    left = {gv.name_hint for gv in after.get_global_vars()}
    assert not left & {f"stock_{slot.name.lower()}" for slot in OURS}
    assert attention_calls(after["prefill"]) == PLAIN_CALLS
    relax.analysis.well_formed(after)  # raises if not


def test_a_plan_takes_paged_prefill_and_sends_layer_ids() -> None:
    after = attached(shadow_spec())
    assert slot_name(after, Slot.PAGED_PREFILL) == "shadowattn_paged_prefill"
    assert attention_calls(after["prefill"]) == CALLS_WITH_LAYERS
    relax.analysis.well_formed(after)  # raises if not


def test_what_has_no_kernels_is_refused() -> None:
    sparse = with_key_shadow(shadow_spec())
    with pytest.raises(CompileError, match="switch decode to dense"):
        adreno_kernels(sparse.attention, sparse)
    huge = AttentionSpec(num_q_heads=1, num_kv_heads=1, head_dim=1024, sm_scale=0.03)
    with pytest.raises(CompileError, match=r"doesn't fit an Adreno.*local memory"):
        adreno_kernels(huge, None)
    assert len(adreno_kernels(replace(SPEC, dtype="float16"), None)) == len(OURS)

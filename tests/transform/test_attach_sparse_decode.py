"""Attaching sparse decode: which kernels go where, what the model passes to them."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import tvm
from tvm import relax

from shadowattn_tvm.transform import (
    AttachDenseAttention,
    AttachShadowAttention,
    AttachSparseDecode,
)
from shadowattn_tvm.transform.attach_sparse_decode import KERNEL_NAMES, WIDEN_NAME
from shadowattn_tvm.transform.kv_cache_slots import (
    AttentionCall,
    Slot,
    attention_calls,
    find_creation,
    slot_function,
)
from tests.transform.attention_module import HEAD_DIM, NUM_HEADS, attention_module
from tir_kernels.decode.sparse_paged_decode import sparse_paged_decode
from tir_kernels.features import GENERIC
from tir_kernels.pilot.shadow_rows import with_key_shadow
from tir_kernels.shadow.prefill import shadow_paged_prefill
from tir_kernels.spec import AttentionSpec, HeadParameters, ShadowSpec

HEAD = HeadParameters(q_scale=0.05, k_scale=0.04, keep_ratio_q16=1 << 14)
SPEC = with_key_shadow(
    ShadowSpec(
        AttentionSpec(NUM_HEADS, NUM_HEADS, HEAD_DIM, 0.125), ((HEAD,) * NUM_HEADS,) * 2, 0.5, 32
    )
)


@cache
def attached() -> tvm.IRModule:
    module = AttachDenseAttention(SPEC.attention, GENERIC, 10000.0, None)(attention_module({}))
    module = AttachShadowAttention(SPEC, GENERIC)(module)
    return AttachSparseDecode(SPEC, GENERIC)(module)


def test_five_slots_are_taken_and_the_cache_has_more_heads() -> None:
    module = attached()
    relax.analysis.well_formed(module)  # raises if not
    for slot, name in KERNEL_NAMES.items():
        assert slot_function(module, slot).name_hint == name
    tvm.ir.assert_structural_equal(
        module[KERNEL_NAMES[Slot.DECODE]],
        sparse_paged_decode(SPEC, GENERIC).with_attr("global_symbol", KERNEL_NAMES[Slot.DECODE]),
    )
    names = {global_var.name_hint for global_var in module.get_global_vars()}
    assert not [name for name in names if name.startswith("stock_")]
    (binding,) = module[find_creation(module)].body.blocks[0].bindings
    heads = binding.value.args[1 + 3]
    assert int(heads.value) == NUM_HEADS + 1


def test_prefill_takes_keys_from_the_pages() -> None:
    kernel = attached()[slot_function(attached(), Slot.PAGED_PREFILL)]
    taking = shadow_paged_prefill(SPEC, GENERIC, alternate=True)
    tvm.ir.assert_structural_equal(kernel.body, taking.body, map_free_vars=True)
    # As many layers and heads, but the pages keep nothing: quantizing is all there is
    bare = replace(SPEC, attention=replace(SPEC.attention, shadow_rows=0))
    quantizing = shadow_paged_prefill(bare, GENERIC, alternate=True)
    assert _words_transposed(kernel) > _words_transposed(quantizing) == 0


def _words_transposed(kernel: tvm.tirx.PrimFunc) -> int:
    """Elements of the pages that are read as words of four INT8 values."""
    return len(re.findall(r'T.reinterpret\("uint32x4", \w+\[', kernel.script()))


def test_every_projection_is_widened_with_its_layer() -> None:
    module = attached()
    assert attention_calls(module["prefill"]) == (AttentionCall(0, 0.125), AttentionCall(1, 1.125))
    bindings = [b.value for block in module["prefill"].body.blocks for b in block.bindings]
    widened = [
        call
        for call in bindings
        if isinstance(call, relax.Call)
        and isinstance(call.args[0], tvm.ir.GlobalVar)
        and call.args[0].name_hint == WIDEN_NAME
    ]
    assert [int(call.args[1].fields[1].value) for call in widened] == [0, 1]
    for call in widened:
        assert [int(extent) for extent in call.ty.shape] == [
            8,
            NUM_HEADS + 2 * SPEC.attention.stored_heads,
            HEAD_DIM,
        ]

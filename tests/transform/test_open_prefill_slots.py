"""The open slots, before and expected."""

from __future__ import annotations

import tvm
from tvm import relax

from shadowattn_tvm.transform import OPEN_SLOT_FUNCTIONS, OpenPrefillSlots
from shadowattn_tvm.transform.kv_cache_slots import (
    AttentionCall,
    Slot,
    attention_calls,
    slot_function,
)
from tests.transform.attention_module import attention_module


def test_prefill_is_looked_up_and_the_rest_stays() -> None:
    before = attention_module({})
    after = OpenPrefillSlots()(before)
    text = after["create"].script()
    for name in OPEN_SLOT_FUNCTIONS.values():
        assert text.count(f'"{name}"') == 1
    opened = {f"stock_{slot.name.lower()}" for slot in OPEN_SLOT_FUNCTIONS}
    everything = {gv.name_hint for gv in before.get_global_vars()}
    assert {gv.name_hint for gv in after.get_global_vars()} == everything - opened
    assert len(opened & everything) == 2
    assert slot_function(after, Slot.DECODE).name_hint == "stock_decode"
    relax.analysis.well_formed(after)  # raises if not


def test_every_call_sends_its_layer() -> None:
    after: tvm.IRModule = OpenPrefillSlots()(attention_module({}))
    assert attention_calls(after["prefill"]) == (AttentionCall(0, 0.125), AttentionCall(1, 1.125))

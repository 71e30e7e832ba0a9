"""Leave the prefill slots open: their kernels are found by name when the library is loaded."""

from __future__ import annotations

import tvm

from .kv_cache_slots import Slot, open_slots
from .layer_ids import send_layer_ids

OPEN_SLOT_FUNCTIONS = {
    Slot.RAGGED_PREFILL: "shadowattn.open.ragged_prefill",
    Slot.PAGED_PREFILL: "shadowattn.open.paged_prefill",
}
"""Global functions that whoever loads the library provides; the arguments are the slots' own."""


@tvm.transform.module_pass(opt_level=0, name="OpenPrefillSlots")
class OpenPrefillSlots:
    """Swap ragged and paged prefill for packed functions looked up by name, and pass each call's
    layer id to them (see `layer_ids`), so that a compiled model can be run with any attention.

    Precondition: after `AttachDenseAttention` (no remaining kernel reads `sm_scale`).
    """

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        return send_layer_ids(open_slots(module, OPEN_SLOT_FUNCTIONS))

"""Put our dense attention kernels into the KV cache: the lossless baseline, and everything
shadowAttn leaves dense."""

from __future__ import annotations

import tvm

from tir_kernels.attention.dense import (
    append,
    dense_paged_decode,
    dense_paged_prefill,
    dense_ragged_prefill,
    merge_states,
)
from tir_kernels.features import CpuFeatures
from tir_kernels.rotary import Llama3Scaling, split_rotary
from tir_kernels.spec import AttentionSpec

from .kv_cache_slots import Slot, replace_slots

KERNEL_NAMES = {
    Slot.APPEND: "shadowattn_append",
    Slot.RAGGED_PREFILL: "shadowattn_dense_ragged_prefill",
    Slot.PAGED_PREFILL: "shadowattn_dense_paged_prefill",
    Slot.DECODE: "shadowattn_dense_paged_decode",
    Slot.MERGE_STATES: "shadowattn_merge_states",
    Slot.SPLIT_ROTARY: "shadowattn_split_rotary",
}
"""Symbols in the library."""


@tvm.transform.module_pass(opt_level=0, name="AttachDenseAttention")
class AttachDenseAttention:
    """Swap appending, ragged and paged prefill, decode, state merging and rotary embedding; the
    last is left alone where `rope_theta` is None.

    Our kernels take the softmax scale as a constant and ignore the run-time argument, so they go in
    together: a kernel left stock would read the layer id that `AttachShadowAttention` adds to it
    (see `PinSoftmaxScale`).
    """

    def __init__(
        self,
        spec: AttentionSpec,
        features: CpuFeatures,
        rope_theta: float | None,
        rope_scaling: Llama3Scaling | None,
    ) -> None:
        self.spec = spec
        self.features = features
        self.rope_theta = rope_theta
        self.rope_scaling = rope_scaling

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        spec, features = self.spec, self.features
        kernels = {
            Slot.APPEND: append(spec, features),
            Slot.RAGGED_PREFILL: dense_ragged_prefill(spec, features),
            Slot.PAGED_PREFILL: dense_paged_prefill(spec, features),
            Slot.DECODE: dense_paged_decode(spec, features),
            Slot.MERGE_STATES: merge_states(spec, features),
        }
        if self.rope_theta is not None:
            kernels[Slot.SPLIT_ROTARY] = split_rotary(spec, self.rope_theta, self.rope_scaling)
        return replace_slots(
            module,
            {
                slot: (KERNEL_NAMES[slot], kernel.with_attr("tirx.is_scheduled", True))
                for slot, kernel in kernels.items()
            },
        )

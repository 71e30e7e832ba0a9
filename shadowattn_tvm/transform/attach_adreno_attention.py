"""Put our attention kernels for Adreno GPUs into the KV cache, shadowAttn's if there is a plan."""

from __future__ import annotations

import tvm

from tir_kernels.adreno import slots
from tir_kernels.build import SYSTEM_LIB_PREFIX, build_opencl_kernels
from tir_kernels.spec import AttentionSpec, ShadowSpec

from .attach_dense_attention import KERNEL_NAMES as DENSE_NAMES
from .attach_shadow_attention import KERNEL_NAME as SHADOW_NAME
from .attach_shadow_attention import require_attachable
from .kv_cache_slots import Slot, open_slots
from .layer_ids import send_layer_ids

_EXTERNAL_MODULES = "external_mods"
"""The attribute of a Relax module that lists what its library is linked with."""


@tvm.transform.module_pass(opt_level=0, name="AttachAdrenoAttention")
class AttachAdrenoAttention:
    """Swap ragged prefill, paged prefill and decode for kernels that are compiled here, in a module
    of their own that the library imports.

    The rest of a GPU's module is scheduled by rules that count on passes our kernels can't have
    (see `tir_kernels.build`), so the two can't share a context; and apart, the OpenCL in a library
    is what the kernels' own tests run. The slots find the functions by name when the library is
    loaded.

    With a plan, each attention call's layer id is sent along (see `layer_ids`).

    Preconditions: no remaining kernel reads `sm_scale` (see `PinSoftmaxScale`); with a plan,
    `require_attachable`, and `attention` is the plan's.
    """

    def __init__(
        self,
        attention: AttentionSpec,
        shadow: ShadowSpec | None,
        target: tvm.target.Target,
        *,
        system_lib: bool,
    ) -> None:
        self.attention = attention
        self.shadow = shadow
        self.target = target
        self.system_lib = system_lib

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        attributes = dict(module.attrs or {})
        prefix = str(attributes.get(SYSTEM_LIB_PREFIX, ""))
        names = kernel_names(self.shadow)
        kernels = slots(self.attention, self.shadow)
        library = build_opencl_kernels(
            {names[Slot[slot.upper()]]: kernel for slot, kernel in kernels.items()},
            self.target,
            system_lib_prefix=prefix if self.system_lib else None,
        )
        module = open_slots(module, {slot: prefix + name for slot, name in names.items()})
        others = list(attributes.get(_EXTERNAL_MODULES, []))
        module = module.with_attr(_EXTERNAL_MODULES, [*others, library])
        if self.shadow is None:
            return module
        require_attachable(module, self.shadow)
        return send_layer_ids(module)


def kernel_names(shadow: ShadowSpec | None) -> dict[Slot, str]:
    """Symbols in the library, without its prefix."""
    paged_prefill = DENSE_NAMES[Slot.PAGED_PREFILL] if shadow is None else SHADOW_NAME
    return {
        Slot.RAGGED_PREFILL: DENSE_NAMES[Slot.RAGGED_PREFILL],
        Slot.PAGED_PREFILL: paged_prefill,
        Slot.DECODE: DENSE_NAMES[Slot.DECODE],
    }

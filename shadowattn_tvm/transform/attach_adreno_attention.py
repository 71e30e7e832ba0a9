"""Put our attention kernels for Adreno GPUs into the KV cache, shadowAttn's if there is a plan."""

from __future__ import annotations

import tvm
from tvm import tirx

from tir_kernels.adreno import slots
from tir_kernels.build import SYSTEM_LIB_PREFIX, build_opencl_kernels
from tir_kernels.spec import AttentionSpec, ShadowSpec, SpecError

from ..errors import CompileError
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

    With a plan, each attention call's layer id is sent along (see `layer_ids`). Making this pass
    raises like `adreno_kernels`.

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
        self.kernels = adreno_kernels(attention, shadow)
        self.shadow = shadow
        self.target = target
        self.system_lib = system_lib

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        attributes = dict(module.attrs or {})
        prefix = str(attributes.get(SYSTEM_LIB_PREFIX, ""))
        library = build_opencl_kernels(
            dict(self.kernels.values()),
            self.target,
            system_lib_prefix=prefix if self.system_lib else None,
        )
        names = {slot: prefix + name for slot, (name, _) in self.kernels.items()}
        module = open_slots(module, names)
        others = list(attributes.get(_EXTERNAL_MODULES, []))
        module = module.with_attr(_EXTERNAL_MODULES, [*others, library])
        if self.shadow is None:
            return module
        require_attachable(module, self.shadow)
        return send_layer_ids(module)


def adreno_kernels(
    attention: AttentionSpec, shadow: ShadowSpec | None
) -> dict[Slot, tuple[str, tirx.PrimFunc]]:
    """Slot -> symbol in the library, without its prefix, and kernel. Raises `CompileError` for a
    model or a plan that we have no kernels for."""
    if attention.shadow_rows > 0:
        raise CompileError(
            "no kernels for sparse decode on Adreno GPUs: switch decode to dense in the plan"
        )
    names = DENSE_NAMES | ({} if shadow is None else {Slot.PAGED_PREFILL: SHADOW_NAME})
    try:
        kernels = slots(attention, shadow)
    except SpecError as error:
        raise CompileError(f"this model's attention doesn't fit an Adreno: {error}") from None
    by_slot = {Slot[slot.upper()]: kernel for slot, kernel in kernels.items()}
    return {slot: (names[slot], kernel) for slot, kernel in by_slot.items()}

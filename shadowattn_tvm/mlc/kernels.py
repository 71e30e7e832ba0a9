"""Our kernels by the kind of target: which passes put them into a model of MLC's.

A kind of target is added by one more entry of `KERNEL_SETS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import tvm

from tir_kernels.build import DISABLED_PASSES, PASS_CONFIG
from tir_kernels.features import cpu_features
from tir_kernels.spec import ShadowSpec

from ..errors import CompileError
from ..transform import (
    AttachAdrenoAttention,
    AttachDenseAttention,
    AttachShadowAttention,
    AttachSparseDecode,
    DispatchLinear,
    PinSoftmaxScale,
)
from ..transform.polynomial_exponentials import PolynomialExponentials
from ..transform.schedule_fallback import ScheduleFallback
from .geometry import Geometry


@dataclass(frozen=True)
class KernelSet:
    """What is done to a model for one kind of target.

    Attributes
    ----------
    attach : passes to run when the KV cache's creation is lowered. Of its arguments the third has
        the plan's parameters, None for dense attention; the fourth is whether the library will be
        linked into a program rather than loaded.
    known_vocabulary : whether the passes need to know how many tokens there are (see `vocabulary`).
    instead : passes to run in place of MLC's, by MLC's names for those.
    context : the pass context to compile in, made from the one MLC compiles in.
    """

    attach: Callable[
        [tvm.target.Target, Geometry, ShadowSpec | None, bool], list[tvm.transform.Pass]
    ]
    known_vocabulary: bool
    instead: Mapping[str, Callable[[], tvm.transform.Pass]]
    context: Callable[[], AbstractContextManager[object]]


def kernel_set(target: tvm.target.Target, *, dense: bool) -> KernelSet:
    """Our kernels for a target. Where there are none, MLC's own dense attention serves, if that is
    what is wanted; else raises `CompileError`."""
    kind = str(target.kind.name)
    if kind not in KERNEL_SETS:
        if dense:
            return KernelSet(lambda *_: [], False, {}, nullcontext)
        raise CompileError(
            f"no shadowAttn kernels for {kind!r} targets: expected one of "
            f"{', '.join(sorted(KERNEL_SETS))}; compile with --device cpu, or leave --shadow-attn "
            "out"
        )
    return KERNEL_SETS[kind]


def _attach_for_cpu(
    target: tvm.target.Target, geometry: Geometry, shadow: ShadowSpec | None, system_lib: bool
) -> list[tvm.transform.Pass]:
    features = cpu_features(target)
    attention = geometry.attention if shadow is None else shadow.attention
    passes: list[tvm.transform.Pass] = [
        PinSoftmaxScale(attention.sm_scale),
        AttachDenseAttention(attention, features, geometry.rope_theta, geometry.rope_scaling),
    ]
    if shadow is not None:
        passes.append(AttachShadowAttention(shadow, features))
        if attention.shadow_rows > 0:
            passes.append(AttachSparseDecode(shadow, features))
    return [*passes, DispatchLinear(features)]


def _schedule_for_cpu() -> tvm.transform.Pass:
    return tvm.transform.Sequential([PolynomialExponentials(), ScheduleFallback()])


def _cpu_context() -> AbstractContextManager[object]:
    """Ours (see `tir_kernels.build`), on top of MLC's."""
    current = tvm.transform.PassContext.current()
    context: AbstractContextManager[object] = tvm.transform.PassContext(
        opt_level=current.opt_level,
        required_pass=list(current.required_pass),
        disabled_pass=[*current.disabled_pass, *DISABLED_PASSES],
        config={**dict(current.config), **PASS_CONFIG},
    )
    return context


def _attach_for_opencl(
    target: tvm.target.Target, geometry: Geometry, shadow: ShadowSpec | None, system_lib: bool
) -> list[tvm.transform.Pass]:
    attention = geometry.attention if shadow is None else shadow.attention
    return [
        PinSoftmaxScale(attention.sm_scale),
        AttachAdrenoAttention(attention, shadow, target, system_lib=system_lib),
    ]


def _nothing() -> tvm.transform.Pass:
    return tvm.transform.Sequential([])


KERNEL_SETS: Mapping[str, KernelSet] = {
    "llvm": KernelSet(
        _attach_for_cpu, True, {"LowBatchGemvSpecialize": _schedule_for_cpu}, _cpu_context
    ),
    "opencl": KernelSet(
        _attach_for_opencl,
        False,
        # Both take PrimFuncs apart in a way that TVM 0.26 doesn't have any more.
        {"LowBatchGemvSpecialize": _nothing, "LiftTIRGlobalBufferAlloc": _nothing},
        nullcontext,
    ),
}
"""By TVM's name for the kind of target."""

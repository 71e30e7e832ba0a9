"""What orders memory between two tasks of one launch, by vector unit: a flag raised, a flag seen.

TIR has no atomics. A flag is an int32 in a cache line of its own; fences keep what it stands for on
the right side of it, for the compiler and for the CPU. Aligned int32 loads and stores are atomic on
both architectures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.script import tirx as T

from ..features import Isa
from .vector import Expr

FLAG_STRIDE = 16
"""int32 elements from one flag to the next: a cache line of 64 bytes."""

_INNER_SHAREABLE = 11  # operands of aarch64's dmb
_INNER_SHAREABLE_LOADS = 9
_YIELD = 1  # operand of aarch64's hint


@dataclass(frozen=True)
class Handoff:
    """Instructions, as expressions to evaluate.

    Attributes
    ----------
    release : before a flag is raised.
    acquire : after it was seen.
    pause : in the loop that waits for it. It may touch memory as far as the compiler knows, so the
        flag is loaded again every time.
    """

    release: Callable[[], Expr]
    acquire: Callable[[], Expr]
    pause: Callable[[], Expr]


def _intrinsic(name: str, *operands: int) -> Callable[[], Expr]:
    return lambda: T.call_llvm_intrin("void", name, *map(T.int32, operands))


_X86 = Handoff(
    release=_intrinsic("llvm.x86.sse2.mfence"),
    acquire=_intrinsic("llvm.x86.sse2.lfence"),
    pause=_intrinsic("llvm.x86.sse2.pause"),
)
_ARM = Handoff(
    release=_intrinsic("llvm.aarch64.dmb", _INNER_SHAREABLE),
    acquire=_intrinsic("llvm.aarch64.dmb", _INNER_SHAREABLE_LOADS),
    pause=_intrinsic("llvm.aarch64.hint", _YIELD),
)
_HANDOFFS: dict[Isa, Handoff] = {"avx2": _X86, "avx512": _X86, "neon": _ARM}


def handoff(isa: Isa) -> Handoff | None:
    """The instructions of a vector unit; None where we know none."""
    return _HANDOFFS.get(isa)

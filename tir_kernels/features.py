"""What a CPU target can do, as the kernels ask: vector width, registers, INT8 dot products."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from tvm.target import Target
from tvm.target.codegen import llvm_cpu_has_features

Isa = Literal["generic", "avx2", "avx512", "neon"]
Int8Dot = Literal["widening", "pmaddwd", "vnni", "dotprod", "i8mm"]


@dataclass(frozen=True)
class TunedTile:
    """Tile sizes that a search found for one kernel, to replace the hand-chosen ones.

    Attributes
    ----------
    kernel : which, its shape included, as `gemm_name` and `list_attention_name` spell it.
    sizes : (field of the kernel's tile, value).
    """

    kernel: str
    sizes: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class CpuFeatures:
    """A CPU's vector unit, and what a search found out about it.

    Attributes
    ----------
    isa : family of vector instructions.
    lanes : float32 lanes of one vector register.
    vector_registers : architectural vector registers; bounds the register tiles.
    int8_dot : the best INT8 dot product: `widening` is plain multiplies that LLVM vectorizes,
        `pmaddwd` x86's exact int16 pair sums, `vnni` and `dotprod` 4-way accumulating dots, `i8mm`
        8-way ones of two queries and two keys, beside `dotprod`'s.
    tuned : tiles of kernels that were tuned on this very CPU; kernels without one have the
        hand-chosen tile of the vector unit.
    """

    isa: Isa
    lanes: int
    vector_registers: int
    int8_dot: Int8Dot
    tuned: tuple[TunedTile, ...] = ()

    def tuned_sizes(self, kernel: str) -> dict[str, int]:
        """The sizes that replace hand-chosen ones of a kernel; none if it wasn't tuned."""
        return next((dict(tile.sizes) for tile in self.tuned if tile.kernel == kernel), {})


GENERIC = CpuFeatures(isa="generic", lanes=4, vector_registers=16, int8_dot="widening")
AVX2 = CpuFeatures(isa="avx2", lanes=8, vector_registers=16, int8_dot="pmaddwd")
AVX512 = CpuFeatures(isa="avx512", lanes=16, vector_registers=32, int8_dot="pmaddwd")
AVX512_VNNI = CpuFeatures(isa="avx512", lanes=16, vector_registers=32, int8_dot="vnni")
NEON = CpuFeatures(isa="neon", lanes=4, vector_registers=32, int8_dot="widening")
NEON_DOTPROD = CpuFeatures(isa="neon", lanes=4, vector_registers=32, int8_dot="dotprod")
NEON_I8MM = CpuFeatures(isa="neon", lanes=4, vector_registers=32, int8_dot="i8mm")


@cache  # LLVM answers in half a millisecond, and every kernel asks
def cpu_features(target: Target) -> CpuFeatures:
    """The features of an `llvm` target, from its triple, CPU and attributes."""
    triple = str(target.attrs.get("mtriple", ""))
    if triple.startswith(("aarch64", "arm64")):
        if not llvm_cpu_has_features("dotprod", target):
            return NEON
        return NEON_I8MM if llvm_cpu_has_features("i8mm", target) else NEON_DOTPROD
    if not triple.startswith("x86_64"):
        return GENERIC
    if llvm_cpu_has_features(["avx512f", "avx512bw", "avx512vl"], target):
        return AVX512_VNNI if llvm_cpu_has_features("avx512vnni", target) else AVX512
    if llvm_cpu_has_features(["avx2", "fma"], target):
        return AVX2
    return GENERIC

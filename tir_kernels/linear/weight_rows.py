"""How the GEMM's register tile reads the weight: as stored, or unpacked just before use.

All classes offer the same steps: `start_task` allocates what a task needs, `load_tile` prepares one
register tile's rows for one depth block, `at` names weights of that tile, `prefetch` asks for a row
of a later one: a model's weights come from memory, in pieces too short for hardware prefetchers.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from ..constants import QUANT_GROUP, QUANT_PER_WORD
from ..simd.prefetch import prefetch_row
from ..simd.storage import as_float32
from ..simd.vector import Expr
from ..spec import LinearSpec
from .dequantize import dequantize_run


@T.meta_class
class FloatRows:
    """The weight as float32 rows, `w` (outputs, depth): nothing to unpack."""

    def __init__(self, w: Any) -> None:
        self.w = w

    def start_task(self, outputs: int, depth: int) -> None:
        """Nothing to allocate."""

    def load_tile(self, first_output: Expr, first_k: Expr, depth: Expr) -> None:
        """Nothing to prepare."""

    @T.inline
    def prefetch(self, output: Expr, first_k: Expr, depth: int) -> None:
        """Ask for input features `first_k : first_k + depth` of an output."""
        prefetch_row(self.w, output, depth, first_k)

    def at(self, first_output: Expr, first_k: Expr, output: Expr, k: Expr, count: int) -> Expr:
        """`count` weights from input feature `k` of the tile on."""
        where = first_k + k
        return self.w[first_output + output, where if count == 1 else T.ramp(where, 1, count)]


@T.meta_class
class UnpackedRows:
    """`load_tile`, of the classes below, unpacks one register tile's rows to float32 in a buffer of
    the task, small enough for L1; all panels of the token block then use it."""

    def __init__(self) -> None:
        self.tile: Any = None
        self.outputs = 0

    def start_task(self, outputs: int, depth: int) -> None:
        """Allocate the buffer, (outputs, depth) float32."""
        self.outputs = outputs
        self.tile = T.alloc_buffer((outputs, depth), "float32")

    def at(self, first_output: Expr, first_k: Expr, output: Expr, k: Expr, count: int) -> Expr:
        """`count` weights from input feature `k` of the tile on."""
        return self.tile[output, k if count == 1 else T.ramp(k, 1, count)]


@T.meta_class
class HalfRows(UnpackedRows):
    """The weight as float16 rows, `w` (outputs, depth)."""

    def __init__(self, w: Any, lanes: int) -> None:
        super().__init__()
        self.w = w
        self.lanes = lanes

    @T.inline
    def load_tile(self, first_output: Expr, first_k: Expr, depth: Expr) -> None:
        """Convert input features `first_k : first_k + depth` of the tile's outputs."""
        whole = T.bind(depth // self.lanes * self.lanes)
        for output in range(self.outputs):
            for v in range(depth // self.lanes):
                self.tile[output, T.ramp(v * self.lanes, 1, self.lanes)] = as_float32(
                    self.w[first_output + output, T.ramp(first_k + v * self.lanes, 1, self.lanes)]
                )
            for k in range(depth - whole):
                self.tile[output, whole + k] = as_float32(
                    self.w[first_output + output, first_k + whole + k]
                )

    @T.inline
    def prefetch(self, output: Expr, first_k: Expr, depth: int) -> None:
        """Ask for input features `first_k : first_k + depth` of an output."""
        prefetch_row(self.w, output, depth, first_k)


@T.meta_class
class QuantizedRows(UnpackedRows):
    """The weight in 4 bits, `q_weight` (outputs, depth / 8) and `q_scale` (outputs, depth / 32)."""

    def __init__(self, q_weight: Any, q_scale: Any) -> None:
        super().__init__()
        self.q_weight = q_weight
        self.q_scale = q_scale

    @T.inline
    def load_tile(self, first_output: Expr, first_k: Expr, depth: Expr) -> None:
        """Unpack input features `first_k : first_k + depth` of the tile's outputs."""
        for output in range(self.outputs):
            dequantize_run(
                self.q_weight,
                self.q_scale,
                first_output + output,
                first_k // QUANT_GROUP,
                depth // QUANT_GROUP,
                self.tile,
                output,
            )

    @T.inline
    def prefetch(self, output: Expr, first_k: Expr, depth: int) -> None:
        """Ask for input features `first_k : first_k + depth` of an output; scales are few."""
        prefetch_row(self.q_weight, output, depth // QUANT_PER_WORD, first_k // QUANT_PER_WORD)


def plain_rows(spec: LinearSpec, w: Any, lanes: int) -> FloatRows | HalfRows:
    """The rows of a weight that isn't quantized."""
    return FloatRows(w) if spec.dtype == "float32" else HalfRows(w, lanes)

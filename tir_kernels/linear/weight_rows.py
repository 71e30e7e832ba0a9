"""How the GEMM's register tile reads the weight: as stored, or unpacked just before use.

Both classes offer the same three steps: `start_task` allocates what a task needs, `load_tile`
prepares one register tile's rows for one depth block, `at` names weights of that tile.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from ..constants import QUANT_GROUP
from ..simd.vector import Expr
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

    def at(self, first_output: Expr, first_k: Expr, output: Expr, k: Expr, count: int) -> Expr:
        """`count` weights from input feature `k` of the tile on."""
        where = first_k + k
        return self.w[first_output + output, where if count == 1 else T.ramp(where, 1, count)]


@T.meta_class
class QuantizedRows:
    """The weight as q4f32_1, `q_weight` (outputs, depth / 8) and `q_scale` (outputs, depth / 32).

    `load_tile` unpacks one register tile's rows into a buffer of the task, small enough for L1;
    all panels of the token block then use it.
    """

    def __init__(self, q_weight: Any, q_scale: Any) -> None:
        self.q_weight = q_weight
        self.q_scale = q_scale
        self.tile: Any = None
        self.outputs = 0

    def start_task(self, outputs: int, depth: int) -> None:
        """Allocate the buffer, (outputs, depth) float32."""
        self.outputs = outputs
        self.tile = T.alloc_buffer((outputs, depth), "float32")

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

    def at(self, first_output: Expr, first_k: Expr, output: Expr, k: Expr, count: int) -> Expr:
        """`count` weights from input feature `k` of the tile on."""
        return self.tile[output, k if count == 1 else T.ramp(k, 1, count)]

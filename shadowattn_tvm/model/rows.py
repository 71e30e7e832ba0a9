"""Rows of a table by index."""

from __future__ import annotations

from tvm import relax
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor


def take_rows(table: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
    """`table` at `indices` (n,) int32 along `axis`; an index out of range takes the nearest row.

    `nn.op.take` reads whatever lies there instead, and warns about it on every compilation.
    """
    taken = relax.op.take(table._expr, indices._expr, axis, mode="clip")
    result: Tensor = nn.op.wrap_nested(taken, name="take")
    return result

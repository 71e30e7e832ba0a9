"""Vector expressions of OpenCL kernels: `vload4` and `vstore4`, arithmetic in float32."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from .limits import VECTOR

Expr = Any  # a TIR expression; TVM ships no types

LOWEST = -1e30
"""A score below every real one; finite, so that differences of two are no NaN."""


def part(index: Expr) -> Expr:
    """The elements of the `index`-th vector of a row."""
    return T.ramp(index * VECTOR, 1, VECTOR)


def floats(value: Expr) -> Expr:
    """A vector of any type as float32s."""
    return T.Cast(f"float32x{VECTOR}", value)


def splat(value: Expr) -> Expr:
    return T.broadcast(value, VECTOR)


def zeros() -> Expr:
    return splat(T.float32(0))


def barrier() -> Expr:
    """All work-items of a group have come here, and see each other's local memory."""
    return T.tvm_storage_sync("shared")

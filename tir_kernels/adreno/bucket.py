"""A head's bucket on Adreno: the largest of many maxima, and the scale nearest to it."""

from __future__ import annotations

from tvm.script import tirx as T

from ..pilot.quantize import nearest_bucket
from .vector import Expr, barrier

ITEMS = 64
"""Work-items of the group."""


@T.inline
def choose_bucket(
    maxima: T.Buffer,
    first: Expr,
    count: Expr,
    scales: list[Expr],
    quant_max: int,
    buckets: T.Buffer,
    slot: Expr,
    item: Expr,
) -> None:
    """`buckets[slot]` = which of `scales` `maxima[first : first + count]` take; by a group of
    `ITEMS` work-items."""
    largest = T.alloc_buffer((1,), "float32", scope="local")
    shared = T.alloc_buffer((ITEMS,), "float32", scope="shared")
    largest[0] = T.float32(0)
    for step in range(T.ceildiv(count, ITEMS)):
        if step * ITEMS + item < count:
            largest[0] = T.max(largest[0], maxima[first + step * ITEMS + item])
    shared[item] = largest[0]
    barrier()
    for i in range(ITEMS):
        largest[0] = T.max(largest[0], shared[i])
    if item == 0:
        buckets[slot] = nearest_bucket(largest[0], scales, quant_max)

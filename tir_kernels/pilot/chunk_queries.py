"""The new queries of one sequence: measured once, so that each head's scale bucket is known."""

from __future__ import annotations

from tvm.script import tirx as T

from ..features import CpuFeatures
from ..simd.vector import Expr
from ..spec import ShadowSpec
from .pilot_rows import AbsoluteMaximum, PilotRow
from .plan_table import PlanTable
from .quantize import nearest_bucket


@T.meta_class
class ChunkQueries:
    """Made inside the PrimFunc, outside parallel loops.

    Attributes
    ----------
    buckets : (Hq,) int32, which of its scales each query head took.
    """

    def __init__(self, spec: ShadowSpec, features: CpuFeatures) -> None:
        self.spec = spec
        self.lanes = features.lanes
        self.num_heads = spec.attention.num_q_heads
        self.buckets = T.alloc_buffer((self.num_heads,), "int32")

    @T.inline
    def measure(
        self, q_rows: T.Buffer, first_query: Expr, num_queries: Expr, plan: PlanTable
    ) -> None:
        """Choose buckets from q_rows (tokens * Hq, D)."""
        for head in T.parallel(self.num_heads):
            largest = AbsoluteMaximum(
                PilotRow(
                    self.spec.attention.head_dim,
                    self.lanes,
                    centered=False,  # a mean taken from queries would change the order
                    rotated=self.spec.pilot.hadamard_rotation,
                )
            )
            largest.clear()
            for i in range(num_queries):
                largest.include(q_rows, (first_query + i) * self.num_heads + head)
            self.buckets[head] = nearest_bucket(
                largest.value(), plan.q_axis(head), self.spec.pilot.quant_max
            )

"""The plan's constants as code: one layer's scales and ratios, written to small buffers.

TVM 0.26 has no constant arrays in PrimFuncs, and a kernel's parameters are fixed by the runtime's
slot. So the table is a chain of branches on the layer, of constant stores, run once per call (less
than a microsecond). It costs 0.15 s of compile time for 30 layers of 9 query heads and 3 KV heads,
and 3 s for 32 layers of 32 and 32 (one Zen 3 core).
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..constants import RATIO_ONE
from ..simd.vector import Expr
from ..spec import HeadParameters, ShadowSpec
from .pooling import pooling_step
from .quantize import bucket_scales
from .requantize import requantizer


@T.meta_class
class PlanTable:
    """One layer's parameters, made and loaded inside the PrimFunc.

    Attributes
    ----------
    q_scales : (Hq, buckets) float32, each query head's bucket scales, ascending.
    k_scales : (Hkv, buckets) float32, likewise.
    ratios : (Hq,) int32, keep ratios in units of 1 / RATIO_ONE.
    multipliers, shifts, steps : (Hq, buckets * buckets) int32, by query bucket and key bucket: what
        requantizes INT32 scores, and what pooling's exponential takes. One entry unless asked for.
    order : (list owners,) int32: heads, or GQA groups that share lists, in the order of their turn.
    key_means : (Hkv, D) float32; one row unless asked for.
    strides : (Hq,) int32, of the queries that vote; one entry unless any head has another than 1.
    """

    def __init__(self, spec: ShadowSpec) -> None:
        geometry, buckets = spec.attention, spec.buckets_per_axis
        self.spec = spec
        self.buckets = buckets
        self.q_scales = T.alloc_buffer((geometry.num_q_heads, buckets), "float32")
        self.k_scales = T.alloc_buffer((geometry.num_kv_heads, buckets), "float32")
        self.ratios = T.alloc_buffer((geometry.num_q_heads,), "int32")
        pairs = (geometry.num_q_heads, buckets * buckets) if spec.pilot.requantize else (1, 1)
        self.multipliers = T.alloc_buffer(pairs, "int32")
        self.shifts = T.alloc_buffer(pairs, "int32")
        self.steps = T.alloc_buffer(pairs, "int32")
        self.order = T.alloc_buffer((spec.num_list_owners,), "int32")
        means = geometry.num_kv_heads if spec.key_means is not None else 1
        self.key_means = T.alloc_buffer((means, geometry.head_dim), "float32")

        strides = geometry.num_q_heads if spec.samples_queries else 1
        self.strides = T.alloc_buffer((strides,), "int32")

    def query_stride(self, head: Expr) -> Expr:
        """Of the queries of a head's lists every so many-th votes; int32."""
        return self.strides[head] if self.spec.samples_queries else T.int32(1)

    def q_axis(self, head: Expr) -> list[Expr]:
        """The scales of a query head, ascending."""
        return [self.q_scales[head, i] for i in range(self.buckets)]

    def k_axis(self, kv_head: Expr) -> list[Expr]:
        """The scales of a KV head, ascending."""
        return [self.k_scales[kv_head, i] for i in range(self.buckets)]

    def pair(self, q_bucket: Expr, k_bucket: Expr) -> Expr:
        """The column of a bucket pair."""
        return q_bucket * self.buckets + k_bucket

    def load(self, layer: Expr) -> None:
        """Fill the buffers with a layer's parameters; plain Python, run while the kernel is
        parsed."""
        for index in range(self.spec.num_layers):
            with T.If(layer == index), T.Then():
                self._store_layer(index)

    def _store_layer(self, layer: int) -> None:
        heads = self.spec.heads[layer]
        for h, head in enumerate(heads):
            T.buffer_store(self.ratios, T.int32(head.keep_ratio_q16), [h])
            for bucket, scale in enumerate(self._axis(head.q_scale)):
                T.buffer_store(self.q_scales, T.float32(scale), [h, bucket])
            if self.spec.samples_queries:
                T.buffer_store(self.strides, T.int32(head.query_stride), [h])
            if head.requant is not None:
                self._store_pairs(h, head, head.requant)
        for position, owner in enumerate(self.spec.owner_order(layer)):
            T.buffer_store(self.order, T.int32(owner), [position])
        for kv_head, head in enumerate(heads[:: self.spec.attention.group_size]):
            for bucket, scale in enumerate(self._axis(head.k_scale)):
                T.buffer_store(self.k_scales, T.float32(scale), [kv_head, bucket])
        if self.spec.key_means is not None:
            for kv_head, means in enumerate(self.spec.key_means[layer]):
                for d, mean in enumerate(means):
                    T.buffer_store(self.key_means, T.float32(mean), [kv_head, d])

    def _axis(self, center: float) -> tuple[float, ...]:
        return bucket_scales(center, self.spec.bucket_sigma, self.buckets)

    def _store_pairs(
        self, h: int, head: HeadParameters, requant: tuple[tuple[float, ...], ...]
    ) -> None:
        for q_bucket, q_scale in enumerate(self._axis(head.q_scale)):
            for k_bucket, k_scale in enumerate(self._axis(head.k_scale)):
                factor = requant[q_bucket][k_bucket]
                fixed = requantizer(factor)
                step = pooling_step(self.spec.pilot_sm_scale, q_scale, k_scale, factor)
                column = q_bucket * self.buckets + k_bucket
                T.buffer_store(self.multipliers, T.int32(fixed.multiplier), [h, column])
                T.buffer_store(self.shifts, T.int32(fixed.shift), [h, column])
                T.buffer_store(self.steps, T.int32(step), [h, column])

    def keep_count(self, head: Expr, num_past: Expr) -> Expr:
        """`spec.keep_count` of a loaded head; int32."""
        wanted = T.ceildiv(
            T.Cast("int64", num_past) * T.Cast("int64", self.ratios[head]), T.int64(RATIO_ONE)
        )
        return T.min(num_past, T.max(self.spec.k_min, T.Cast("int32", wanted)))

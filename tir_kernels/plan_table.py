"""The plan's constants as code: one layer's scales and ratios, written to small buffers.

TVM 0.26 has no constant arrays in PrimFuncs, and a kernel's parameters are fixed by the runtime's
slot. So the table is a chain of branches on the layer, of constant stores, run once per call (less
than a microsecond). It costs 0.15 s of compile time for 30 layers of 9 query heads and 3 KV heads,
and 3 s for 32 layers of 32 and 32 (one Zen 3 core).
"""

from __future__ import annotations

from tvm.script import tirx as T

from .constants import RATIO_ONE
from .quantize import BUCKETS_PER_AXIS, bucket_scales
from .spec import ShadowSpec
from .vector import Expr


@T.meta_class
class PlanTable:
    """One layer's parameters, made and loaded inside the PrimFunc.

    Attributes
    ----------
    q_scales : (Hq, 3) float32, each query head's bucket scales, ascending.
    k_scales : (Hkv, 3) float32, likewise.
    ratios : (Hq,) int32, keep ratios in units of 1 / RATIO_ONE.
    """

    def __init__(self, spec: ShadowSpec) -> None:
        geometry = spec.attention
        self.spec = spec
        self.q_scales = T.alloc_buffer((geometry.num_q_heads, BUCKETS_PER_AXIS), "float32")
        self.k_scales = T.alloc_buffer((geometry.num_kv_heads, BUCKETS_PER_AXIS), "float32")
        self.ratios = T.alloc_buffer((geometry.num_q_heads,), "int32")

    def load(self, layer: Expr) -> None:
        """Fill the buffers with a layer's parameters; plain Python, run while the kernel is
        parsed."""
        group = self.spec.attention.group_size
        sigma = self.spec.bucket_sigma
        for index, heads in enumerate(self.spec.heads):
            with T.If(layer == index), T.Then():
                for h, head in enumerate(heads):
                    T.buffer_store(self.ratios, T.int32(head.keep_ratio_q16), [h])
                    for bucket, scale in enumerate(bucket_scales(head.q_scale, sigma)):
                        T.buffer_store(self.q_scales, T.float32(scale), [h, bucket])
                for kv_head, head in enumerate(heads[::group]):
                    for bucket, scale in enumerate(bucket_scales(head.k_scale, sigma)):
                        T.buffer_store(self.k_scales, T.float32(scale), [kv_head, bucket])

    def keep_count(self, head: Expr, num_past: Expr) -> Expr:
        """`spec.keep_count` of a loaded head; int32."""
        wanted = T.ceildiv(
            T.Cast("int64", num_past) * T.Cast("int64", self.ratios[head]), T.int64(RATIO_ONE)
        )
        return T.min(num_past, T.max(self.spec.k_min, T.Cast("int32", wanted)))

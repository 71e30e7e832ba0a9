"""The rest of the past, what is on no list, as one key and one value: the mean of a sample of it.

A list's softmax begins with them instead of with nothing: the running maximum is the mean key's
score plus the logarithm of how many keys are left out, the output is the mean value. Where a head
attends to everything a little, this is most of what dropping the rest would lose.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..attention.page_table import KV_PLANES, value_row_offset
from ..features import CpuFeatures
from ..head_rest import HeadRest, rest_of_head
from ..pilot.key_shadow import KeyShadow
from ..rest_sample import RestSample
from ..simd.storage import as_float32
from ..simd.vector import Expr, const_f32, splat
from ..spec import ShadowSpec


@T.meta_class
class RestMean:
    """One sequence's. Made inside the PrimFunc, outside parallel loops; nothing is compiled for it
    where the plan drops the rest.

    Attributes
    ----------
    means : (2 * Hkv, D) float32, mean keys and then mean values; one row where they are dropped.
    """

    def __init__(self, spec: ShadowSpec, features: CpuFeatures, keys: KeyShadow) -> None:
        self.plan = spec
        self.spec = spec.attention
        self.lanes = features.lanes
        self.keys = keys
        rows = KV_PLANES * self.spec.num_kv_heads if spec.rest == "mean" else 1
        self.means = T.alloc_buffer((rows, self.spec.head_dim), "float32")

    def of_head(self, kv_head: Expr, keep: Expr) -> HeadRest | None:
        """What lists of `keep` keys leave out of a KV head; None where it is dropped."""
        return rest_of_head(self.plan, self.means, kv_head, self.keys.num_keys, keep)

    @T.inline
    def measure(self, cache_rows: T.Buffer) -> None:
        """The means of every KV head, of the sequence whose rows `keys` lists."""
        if self.plan.rest == "mean":
            for mean in T.parallel(KV_PLANES * self.spec.num_kv_heads):
                self.average(cache_rows, mean)

    @T.inline
    def average(self, cache_rows: T.Buffer, mean: Expr) -> None:
        """`means[mean]`; zeros without a sample."""
        sample = T.meta_var(RestSample.of(self.keys.num_keys))
        offset = T.bind(
            mean // self.spec.num_kv_heads * value_row_offset(self.spec)
            + mean % self.spec.num_kv_heads * self.spec.page_size
        )
        share = T.bind(T.float32(1) / T.Cast("float32", T.max(sample.count, 1)))
        for v in range(self.spec.head_dim // self.lanes):
            self.means[mean, self.vector(v)] = const_f32(0.0, self.lanes)
        for i in range(sample.count):
            row = T.bind(self.keys.row_table[sample.first + i * sample.stride] + offset)
            for v in T.unroll(self.spec.head_dim // self.lanes):
                self.means[mean, self.vector(v)] = self.means[mean, self.vector(v)] + as_float32(
                    cache_rows[row, self.vector(v)]
                )
        for v in range(self.spec.head_dim // self.lanes):
            self.means[mean, self.vector(v)] = self.means[mean, self.vector(v)] * splat(
                share, self.lanes
            )

    def vector(self, index: Expr) -> Expr:
        """The element indices of the `index`-th vector of a row."""
        return T.ramp(index * self.lanes, 1, self.lanes)

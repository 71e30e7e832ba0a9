"""The rest of the past, what is on no list, as one key and one value: the mean of a sample of it.

A list's softmax begins with them instead of with nothing: the running maximum is the mean key's
score plus the logarithm of how many keys are left out, the output is the mean value. Where a head
attends to everything a little, this is most of what dropping the rest would lose.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script import tirx as T

from ..attention.page_table import value_row_offset
from ..features import CpuFeatures
from ..pilot.key_shadow import KeyShadow
from ..rest_sample import RestSample, left_out
from ..simd.storage import as_float32
from ..simd.vector import Expr, const_f32, splat
from ..spec import ShadowSpec


@dataclass(frozen=True)
class HeadRest:
    """One KV head's rest, for one length of lists.

    Attributes
    ----------
    keys, values : (Hkv, D) float32. kv_head : the row. left_out : keys on no list; 0 = there is no
        rest, and the means are not to be read.
    """

    keys: T.Buffer
    values: T.Buffer
    kv_head: Expr
    left_out: Expr


@T.meta_class
class RestMean:
    """One sequence's. Made inside the PrimFunc, outside parallel loops; nothing is compiled for it
    where the plan drops the rest."""

    def __init__(self, spec: ShadowSpec, features: CpuFeatures, keys: KeyShadow) -> None:
        self.is_counted = spec.rest == "mean"
        self.spec = spec.attention
        self.lanes = features.lanes
        self.keys = keys
        if self.is_counted:
            shape = (self.spec.num_kv_heads, self.spec.head_dim)
            self.mean_keys = T.alloc_buffer(shape, "float32")
            self.mean_values = T.alloc_buffer(shape, "float32")

    def of_head(self, kv_head: Expr, keep: Expr) -> HeadRest | None:
        """What lists of `keep` keys leave out of a KV head; None where it is dropped."""
        if not self.is_counted:
            return None
        times = T.bind(left_out(self.keys.num_keys, keep))
        return HeadRest(self.mean_keys, self.mean_values, kv_head, times)

    @T.inline
    def measure(self, cache_rows: T.Buffer) -> None:
        """The means of every KV head, of the sequence whose rows `keys` lists."""
        if self.is_counted:
            for task in T.parallel(2 * self.spec.num_kv_heads):
                kv_head = T.bind(task // 2)
                if task % 2 == 0:
                    self.average(cache_rows, 0, self.mean_keys, kv_head)
                else:
                    self.average(cache_rows, value_row_offset(self.spec), self.mean_values, kv_head)

    @T.inline
    def average(
        self, cache_rows: T.Buffer, plane_offset: int, means: T.Buffer, kv_head: Expr
    ) -> None:
        """`means[kv_head]`; zeros without a sample."""
        sample = T.meta_var(RestSample.of(self.keys.num_keys))
        share = T.bind(T.float32(1) / T.Cast("float32", T.max(sample.count, 1)))
        for v in range(self.spec.head_dim // self.lanes):
            means[kv_head, self.vector(v)] = const_f32(0.0, self.lanes)
        for i in range(sample.count):
            row = T.bind(
                self.keys.row_table[sample.first + i * sample.stride]
                + kv_head * self.spec.page_size
                + plane_offset
            )
            for v in T.unroll(self.spec.head_dim // self.lanes):
                means[kv_head, self.vector(v)] = means[kv_head, self.vector(v)] + as_float32(
                    cache_rows[row, self.vector(v)]
                )
        for v in range(self.spec.head_dim // self.lanes):
            means[kv_head, self.vector(v)] = means[kv_head, self.vector(v)] * splat(
                share, self.lanes
            )

    def vector(self, index: Expr) -> Expr:
        """The element indices of the `index`-th vector of a row."""
        return T.ramp(index * self.lanes, 1, self.lanes)

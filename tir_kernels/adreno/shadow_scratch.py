"""The shadowAttn prefill's workspaces on Adreno, in global memory, and how large they are.

The host knows shapes only: tokens, sequences, pages in use. What is one number for each key is laid
out by page, since no sequence has more keys than all pages hold.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..attention.page_table import KV_PLANES
from ..constants import INT8_QMAX
from ..pilot.plan_table import PlanTable
from ..spec import ShadowSpec
from .vector import Expr

_QUERIES_AT_ONCE = 16
"""Queries whose scores are held at the same time, if their lists ask for no more: with 32 heads and
8,192 keys they take 16 MiB as int32."""


def queries_at_once(spec: ShadowSpec) -> int:
    """Consecutive queries of a sequence between which scores are not kept; whole lists."""
    return max(_QUERIES_AT_ONCE, spec.pilot.query_block)


def score_bound(spec: ShadowSpec) -> int:
    """The largest magnitude of a score."""
    if spec.pilot.requantize:
        return spec.pilot.score_max
    return INT8_QMAX * INT8_QMAX * spec.attention.head_dim


@T.meta_class
class PilotInputs:
    """What is measured and quantized once a call. Made in the host part of the PrimFunc.

    Attributes
    ----------
    plan : the layer's parameters.
    key_maxima : (Hkv * keys,), key_buckets : (batch * Hkv,), packed_keys : (Hkv * keys, D) int8,
        where keys = pages * page_size. query_maxima : (Hq * tokens,), query_buckets :
        (batch * Hq,), packed_queries : (tokens * Hq, D) int8.
    rest_means : (2 * batch * Hkv, D) float32, mean keys and then mean values; one row where the
        plan drops the rest.
    """

    def __init__(self, spec: ShadowSpec, batch: Expr, tokens: Expr, used_pages: Expr) -> None:
        geometry = spec.attention
        hq, hkv, dims = geometry.num_q_heads, geometry.num_kv_heads, geometry.head_dim
        self.spec = spec
        self.pages = T.bind(T.max(used_pages, 1))
        self.tokens = tokens
        self.keys = T.bind(self.pages * geometry.page_size)
        self.plan = PlanTable(spec)
        self.key_maxima = T.alloc_buffer((hkv * self.keys,), "float32")
        self.key_buckets = T.alloc_buffer((batch * hkv,), "int32")
        self.packed_keys = T.alloc_buffer((hkv * self.keys, dims), "int8")
        self.query_maxima = T.alloc_buffer((hq * tokens,), "float32")
        self.query_buckets = T.alloc_buffer((batch * hq,), "int32")
        self.packed_queries = T.alloc_buffer((tokens * hq, dims), "int8")
        means = KV_PLANES * batch * hkv if spec.rest == "mean" else 1
        self.rest_means = T.alloc_buffer((means, dims), "float32")


class ShadowScratch(PilotInputs):
    """And what the pilot's stand-in takes on the GPU itself.

    Attributes
    ----------
    scores : (Hq * queries, keys), of one pass; int16 if requantized, else int32.
    row_maxima, row_inverses, row_shifts : (Hq * queries,) int32, what pooling a row takes.
    votes : (lists, keys) int32; one row unless pooled. lists : (lists, keys) int32, list
        `owner * blocks + block`.
    """

    def __init__(self, spec: ShadowSpec, batch: Expr, tokens: Expr, used_pages: Expr) -> None:
        super().__init__(spec, batch, tokens, used_pages)
        geometry, pilot = spec.attention, spec.pilot
        self.queries = queries_at_once(spec)
        self.unit = geometry.group_size if pilot.share_group else 1
        self.owners = geometry.num_q_heads // self.unit
        self.blocks = self.queries // pilot.query_block
        rows, keys = geometry.num_q_heads * self.queries, self.keys
        self.scores = T.alloc_buffer((rows, keys), "int16" if pilot.requantize else "int32")
        pooled_rows = rows if pilot.pooled else 1
        self.row_maxima = T.alloc_buffer((pooled_rows,), "int32")
        self.row_inverses = T.alloc_buffer((pooled_rows,), "int32")
        self.row_shifts = T.alloc_buffer((pooled_rows,), "int32")
        self.num_lists = self.owners * self.blocks
        self.votes = T.alloc_buffer((self.num_lists, keys) if pilot.pooled else (1, 1), "int32")
        self.lists = T.alloc_buffer((self.num_lists, keys), "int32")

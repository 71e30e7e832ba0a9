"""The launches that turn a layer's keys and a chunk's queries into INT8, on Adreno.

Contents
- `load_plan`: the layer's parameters into memory.
- `quantize_keys`, `quantize_queries`: measure, choose buckets, quantize; three launches each.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..attention.page_table import key_row, sequence_keys
from .bucket import ITEMS as BUCKET_ITEMS
from .bucket import choose_bucket
from .pilot_rows import ITEMS, ROWS, PilotRows
from .shadow_scratch import PilotInputs
from .vector import Expr, barrier


@T.inline
def load_plan(scratch: PilotInputs, layer: Expr) -> None:
    for _bx in T.thread_binding(1, thread="blockIdx.x"):
        for _tx in T.thread_binding(1, thread="threadIdx.x"):
            scratch.plan.load(layer)


@T.meta_class
class PageOwner:
    """Whose a page of `page_values` is. Made inside a kernel.

    Attributes, after `locate`
    ----------
    sequence : whose the page is. num_keys : what it holds; 0 if it is no one's.
    """

    def __init__(self) -> None:
        self.state = T.alloc_buffer((2,), "int32", scope="local")

    @property
    def sequence(self) -> Expr:
        return self.state[0]

    @property
    def num_keys(self) -> Expr:
        return self.state[1]

    @T.inline
    def locate(
        self, page: Expr, page_indptr: T.Buffer, length_info: T.Buffer, batch: Expr, slots: int
    ) -> None:
        self.state[0] = 0
        self.state[1] = 0
        for b in range(batch):
            if T.And(page_indptr[b] <= page, page < page_indptr[b + 1]):
                self.state[0] = b
                self.state[1] = T.if_then_else(
                    page == page_indptr[b + 1] - 1, length_info[b], slots
                )


@T.inline
def quantize_keys(
    scratch: PilotInputs,
    cache_rows: T.Buffer,
    page_indptr: T.Buffer,
    page_values: T.Buffer,
    length_info: T.Buffer,
    batch: Expr,
    used_pages: Expr,
) -> None:
    """`packed_keys` of all pages in use, and the buckets they took."""
    spec = T.meta_var(scratch.spec)
    geometry = T.meta_var(spec.attention)
    hkv = T.meta_var(geometry.num_kv_heads)
    slots = T.meta_var(geometry.page_size)
    for page in T.thread_binding(used_pages, thread="blockIdx.x"):
        for kv_head in T.thread_binding(hkv, thread="blockIdx.y"):
            for item in T.thread_binding(ITEMS, thread="threadIdx.x"):
                owner = PageOwner()
                owner.locate(page, page_indptr, length_info, batch, slots)
                rows = PilotRows(spec, item)
                rows.load(
                    cache_rows,
                    lambda i: key_row(page_values[page], kv_head, i, geometry),
                    owner.num_keys,
                    scratch.plan.key_means,
                    kv_head,
                    spec.key_means is not None,
                )
                rows.measure(
                    scratch.key_maxima,
                    lambda i: kv_head * scratch.keys + page * slots + i,
                    owner.num_keys,
                )
    for b in T.thread_binding(batch, thread="blockIdx.x"):
        for kv_head in T.thread_binding(hkv, thread="blockIdx.y"):
            for item in T.thread_binding(BUCKET_ITEMS, thread="threadIdx.x"):
                choose_bucket(
                    scratch.key_maxima,
                    kv_head * scratch.keys + page_indptr[b] * slots,
                    sequence_keys(page_indptr[b], page_indptr[b + 1], length_info[b], slots),
                    scratch.plan.k_axis(kv_head),
                    spec.pilot.quant_max,
                    scratch.key_buckets,
                    b * hkv + kv_head,
                    item,
                )
    for page in T.thread_binding(used_pages, thread="blockIdx.x"):
        for kv_head in T.thread_binding(hkv, thread="blockIdx.y"):
            for item in T.thread_binding(ITEMS, thread="threadIdx.x"):
                owner = PageOwner()
                owner.locate(page, page_indptr, length_info, batch, slots)
                rows = PilotRows(spec, item)
                rows.load(
                    cache_rows,
                    lambda i: key_row(page_values[page], kv_head, i, geometry),
                    owner.num_keys,
                    scratch.plan.key_means,
                    kv_head,
                    spec.key_means is not None,
                )
                bucket = T.bind(scratch.key_buckets[owner.sequence * hkv + kv_head])
                scale = T.bind(scratch.plan.k_scales[kv_head, bucket])
                rows.quantize(
                    lambda i: scale,
                    scratch.packed_keys,
                    lambda i: kv_head * scratch.keys + page * slots + i,
                    owner.num_keys,
                )


@T.inline
def quantize_queries(
    scratch: PilotInputs, q_rows: T.Buffer, q_indptr: T.Buffer, batch: Expr, tokens: Expr
) -> None:
    """`packed_queries` of all tokens, and the buckets they took."""
    spec = T.meta_var(scratch.spec)
    hq = T.meta_var(spec.attention.num_q_heads)
    for bx in T.thread_binding(T.ceildiv(tokens, ROWS), thread="blockIdx.x"):
        for head in T.thread_binding(hq, thread="blockIdx.y"):
            for item in T.thread_binding(ITEMS, thread="threadIdx.x"):
                num_rows = T.bind(T.min(ROWS, tokens - bx * ROWS))
                rows = PilotRows(spec, item)
                rows.load(
                    q_rows,
                    lambda i: (bx * ROWS + i) * hq + head,
                    num_rows,
                    q_rows,  # a mean taken from queries would change the order
                    0,
                    False,
                )
                rows.measure(
                    scratch.query_maxima, lambda i: head * tokens + bx * ROWS + i, num_rows
                )
    for b in T.thread_binding(batch, thread="blockIdx.x"):
        for head in T.thread_binding(hq, thread="blockIdx.y"):
            for item in T.thread_binding(BUCKET_ITEMS, thread="threadIdx.x"):
                choose_bucket(
                    scratch.query_maxima,
                    head * tokens + q_indptr[b],
                    q_indptr[b + 1] - q_indptr[b],
                    scratch.plan.q_axis(head),
                    spec.pilot.quant_max,
                    scratch.query_buckets,
                    b * hq + head,
                    item,
                )
    for bx in T.thread_binding(T.ceildiv(tokens, ROWS), thread="blockIdx.x"):
        for head in T.thread_binding(hq, thread="blockIdx.y"):
            for item in T.thread_binding(ITEMS, thread="threadIdx.x"):
                num_rows = T.bind(T.min(ROWS, tokens - bx * ROWS))
                rows = PilotRows(spec, item)
                scales = T.alloc_buffer((ROWS,), "float32", scope="shared")
                rows.load(q_rows, lambda i: (bx * ROWS + i) * hq + head, num_rows, q_rows, 0, False)
                # rows of a group may be of different sequences
                if item < ROWS:
                    scales[item] = T.float32(1)
                    for b in range(batch):
                        if T.And(
                            q_indptr[b] <= bx * ROWS + item, bx * ROWS + item < q_indptr[b + 1]
                        ):
                            scales[item] = scratch.plan.q_scales[
                                head, scratch.query_buckets[b * hq + head]
                            ]
                barrier()
                rows.quantize(
                    lambda i: scales[i],
                    scratch.packed_queries,
                    lambda i: (bx * ROWS + i) * hq + head,
                    num_rows,
                )

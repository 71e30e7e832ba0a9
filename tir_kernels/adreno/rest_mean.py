"""The launch that averages a sample of the past, for what is on no list; see `shadow.rest_mean`."""

from __future__ import annotations

from tvm.script import tirx as T

from ..attention.page_table import KV_PLANES, key_row, value_row_offset
from ..rest_sample import RestSample
from .limits import VECTOR
from .past import Sequences
from .row_group import row_splits, row_work_items
from .shadow_scratch import PilotInputs
from .vector import barrier, floats, part, splat, zeros


@T.inline
def measure_rest(inputs: PilotInputs, sequences: Sequences, cache_rows: T.Buffer) -> None:
    """`rest_means` of all sequences: a group for each mean; nothing where the rest is dropped."""
    if inputs.spec.rest == "mean":
        geometry = T.meta_var(inputs.spec.attention)
        hkv, slots = T.meta_var(geometry.num_kv_heads), T.meta_var(geometry.page_size)
        parts, splits = T.meta_var(geometry.head_dim // VECTOR), T.meta_var(row_splits(geometry))
        for mean in T.thread_binding(sequences.batch * hkv, thread="blockIdx.x"):
            for plane in T.thread_binding(KV_PLANES, thread="blockIdx.y"):
                for item in T.thread_binding(row_work_items(geometry), thread="threadIdx.x"):
                    sums = T.alloc_buffer((splits, geometry.head_dim), "float32", scope="shared")
                    total = T.alloc_buffer((VECTOR,), "float32", scope="local")
                    first_page = T.bind(sequences.page_indptr[mean // hkv])
                    num_keys = T.bind(sequences.num_keys(mean // hkv, slots))
                    sample = T.meta_var(RestSample.of(num_keys))
                    total[part(0)] = zeros()
                    for step in range(T.ceildiv(sample.count, splits)):
                        i = T.meta_var(step * splits + item // parts)
                        key = T.meta_var(sample.first + i * sample.stride)
                        if i < sample.count:
                            row = T.bind(
                                key_row(
                                    sequences.page_values[first_page + key // slots],
                                    mean % hkv,
                                    key % slots,
                                    geometry,
                                )
                                + plane * value_row_offset(geometry)
                            )
                            total[part(0)] = total[part(0)] + floats(
                                cache_rows[row, part(item % parts)]
                            )
                    sums[item // parts, part(item % parts)] = total[part(0)]
                    barrier()
                    if item < parts:
                        for s in range(1, splits):
                            total[part(0)] = total[part(0)] + sums[s, part(item)]
                        inputs.rest_means[plane * sequences.batch * hkv + mean, part(item)] = total[
                            part(0)
                        ] * splat(T.float32(1) / T.Cast("float32", T.max(sample.count, 1)))

"""shadowAttn in the paged-prefill slot where three machines work on it: NPU, CPU and an Adreno GPU.

The GPU quantizes keys and queries, which are copied to the CPU's memory. Then a loop over those who
have lists, heads or GQA groups, in planned order: the process's `shadowattn.npu.pilot` estimates
for a launch of one or several of them; the CPU selects one's lists, copies them to the GPU and
enqueues exact attention over them. `PipelineHeads` gives the pilots a task of their own; the queue
is in order and nobody waits for it at the end, so the GPU is the third machine.

Source: "Dynamic Sparse Attention on Mobile SoCs", the head-wise pipeline.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..attention.page_table import KV_PLANES, page_rows, sequence_keys
from ..dl_tensors import CPU
from ..features import CpuFeatures
from ..head_rest import rest_of_head
from ..pilot.plan_table import PlanTable
from ..pilot.top_k import RowSelector, index_slack, row_multiple
from ..shadow.list_stages import ATTEND, PILOT, PIPELINE, STAGE
from ..shadow.prefill import layer_id
from ..spec import ShadowSpec
from .dense_heads import dense_heads
from .list_attention import Rows, attend_lists
from .past import Sequences
from .quantize import load_plan, quantize_keys, quantize_queries
from .queued_pilot import HostChunk, QueuedPilot
from .rest_mean import measure_rest
from .shadow_prefill import is_sparse
from .shadow_scratch import PilotInputs
from .transfer import download, upload


def queued_paged_prefill(spec: ShadowSpec, host: CpuFeatures) -> tirx.PrimFunc:
    """shadowAttn of each sequence's new queries to the keys in its pages; for shared lists, and for
    `PipelineHeads` with one worker and `host`, the features of the CPU beside the GPU.

    Variables, computation and what is ignored are those of `adreno.shadow_paged_prefill`; the same
    lists to the bit. The pilots are the process's alone: without a `shadowattn.npu.pilot` a layer
    that has sparse heads is an error at run time, and what that function raises is raised.
    """
    geometry, pilot = spec.attention, spec.pilot
    hq, hkv, stored = geometry.num_q_heads, geometry.num_kv_heads, geometry.stored_heads
    dims, slots = geometry.head_dim, geometry.page_size
    owners = spec.num_list_owners
    unit = hq // owners
    assert pilot.pooled, "lists for each query aren't pipelined"

    @T.prim_func(s_tir=True)
    def shadowattn_adreno_queued_prefill(
        var_q: T.handle,  # (tokens, Hq, D)
        var_q_indptr: T.handle,  # (batch + 1,)
        var_pages: T.handle,  # (num_pages, 2, Hs, page_size, D)
        var_page_indptr: T.handle,  # (batch + 1,)
        var_page_values: T.handle,  # (used_pages,)
        var_length_info: T.handle,  # (batch,)
        var_k_rope_pos_offset: T.handle,  # (batch,)
        var_q_rope_position: T.handle,  # (tokens,)
        var_output: T.handle,  # (tokens, Hq, D)
        var_lse: T.handle,  # (tokens, Hq)
        causal: T.int32,
        rotary_mode: T.int32,
        rope_scale: T.float32,
        rope_theta: T.float32,
        sm_scale: T.float32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        batch, tokens, num_pages, used_pages = T.int32(), T.int32(), T.int32(), T.int32()
        q_indptr_at, page_indptr_at, page_values_at = T.int32(), T.int32(), T.int32()
        length_info_at, k_rope_at, q_rope_at = T.int32(), T.int32(), T.int32()
        q = T.match_buffer(var_q, (tokens, hq, dims), geometry.dtype)
        q_indptr = T.match_buffer(var_q_indptr, (batch + 1,), "int32", elem_offset=q_indptr_at)
        pages = T.match_buffer(
            var_pages, (num_pages, KV_PLANES, stored, slots, dims), geometry.dtype
        )
        page_indptr = T.match_buffer(
            var_page_indptr, (batch + 1,), "int32", elem_offset=page_indptr_at
        )
        page_values = T.match_buffer(
            var_page_values, (used_pages,), "int32", elem_offset=page_values_at
        )
        length_info = T.match_buffer(var_length_info, (batch,), "int32", elem_offset=length_info_at)
        T.match_buffer(var_k_rope_pos_offset, (batch,), "int32", elem_offset=k_rope_at)
        T.match_buffer(var_q_rope_position, (tokens,), "int32", elem_offset=q_rope_at)
        output = T.match_buffer(var_output, (tokens, hq, dims), geometry.dtype)
        lse = T.match_buffer(var_lse, (tokens, hq), "float32")
        q_rows = T.decl_buffer((tokens * hq, dims), geometry.dtype, data=q.data)
        out_rows = T.decl_buffer((tokens * hq, dims), geometry.dtype, data=output.data)
        lse_rows = T.decl_buffer((tokens * hq,), "float32", data=lse.data)
        cache_rows = page_rows(pages, num_pages, geometry)
        assert layer_id(sm_scale) < spec.num_layers, "the plan has no such layer"

        sequences = T.meta_var(Sequences(batch, q_indptr, page_indptr, page_values, length_info))
        rows = T.meta_var(Rows(q_rows, out_rows, lse_rows, cache_rows, page_values))
        inputs = PilotInputs(spec, batch, tokens, used_pages)
        # of one owner: the queue is in order, so the next one's come when these have been read
        lists = T.alloc_buffer((T.ceildiv(tokens, pilot.query_block) * inputs.keys,), "int32")
        load_plan(inputs, layer_id(sm_scale))
        with T.attr(0, "device_type", CPU):
            plan = PlanTable(spec)
            process = QueuedPilot(spec, host, plan)
            q_starts = T.alloc_buffer((batch + 1,), "int32")
            page_starts = T.alloc_buffer((batch + 1,), "int32")
            last_lengths = T.alloc_buffer((batch,), "int32")
            q_buckets = T.alloc_buffer((batch * hq,), "int32")
            k_buckets = T.alloc_buffer((batch * hkv,), "int32")
            packed_queries = T.alloc_buffer((tokens * hq, dims), "int8")
            packed_keys = T.alloc_buffer((hkv * inputs.keys, dims), "int8")
            if is_sparse(spec, layer_id(sm_scale), causal):
                # 1. Keys and queries as the pilot takes them, on the GPU and then in our memory
                quantize_keys(
                    inputs, cache_rows, page_indptr, page_values, length_info, batch, used_pages
                )
                quantize_queries(inputs, q_rows, q_indptr, batch, tokens)
                measure_rest(inputs, sequences, cache_rows)
                download(q_indptr, q_starts, batch + 1)
                download(page_indptr, page_starts, batch + 1)
                download(length_info, last_lengths, batch)
                download(inputs.query_buckets, q_buckets, batch * hq)
                download(inputs.key_buckets, k_buckets, batch * hkv)
                download(inputs.packed_queries, packed_queries, tokens * hq * dims)
                download(inputs.packed_keys, packed_keys, hkv * inputs.keys * dims)
            # 2. Heads that run dense: the GPU's work until the first lists are there
            dense_heads(
                spec,
                inputs.plan,
                sequences,
                q_rows,
                cache_rows,
                out_rows,
                lse_rows,
                tokens,
                causal,
            )
            # 3. The others, in planned order
            if is_sparse(spec, layer_id(sm_scale), causal):
                plan.load(layer_id(sm_scale))
                process.load(layer_id(sm_scale))
                assert T.Not(process.is_absent()), "expected shadowattn.npu.pilot to be registered"
                chunk_q_buckets = T.alloc_buffer((hq,), "int32")
                chunk_k_buckets = T.alloc_buffer((hkv,), "int32")
                for b in range(batch):
                    first_query = T.bind(q_starts[b])
                    num_queries = T.bind(q_starts[b + 1] - first_query)
                    first_page = T.bind(page_starts[b])
                    num_keys = T.bind(
                        sequence_keys(first_page, page_starts[b + 1], last_lengths[b], slots)
                    )
                    blocks = T.bind(T.ceildiv(num_queries, pilot.query_block))
                    columns = T.bind(T.ceildiv(num_keys, row_multiple(host)) * row_multiple(host))
                    for head in range(hq):
                        chunk_q_buckets[head] = q_buckets[b * hq + head]
                    for head in range(hkv):
                        chunk_k_buckets[head] = k_buckets[b * hkv + head]
                    chunk = T.meta_var(
                        HostChunk(
                            packed_queries,
                            packed_keys,
                            chunk_q_buckets,
                            chunk_k_buckets,
                            inputs.keys,
                            first_query,
                            num_queries,
                            first_page * slots,
                            num_keys,
                        )
                    )
                    process.plan_chunk(chunk)
                    importance = T.alloc_buffer((owners * blocks, columns), "int32")
                    num_items = T.bind(T.if_then_else(num_queries > 0, owners, 0))
                    for position in T.parallel(num_items, annotations={PIPELINE: 1}):
                        owner = T.bind(plan.order[position])
                        keep = T.bind(plan.keep_count(owner * unit, num_keys))
                        with T.attr(0, STAGE, PILOT):
                            if keep < num_keys:
                                process.run_chunk(
                                    chunk, layer_id(sm_scale), position, importance, columns
                                )
                        with T.attr(0, STAGE, ATTEND):
                            if keep < num_keys:
                                if process.has_delivered():
                                    # a list's last vector runs into the next list, written later
                                    chosen = T.alloc_buffer(
                                        (blocks * keep + index_slack(host),), "int32"
                                    )
                                    by_list = T.decl_buffer(
                                        (blocks, keep), "int32", data=chosen.data
                                    )
                                    counts = T.alloc_buffer((blocks,), "int32")
                                    selector = RowSelector(host)
                                    selector.start()
                                    for block in range(blocks):
                                        selector.select(
                                            importance,
                                            position * blocks + block,
                                            columns // host.lanes,
                                            num_keys,
                                            keep,
                                            by_list,
                                            block,
                                            counts,
                                        )
                                    upload(chosen, lists, blocks * keep)
                                    attend_lists(
                                        spec,
                                        rows,
                                        lists,
                                        keep,
                                        owner,
                                        first_query,
                                        num_queries,
                                        first_page,
                                        rest_of_head(
                                            spec,
                                            inputs.rest_means,
                                            b * hkv + owner * unit // geometry.group_size,
                                            num_keys,
                                            keep,
                                        ),
                                    )
                process.close()

    return shadowattn_adreno_queued_prefill

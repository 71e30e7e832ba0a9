"""Dense prefill on CPUs, a chunk of new tokens against itself."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..features import CpuFeatures
from ..spec import AttentionSpec
from .prefill_tile import PrefillTile
from .query_tasks import count_tasks, dealt_tile, locate_task, query_tiles
from .tiles import attention_tile


def dense_ragged_prefill(spec: AttentionSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """Attention of each sequence's new queries to its new keys.

    Variables: `q` (queries, Hq, D), `k`, `v` (keys, Hs, D), `output` (queries, Hq, D), dtype of
    the spec; `lse` (queries, Hq) float32, base 2; `q_indptr`, `kv_indptr` (batch + 1,) int32: where
    each sequence's rows start. Sequences may be empty; a sequence may have other numbers of queries
    and keys. `causal`: 0 = every query sees all keys of its sequence, otherwise query i of n sees
    keys up to number i + keys - n (the last query sees the last key).
    Computation: `output = softmax(q.k * spec.sm_scale).v`, `lse = log2(sum(exp(q.k * sm_scale)))`;
    zeros and EMPTY_LSE where a query sees no key. Rows outside `q_indptr` are left alone.
    Ignored: rotary_mode, rope_scale, rope_theta and the rope positions, because q and k arrive
    rotated (rope mode NORMAL); sm_scale, because at run time it carries the layer id too.

    The parameters are those of the runtime's ragged prefill slot (TVM,
    src/runtime/vm/attn_backend.h).
    """
    sizes = attention_tile(features)
    hq, stored, dims = spec.num_q_heads, spec.stored_heads, spec.head_dim

    @T.prim_func(s_tir=True)
    def shadowattn_dense_ragged_prefill(
        var_q: T.handle,  # (queries, Hq, D)
        var_q_indptr: T.handle,  # (batch + 1,)
        var_k: T.handle,  # (keys, Hs, D)
        var_v: T.handle,  # (keys, Hs, D)
        var_kv_indptr: T.handle,  # (batch + 1,)
        var_q_rope_position: T.handle,  # (queries,)
        var_k_rope_pos_offset: T.handle,  # (batch,)
        var_output: T.handle,  # (queries, Hq, D)
        var_lse: T.handle,  # (queries, Hq)
        causal: T.int32,
        rotary_mode: T.int32,
        rope_scale: T.float32,
        rope_theta: T.float32,
        sm_scale: T.float32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        batch, queries, keys = T.int32(), T.int32(), T.int32()
        q_indptr_at, kv_indptr_at, q_rope_at, k_rope_at = T.int32(), T.int32(), T.int32(), T.int32()
        q = T.match_buffer(var_q, (queries, hq, dims), spec.dtype)
        q_indptr = T.match_buffer(var_q_indptr, (batch + 1,), "int32", elem_offset=q_indptr_at)
        k = T.match_buffer(var_k, (keys, stored, dims), spec.dtype)
        v = T.match_buffer(var_v, (keys, stored, dims), spec.dtype)
        kv_indptr = T.match_buffer(var_kv_indptr, (batch + 1,), "int32", elem_offset=kv_indptr_at)
        _q_rope = T.match_buffer(var_q_rope_position, (queries,), "int32", elem_offset=q_rope_at)
        _k_rope = T.match_buffer(var_k_rope_pos_offset, (batch,), "int32", elem_offset=k_rope_at)
        output = T.match_buffer(var_output, (queries, hq, dims), spec.dtype)
        lse = T.match_buffer(var_lse, (queries, hq), "float32")
        k_rows = T.decl_buffer((keys * stored, dims), spec.dtype, data=k.data)
        v_rows = T.decl_buffer((keys * stored, dims), spec.dtype, data=v.data)
        tasks = T.alloc_buffer((1,), "int32")
        count_tasks(tasks, q_indptr, batch, spec, sizes)
        for task in T.parallel(tasks[0]):
            sequence = T.alloc_buffer((1,), "int32")
            rest = T.alloc_buffer((1,), "int32")
            locate_task(task, sequence, rest, q_indptr, spec, sizes)
            b = T.bind(sequence[0])
            tiles = T.bind(query_tiles(q_indptr, b, sizes))
            head = T.bind(rest[0] // tiles)
            first = T.bind(dealt_tile(rest[0] % tiles, tiles) * sizes.queries)
            seq_queries = T.bind(q_indptr[b + 1] - q_indptr[b])
            seq_keys = T.bind(kv_indptr[b + 1] - kv_indptr[b])
            num_queries = T.bind(T.min(sizes.queries, seq_queries - first))

            tile = PrefillTile(spec, sizes)
            tile.start(q, head, q_indptr[b] + first, num_queries)
            for m in range(sizes.queries):
                tile.limits[m] = T.if_then_else(
                    causal > 0, seq_keys - seq_queries + first + m + 1, seq_keys
                )
            seen_keys = T.bind(T.max(tile.limits[num_queries - 1], 0))
            for block in range(T.ceildiv(seen_keys, sizes.key_block)):
                first_key = T.bind(block * sizes.key_block)
                num_keys = T.bind(T.min(sizes.key_block, seen_keys - first_key))
                for i in range(sizes.padded_key_block):
                    key = T.bind(kv_indptr[b] + first_key + T.min(i, num_keys - 1))
                    tile.rows[i] = key * stored + head // spec.group_size
                tile.attend(k_rows, v_rows, 0, first_key, num_keys, num_queries)
            tile.finish(output, lse, num_queries)

    return shadowattn_dense_ragged_prefill

"""The runtime's paged KV cache, created with TVM's stock kernels in every slot.

Our kernels don't appear here: the attach passes swap them in, in this model and in MLC's alike.
"""

from __future__ import annotations

import tvm
from tvm import relax, tirx
from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache, RopeMode, TIRPagedKVCache

from ..config.architecture import LlamaConfig
from ..config.chat_config import ModelDtype


def create_paged_kv_cache(
    config: LlamaConfig,
    dtype: ModelDtype,
    max_batch_size: tirx.Var,
    max_total_seq_len: tirx.Var,
    prefill_chunk_size: tirx.Var,
    page_size: tirx.Var,
    support_sliding_window: tirx.Var,
) -> PagedKVCache:
    """Emit the creation call for the current target, keys and values of `dtype`; the sizes are
    run-time values."""
    return TIRPagedKVCache(
        attn_kind="mha",
        max_batch_size=max_batch_size,
        max_total_seq_len=max_total_seq_len,
        prefill_chunk_size=prefill_chunk_size,
        page_size=page_size,
        support_sliding_window=support_sliding_window,
        layer_partition=relax.ShapeExpr([0, config.num_hidden_layers]),
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        qk_head_dim=config.head_dim,
        v_head_dim=config.head_dim,
        mla_original_qk_head_dim=0,
        mla_original_v_head_dim=0,
        rope_mode=RopeMode.NORMAL,
        rope_scale=1,
        rope_theta=config.position_embedding_base,
        rope_scaling=config.rope_scaling.model_dump() if config.rope_scaling else {},
        rope_ext_factors=relax.prim_value(0),  # the runtime's "none"
        rotary_dim=config.head_dim,
        enable_disaggregation=False,
        dtype=dtype,
        target=tvm.target.Target.current(allow_none=False),
    )

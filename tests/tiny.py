"""Documents small enough to read, for tests of everything that takes one."""

from __future__ import annotations

from datetime import UTC, datetime

from shadowattn_tvm.config import LlamaConfig
from shadowattn_tvm.plan import BucketGrid, HeadPlan, LayerPlan, Plan, PlannedModel, Provenance

NUM_LAYERS, NUM_Q_HEADS, NUM_KV_HEADS = 3, 4, 2


HEAD_DIM = 64


def make_architecture(**changes: object) -> LlamaConfig:
    """A Llama of three layers with grouped-query attention."""
    fields = {
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_attention_heads": NUM_Q_HEADS,
        "num_key_value_heads": NUM_KV_HEADS,
        "num_hidden_layers": NUM_LAYERS,
        "head_dim": HEAD_DIM,
        "rms_norm_eps": 1e-5,
        "vocab_size": 320,
        "tie_word_embeddings": True,
        "position_embedding_base": 10000,
        "context_window_size": 512,
        "prefill_chunk_size": 64,
    }
    return LlamaConfig.parse({**fields, **changes}, "tiny architecture")


def make_plan(keep_ratio: float = 0.25, corpus: str = "text", fingerprint: str = "f" * 64) -> Plan:
    """A plan for `make_architecture()`, its first layer dense."""
    heads = tuple(
        HeadPlan(q_scale=0.1 + h, k_scale=0.2 + h // 2, keep_ratio=keep_ratio)
        for h in range(NUM_Q_HEADS)
    )
    return Plan(
        model=PlannedModel(
            name="tiny",
            fingerprint=fingerprint,
            num_layers=NUM_LAYERS,
            num_q_heads=NUM_Q_HEADS,
            num_kv_heads=NUM_KV_HEADS,
            head_dim=HEAD_DIM,
        ),
        buckets=BucketGrid(sigma=0.5),
        k_min=32,
        layers=tuple(LayerPlan(dense=layer == 0, heads=heads) for layer in range(NUM_LAYERS)),
        provenance=Provenance(
            method="uniform",
            ratio=0.5,
            corpus=corpus,
            corpus_sha256="c" * 64,
            window_tokens=1024,
            num_windows=16,
            prefill_chunk_tokens=256,
            created=datetime(2026, 1, 2, tzinfo=UTC),
            tool_version="0.1.0",
        ),
    )

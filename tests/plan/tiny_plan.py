"""Plans small enough to read."""

from __future__ import annotations

from datetime import UTC, datetime

from shadowattn_tvm.plan import (
    BucketGrid,
    CorpusDocument,
    HeadPlan,
    LayerPlan,
    Plan,
    PlannedModel,
    Provenance,
)
from shadowattn_tvm.weights import ModelDirectory, model_fingerprint

K_MIN = 8


def make_plan(directory: ModelDirectory, keep_ratio: float = 0.25, corpus: str = "text") -> Plan:
    """A plan for the model in `directory`, its first layer dense."""
    architecture = directory.architecture
    group = architecture.num_attention_heads // architecture.num_key_value_heads
    heads = tuple(
        HeadPlan(
            q_scale=0.02 + 0.001 * h, k_scale=0.03 + 0.001 * (h // group), keep_ratio=keep_ratio
        )
        for h in range(architecture.num_attention_heads)
    )
    return Plan(
        model=PlannedModel(
            name="tiny",
            fingerprint=model_fingerprint(directory),
            num_layers=architecture.num_hidden_layers,
            num_q_heads=architecture.num_attention_heads,
            num_kv_heads=architecture.num_key_value_heads,
            head_dim=architecture.head_dim,
        ),
        buckets=BucketGrid(sigma=0.5),
        k_min=K_MIN,
        layers=tuple(
            LayerPlan(dense=layer == 0, heads=heads)
            for layer in range(architecture.num_hidden_layers)
        ),
        provenance=Provenance(
            method="uniform",
            ratio=0.5,
            corpus=(CorpusDocument(name=corpus, sha256="c" * 64),),
            window_tokens=256,
            num_windows=1,
            prefill_chunk_tokens=16,
            created=datetime(2026, 1, 2, tzinfo=UTC),
            tool_version="0.1.0",
        ),
    )

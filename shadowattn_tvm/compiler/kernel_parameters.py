"""From documents to kernel specs: what the plan and the architecture mean to the kernels."""

from __future__ import annotations

from tir_kernels.constants import RATIO_ONE
from tir_kernels.pilot.pooling import MAX_POOLED_KEYS
from tir_kernels.pilot.shadow_rows import with_key_shadow
from tir_kernels.rotary import Llama3Scaling
from tir_kernels.spec import AttentionSpec, HeadParameters, PilotSpec, ShadowSpec

from ..config.architecture import LlamaConfig
from ..config.chat_config import ModelDtype
from ..errors import PlanError
from ..pipeline import compiled_launches
from ..plan import Plan


def attention_spec(architecture: LlamaConfig, dtype: ModelDtype = "float32") -> AttentionSpec:
    """The attention geometry of a model whose KV cache is of `dtype`."""
    return AttentionSpec(
        num_q_heads=architecture.num_attention_heads,
        num_kv_heads=architecture.num_key_value_heads,
        head_dim=architecture.head_dim,
        sm_scale=architecture.head_dim**-0.5,
        dtype=dtype,
    )


def rope_scaling(architecture: LlamaConfig) -> Llama3Scaling | None:
    """The rotary scaling of a model, if it has one."""
    scaling = architecture.rope_scaling
    if scaling is None:
        return None
    return Llama3Scaling(
        factor=scaling.factor,
        low_freq_factor=scaling.low_freq_factor,
        high_freq_factor=scaling.high_freq_factor,
        original_max_position_embeddings=scaling.original_max_position_embeddings,
    )


def shadow_spec(plan: Plan, architecture: LlamaConfig, dtype: ModelDtype = "float32") -> ShadowSpec:
    """The kernels' parameters of a plan.

    Raises `PlanError` if it is for another geometry or can't serve the architecture's context.
    """
    return planned_spec(
        plan,
        attention_spec(architecture, dtype),
        num_layers=architecture.num_hidden_layers,
        context_window_tokens=architecture.context_window_size,
    )


def planned_spec(
    plan: Plan, attention: AttentionSpec, *, num_layers: int, context_window_tokens: int
) -> ShadowSpec:
    """The kernels' parameters of a plan, for a model of this geometry. Raises like
    `shadow_spec`."""
    expected = (num_layers, attention.num_q_heads, attention.num_kv_heads, attention.head_dim)
    model = plan.model
    got = (model.num_layers, model.num_q_heads, model.num_kv_heads, model.head_dim)
    if got != expected:
        raise PlanError(
            f"the plan is for another model: expected (layers, query heads, KV heads, head dim) "
            f"{expected}, got {got}; make one with `shadowattn calibrate`"
        )
    if plan.sharing.pooled and context_window_tokens > MAX_POOLED_KEYS:
        raise PlanError(
            f"the plan shares lists, which works in contexts of up to {MAX_POOLED_KEYS} tokens, "
            f"got {context_window_tokens}; compile with --overrides "
            f"context_window_size={MAX_POOLED_KEYS}"
        )
    return ShadowSpec(
        attention=attention,
        heads=tuple(
            tuple(
                HeadParameters(
                    q_scale=head.q_scale,
                    k_scale=head.k_scale,
                    keep_ratio_q16=RATIO_ONE if layer.dense else round(head.keep_ratio * RATIO_ONE),
                    requant=head.requant,
                    query_stride=head.query_stride,
                )
                for head in layer.heads
            )
            for layer in plan.layers
        ),
        bucket_sigma=plan.buckets.sigma,
        k_min=plan.k_min,
        buckets_per_axis=plan.buckets.per_axis,
        pilot=PilotSpec(
            bits=plan.pilot.bits,
            hadamard_rotation=plan.pilot.hadamard_rotation,
            score_bits=plan.pilot.score_bits,
            share_group=plan.sharing.gqa_group,
            query_block=plan.sharing.query_block,
        ),
        key_means=_key_means(plan),
        launches=compiled_launches(plan) if plan.sharing.pooled else None,
        rest=plan.rest,
    )


def library_spec(
    plan: Plan, architecture: LlamaConfig, dtype: ModelDtype = "float32"
) -> ShadowSpec:
    """`shadow_spec` for the pages of a library: with room for a shadow of K if the plan decodes
    sparsely. Raises like it."""
    return stored_spec(shadow_spec(plan, architecture, dtype), plan)


def stored_spec(spec: ShadowSpec, plan: Plan) -> ShadowSpec:
    """`spec` with room in the pages for a shadow of K if the plan decodes sparsely."""
    return with_key_shadow(spec) if plan.decode == "sparse" else spec


def _key_means(plan: Plan) -> tuple[tuple[tuple[float, ...], ...], ...] | None:
    """`[layer][KV head][dim]`; the plan has them for every layer or for none."""
    means = tuple(layer.key_means for layer in plan.layers if layer.key_means is not None)
    return means or None

"""`model_config` of an `mlc-chat-config.json` in the words of the family's own class in MLC-LLM.

Qwen2's (mlc_llm/model/qwen2/qwen2_model.py) says `rope_theta` where Llama's says
`position_embedding_base`, names its activation, and has no field for what it doesn't know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .architecture import LlamaConfig

_OURS_ALONE = ("qkv_bias",)
"""What MLC says by the family's name."""

_NOT_QWEN2S = ("position_embedding_base", "pipeline_parallel_stages", "disaggregation")
"""Fields of MLC's `LlamaConfig` that its `QWen2Config` lacks: one has another name, the others say
nothing here."""


def to_mlc_words(architecture: LlamaConfig) -> dict[str, Any]:
    """The object MLC reads for this model, ready for JSON."""
    fields = architecture.model_dump(mode="json", exclude=set(_OURS_ALONE))
    if architecture.model_type == "llama":
        return fields
    shared = {name: value for name, value in fields.items() if name not in _NOT_QWEN2S}
    if architecture.rope_scaling is None:
        shared.pop("rope_scaling")
    base = architecture.position_embedding_base
    return {**shared, "rope_theta": base, "hidden_act": "silu"}


def from_mlc_words(model_config: Mapping[str, Any], model_type: object) -> dict[str, Any]:
    """The fields of `LlamaConfig`, unvalidated; what MLC's object holds besides is left out."""
    known = {k: v for k, v in model_config.items() if k in LlamaConfig.model_fields}
    if model_type == "qwen2":
        known["qkv_bias"] = True
        if "rope_theta" in model_config:
            known["position_embedding_base"] = model_config["rope_theta"]
    return known

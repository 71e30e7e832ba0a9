"""The model's shape: MLC-LLM's defaults, both ways Hugging Face writes rotary settings, refusals by
name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shadowattn_tvm.config import Llama3RopeScaling, LlamaConfig
from shadowattn_tvm.errors import ConfigError

LLAMA3_SCALING = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
LLAMA31_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": LLAMA3_SCALING,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 128256,
}


def test_llama31() -> None:
    config = LlamaConfig.from_hf_config(LLAMA31_8B)
    assert config.head_dim == 128
    assert config.position_embedding_base == 500000
    assert isinstance(config.position_embedding_base, int)  # as MLC writes it
    assert config.rope_scaling == Llama3RopeScaling(**LLAMA3_SCALING)
    assert (config.context_window_size, config.prefill_chunk_size) == (131072, 8192)
    assert (config.q_size, config.kv_size) == (4096, 1024)
    assert not config.tie_word_embeddings


def test_transformers_5_writes_rope_parameters() -> None:
    content = {k: v for k, v in LLAMA31_8B.items() if k not in ("rope_theta", "rope_scaling")}
    content["rope_parameters"] = {"rope_theta": 500000.0, **LLAMA3_SCALING}
    assert LlamaConfig.from_hf_config(content) == LlamaConfig.from_hf_config(LLAMA31_8B)
    content["rope_parameters"] = {"rope_theta": 250000.5, "rope_type": "default"}
    plain = LlamaConfig.from_hf_config(content)
    assert (plain.position_embedding_base, plain.rope_scaling) == (250000.5, None)


def test_mlcs_defaults() -> None:
    absent = ("num_key_value_heads", "rope_theta", "rope_scaling", "tie_word_embeddings")
    config = LlamaConfig.from_hf_config({k: v for k, v in LLAMA31_8B.items() if k not in absent})
    assert config.num_key_value_heads == 32
    assert config.position_embedding_base == 10000
    assert config.rope_scaling is None
    short = LlamaConfig.from_hf_config({**LLAMA31_8B, "max_position_embeddings": 2048})
    assert short.prefill_chunk_size == 2048
    own = LlamaConfig.from_hf_config({**LLAMA31_8B, "head_dim": 64})
    assert own.q_size == 2048


def test_json_round_trip() -> None:
    config = LlamaConfig.from_hf_config(LLAMA31_8B)
    assert LlamaConfig.parse(json.loads(config.model_dump_json()), "x") == config


def test_qwen2_is_a_llama_with_biases() -> None:
    llama = LlamaConfig.from_hf_config(LLAMA31_8B)
    window = {"sliding_window": 4096, "use_sliding_window": False}
    qwen2 = LlamaConfig.from_hf_config({**LLAMA31_8B, **window, "model_type": "qwen2"})
    assert (llama.model_type, qwen2.model_type) == ("llama", "qwen2")
    assert qwen2 == llama.model_copy(update={"qkv_bias": True})


REFUSED = (
    ({"model_type": "mistral"}, "model_type: expected 'llama' or 'qwen2', got 'mistral'"),
    ({"sliding_window": 4096}, "sliding_window: no support for sliding-window attention"),
    ({"kv_lora_rank": 512}, "no support for multi-head latent attention (MLA), got 512"),
    ({"num_local_experts": 8}, "no support for mixture of experts, got 8"),
    ({"attention_bias": True}, "attention_bias: no support for biases in the projections"),
    ({"mlp_bias": True}, "mlp_bias"),
    ({"hidden_act": "gelu"}, "hidden_act: expected 'silu', got 'gelu'"),
    (
        {"partial_rotary_factor": 0.5},
        "partial_rotary_factor: no support for partial rotary embedding, got 0.5",
    ),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "got ['sliding_attention']"),
    ({"quantization_config": {"quant_method": "awq"}}, "already quantized by another tool"),
    (
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        "expected 'llama3' or none, got 'linear'",
    ),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "got 'yarn'"),
    ({"rope_scaling": {"factor": 4.0}}, "rope_scaling: expected a rope_type"),
    ({"rope_scaling": "llama3"}, "expected an object or null, got 'llama3'"),
    ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling.factor: Field required"),
    (
        {"rope_scaling": {**LLAMA3_SCALING, "low_freq_factor": 4.0}},
        "expected low_freq_factor < high_freq_factor, got 4.0 and 4.0",
    ),
    ({"num_key_value_heads": 5}, "expected a divisor of num_attention_heads 32, got 5"),
    ({"num_attention_heads": 0}, "num_attention_heads: Input should be greater than or equal to 1"),
    ({"hidden_size": None}, "hidden_size: Field required"),
    ({"hidden_size": "4096"}, "hidden_size: Input should be a valid integer, got '4096'"),
    ({"vocab_size": True}, "vocab_size: Input should be a valid integer, got True"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers: Input should be less than"),
    ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
    ({"rope_theta": -1.0}, "position_embedding_base: expected a positive rotary base, got -1.0"),
    ({"max_position_embeddings": None}, "context_window_size: Field required"),
    ({"head_dim": 63}, "head_dim: Input should be a multiple of 2, got 63"),
)


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_refusals(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LlamaConfig.from_hf_config({**LLAMA31_8B, **change}, "here.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("here.json")


def test_every_unsupported_feature_is_named_at_once() -> None:
    change = {"sliding_window": 4096, "mlp_bias": True, "hidden_act": "relu"}
    with pytest.raises(ConfigError) as caught:
        LlamaConfig.from_hf_config({**LLAMA31_8B, **change})
    for word in ("sliding_window", "mlp_bias", "hidden_act"):
        assert word in str(caught.value)


def test_features_switched_off_are_no_features() -> None:
    off = {
        "sliding_window": 4096,
        "use_sliding_window": False,
        "num_experts": 0,
        "q_lora_rank": None,
        "layer_types": ["full_attention"] * 32,
        "partial_rotary_factor": 1.0,
        "rope_scaling": None,
    }
    LlamaConfig.from_hf_config({**LLAMA31_8B, **off})


@pytest.mark.parametrize(
    "change",
    [{"tensor_parallel_shards": 2}, {"pipeline_parallel_stages": 2}, {"disaggregation": True}],
)
def test_one_device_only(change: dict[str, Any]) -> None:
    own = LlamaConfig.from_hf_config(LLAMA31_8B).model_dump()
    with pytest.raises(ConfigError, match="not supported"):
        LlamaConfig.parse({**own, **change}, "x")


def test_limits() -> None:
    config = LlamaConfig.from_hf_config(LLAMA31_8B)
    cut = config.with_limits(context_window_size=4096)
    assert (cut.context_window_size, cut.prefill_chunk_size) == (4096, 4096)
    chunked = config.with_limits(prefill_chunk_size=256)
    assert (chunked.context_window_size, chunked.prefill_chunk_size) == (131072, 256)
    assert config.with_limits() == config
    with pytest.raises(ConfigError, match="at most the model's own 131072 tokens, got 200000"):
        config.with_limits(context_window_size=200000)
    with pytest.raises(ConfigError, match="expected at most context_window_size 64, got 65"):
        config.with_limits(context_window_size=64, prefill_chunk_size=65)

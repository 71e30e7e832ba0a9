"""The parameters' names and shapes, against what MLC-LLM's model declares."""

from __future__ import annotations

from shadowattn_tvm.config import LlamaConfig
from shadowattn_tvm.weights import ParameterInfo, parameter_layout

TINYLLAMA = LlamaConfig(
    hidden_size=2048,
    intermediate_size=5632,
    num_attention_heads=32,
    num_key_value_heads=4,
    head_dim=64,
    num_hidden_layers=1,
    rms_norm_eps=1e-5,
    vocab_size=32000,
    context_window_size=2048,
    prefill_chunk_size=256,
)


def test_float_layout() -> None:
    layout = parameter_layout(TINYLLAMA, "q0f32")
    layer = "model.layers.0"
    assert {name: info.shape for name, info in layout.items()} == {
        "model.embed_tokens.weight": (32000, 2048),
        f"{layer}.self_attn.qkv_proj.weight": (2048 + 256 + 256, 2048),
        f"{layer}.self_attn.o_proj.weight": (2048, 2048),
        f"{layer}.mlp.gate_up_proj.weight": (11264, 2048),
        f"{layer}.mlp.down_proj.weight": (2048, 5632),
        f"{layer}.input_layernorm.weight": (2048,),
        f"{layer}.post_attention_layernorm.weight": (2048,),
        "model.norm.weight": (2048,),
        "lm_head.weight": (32000, 2048),
    }
    assert {info.dtype for info in layout.values()} == {"float32"}


def test_quantized_layout() -> None:
    layout = parameter_layout(TINYLLAMA, "q4f32_1")
    down = "model.layers.0.mlp.down_proj"
    assert layout[f"{down}.q_weight"] == ParameterInfo((2048, 704), "uint32")
    assert layout[f"{down}.q_scale"] == ParameterInfo((2048, 176), "float32")
    assert layout["model.norm.weight"] == ParameterInfo((2048,), "float32")
    assert layout["lm_head.q_weight"] == ParameterInfo((32000, 256), "uint32")
    assert len(layout) == 2 * 6 + 3
    assert layout[f"{down}.q_weight"].num_bytes == 2048 * 704 * 4


def test_half_layouts() -> None:
    """Float16 wherever the others have float32."""
    for half, full in (("q0f16", "q0f32"), ("q4f16_1", "q4f32_1")):
        expected = {
            name: ParameterInfo(info.shape, "uint32" if info.dtype == "uint32" else "float16")
            for name, info in parameter_layout(TINYLLAMA, full).items()
        }
        assert parameter_layout(TINYLLAMA, half) == expected
    assert expected["model.norm.weight"].num_bytes == 2048 * 2


def test_a_tied_model_has_no_head_of_its_own() -> None:
    tied = TINYLLAMA.model_copy(update={"tie_word_embeddings": True})
    assert not any(name.startswith("lm_head") for name in parameter_layout(tied, "q4f32_1"))

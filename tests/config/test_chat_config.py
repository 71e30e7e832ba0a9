"""mlc-chat-config.json: what we write we read back, and MLC-LLM reads too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from shadowattn_tvm.config import ChatConfig, LlamaConfig, TokenizerInfo
from shadowattn_tvm.config.chat_config import is_plain_file_name
from shadowattn_tvm.config.conversation import conversation

ARCHITECTURE = LlamaConfig(
    hidden_size=64,
    intermediate_size=96,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    num_hidden_layers=2,
    rms_norm_eps=1e-5,
    vocab_size=300,
    context_window_size=512,
    prefill_chunk_size=256,
)
CHAT = ChatConfig(
    quantization="q4f32_1",
    architecture=ARCHITECTURE,
    vocab_size=300,
    context_window_size=512,
    prefill_chunk_size=256,
    active_vocab_size=290,
    temperature=0.25,
    tokenizer_files=("tokenizer.json",),
    tokenizer_info=TokenizerInfo(token_postproc_method="byte_level"),
    conv_template=conversation("chatml", {"<|im_end|>": 2}),
    eos_token_id=(2, 5),
)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "mlc-chat-config.json"
    path.write_text(CHAT.to_json())
    assert ChatConfig.read(path) == CHAT


def test_mlcs_names_are_used() -> None:
    content = json.loads(CHAT.to_json())
    assert content["version"] == "0.1.0"
    assert content["model_type"] == "llama"
    assert content["model_task"] == "chat"
    assert content["model_config"]["num_key_value_heads"] == 2
    assert content["sliding_window_size"] == content["attention_sink_size"] == -1
    assert content["conv_template"]["roles"]["user"] == "<|im_start|>user"


def test_answers_end_at_the_templates_and_the_models_tokens() -> None:
    assert CHAT.stop_token_ids == (2, 5)
    assert CHAT.model_copy(update={"eos_token_id": 9}).stop_token_ids == (2, 9)
    assert CHAT.model_copy(update={"eos_token_id": None}).stop_token_ids == (2,)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("params_shard_0.bin", True),
        ("model-00001-of-00002.safetensors", True),
        ("", False),
        (".", False),
        ("..", False),
        (".hidden", False),
        ("../x", False),
        ("a/b", False),
        ("/etc/passwd", False),
        ("a\\b", False),
        ("a\0b", False),
    ],
)
def test_plain_file_names(name: str, plain: bool) -> None:
    assert is_plain_file_name(name) == plain


def test_qwen2_is_written_in_its_own_words() -> None:
    architecture = ARCHITECTURE.model_copy(update={"qkv_bias": True, "position_embedding_base": 7})
    chat = CHAT.model_copy(update={"type_": "qwen2", "architecture": architecture})
    content = json.loads(chat.to_json())
    assert content["model_type"] == "qwen2"
    assert content["model_config"]["rope_theta"] == 7
    assert content["model_config"]["hidden_act"] == "silu"
    assert not {"qkv_bias", "position_embedding_base"} & content["model_config"].keys()
    assert ChatConfig.parse(content, "x") == chat
    with pytest.raises(ValidationError, match="model_type: expected model_config's 'llama'"):
        ChatConfig.model_validate({**CHAT.model_dump(), "type_": "qwen2"})


@pytest.mark.mlc
def test_mlc_reads_what_we_write() -> None:
    protocol = pytest.importorskip(
        "mlc_llm.protocol.mlc_chat_config",
        reason="MLC-LLM is not installed: no public index offers it",
        exc_type=ImportError,
    )
    theirs = protocol.MLCChatConfig(**json.loads(CHAT.to_json()))
    assert theirs.vocab_size == 300
    assert theirs.conv_template.stop_token_ids == [2]
    again = ChatConfig.parse(theirs.model_dump(by_alias=True, mode="json"), "theirs")
    assert again == CHAT
    model = pytest.importorskip("mlc_llm.model.llama.llama_model", exc_type=ImportError)
    config = model.LlamaConfig.from_dict(json.loads(CHAT.to_json())["model_config"])
    assert config.kwargs == {}
    assert LlamaConfig.parse(config.asdict(), "theirs") == ARCHITECTURE

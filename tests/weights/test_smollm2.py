"""The real model: its weights are the file's, its tokens the definition's, its prompts those of its
own chat template."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import jinja2
import numpy as np
import pytest
from tokenizers import Tokenizer

from shadowattn_tvm.config import LlamaConfig
from shadowattn_tvm.weights import (
    ModelDirectory,
    load_parameters,
    model_fingerprint,
    parameter_layout,
)
from shadowattn_tvm.weights.gguf_file import GgufFile, open_gguf

from .plain_bpe import PlainBpe
from .test_gguf_tokenizer import TEXTS
from .tiny import interleave

pytestmark = pytest.mark.model

Converted = Callable[[str], ModelDirectory]

ENGLISH = (
    "In 1687, Newton's Principia set out 3 laws of motion; they'd hold for 218 years.\n\n"
    "def f(x):\n    return x**2 + 10_000  # 4 spaces, then two\n\t\tand tabs\n"
)


@pytest.fixture(scope="module")
def file(smollm2_gguf: Path) -> GgufFile:
    return open_gguf(smollm2_gguf)


def test_architecture(smollm2_dir: Converted) -> None:
    assert smollm2_dir("q0f32").architecture == LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        num_hidden_layers=30,
        rms_norm_eps=1e-5,
        vocab_size=49152,
        tie_word_embeddings=True,
        position_embedding_base=100000,
        context_window_size=8192,
        prefill_chunk_size=256,
    )


def test_parameters_are_the_files(smollm2_dir: Converted, file: GgufFile) -> None:
    parameters = load_parameters(smollm2_dir("q0f32"), verify=True)
    assert sum(values.size for values in parameters.values()) == 134_515_008

    def stored(name: str) -> np.ndarray:
        tensor = file.tensors[name]
        return np.asarray(gguf.quants.dequantize(tensor.data, tensor.type))

    embedding = parameters["model.embed_tokens.weight"]
    np.testing.assert_array_equal(embedding[-100:], stored("token_embd.weight")[-100:])
    for layer in (0, 29):
        block, ours = f"blk.{layer}", f"model.layers.{layer}"
        q, k, v = np.split(parameters[f"{ours}.self_attn.qkv_proj.weight"], [576, 768])
        np.testing.assert_array_equal(interleave(q, 64), stored(f"{block}.attn_q.weight"))
        np.testing.assert_array_equal(interleave(k, 64), stored(f"{block}.attn_k.weight"))
        np.testing.assert_array_equal(v, stored(f"{block}.attn_v.weight"))
        gate, up = np.split(parameters[f"{ours}.mlp.gate_up_proj.weight"], 2)
        np.testing.assert_array_equal(gate, stored(f"{block}.ffn_gate.weight"))
        np.testing.assert_array_equal(up, stored(f"{block}.ffn_up.weight"))
        norm = parameters[f"{ours}.input_layernorm.weight"]
        np.testing.assert_array_equal(norm, stored(f"{block}.attn_norm.weight").reshape(-1))


def test_quantized(smollm2_dir: Converted) -> None:
    quantized = smollm2_dir("q4f32_1")
    layout = parameter_layout(quantized.architecture, "q4f32_1")
    assert sum(info.num_bytes for info in layout.values()) == 84_190_464
    assert model_fingerprint(quantized) == model_fingerprint(smollm2_dir("q0f32"))


def test_tokens_are_the_definitions(smollm2_dir: Converted, file: GgufFile) -> None:
    data = file.metadata
    merges = [tuple(merge.split(" ")) for merge in data["tokenizer.ggml.merges"]]
    ranks = {(left, right): rank for rank, (left, right) in enumerate(merges)}
    specials = [
        token
        for token, kind in zip(
            data["tokenizer.ggml.tokens"], data["tokenizer.ggml.token_type"], strict=True
        )
        if kind == 3
    ]
    assert len(specials) == 17
    plain = PlainBpe("smollm", ranks, specials)
    tokenizer = Tokenizer.from_file(str(smollm2_dir("q4f32_1").path / "tokenizer.json"))
    for text in (*TEXTS, ENGLISH, "<repo_name>x<file_sep>y<|endoftext|>"):
        encoded = tokenizer.encode(text)
        assert encoded.tokens == plain.tokens(text)
        assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == text


def test_prompts_are_its_own_chat_templates(smollm2_dir: Converted) -> None:
    directory = smollm2_dir("q4f32_1")
    template = directory.chat_config.conv_template
    own = json.loads((directory.path / "tokenizer_config.json").read_text())["chat_template"]
    expected = (
        jinja2.Environment()
        .from_string(own)
        .render(messages=[{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    )
    system = template.system_template.replace("{system_message}", template.system_message)
    user = template.roles["user"] + template.role_content_sep + "Hi" + template.seps[0]
    assert system + user + template.roles["assistant"] + template.role_empty_sep == expected
    assert template.name == "smollm2"
    assert directory.chat_config.stop_token_ids == (0, 2)

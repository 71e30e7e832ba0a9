"""The second real model: its biases and unturned rows are the file's, its tokens the definition's,
its prompts those of its own chat template, its logits the reference model's."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import gguf
import jinja2
import numpy as np
import pytest
from tokenizers import Tokenizer

from shadowattn_tvm.config import LlamaConfig, cache_dir
from shadowattn_tvm.errors import WeightsError
from shadowattn_tvm.runtime.loading import open_assistant
from shadowattn_tvm.weights import ModelDirectory, convert_weight, fetch, load_parameters
from shadowattn_tvm.weights.gguf_file import GgufFile, open_gguf

from .plain_bpe import PlainBpe
from .test_gguf_tokenizer import TEXTS

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def file() -> GgufFile:
    """Qwen2.5-Coder-0.5B-Instruct, fetched once into the user's cache."""
    try:
        return open_gguf(fetch("qwen2.5-coder-0.5b", cache_dir()))
    except WeightsError as error:
        pytest.skip(f"the second real model can't be fetched: {error}")


@pytest.fixture(scope="module")
def directory(file: GgufFile, tmp_path_factory: pytest.TempPathFactory) -> ModelDirectory:
    return convert_weight(file.path, "q4f32_1", tmp_path_factory.mktemp("qwen2.5") / "q4f32_1")


def test_architecture(directory: ModelDirectory) -> None:
    assert directory.architecture == LlamaConfig(
        hidden_size=896,
        intermediate_size=4864,
        num_attention_heads=14,
        num_key_value_heads=2,
        head_dim=64,
        num_hidden_layers=24,
        rms_norm_eps=1e-6,
        vocab_size=151936,
        position_embedding_base=1000000,
        context_window_size=32768,
        prefill_chunk_size=256,
        qkv_bias=True,
    )


def test_biases_are_the_files(directory: ModelDirectory, file: GgufFile) -> None:
    parameters = load_parameters(directory, verify=True)
    for layer in (0, 23):
        stored = [file.tensors[f"blk.{layer}.attn_{part}.bias"] for part in "qkv"]
        plain = [gguf.quants.dequantize(t.data, t.type).reshape(-1) for t in stored]
        bias = parameters[f"model.layers.{layer}.self_attn.c_attn.bias"]
        np.testing.assert_array_equal(bias, np.concatenate(plain))
        assert np.abs(bias).max() > 1.0


def test_tokens_are_the_definitions(directory: ModelDirectory, file: GgufFile) -> None:
    data = file.metadata
    merges = [tuple(merge.split(" ")) for merge in data["tokenizer.ggml.merges"]]
    ranks = {(left, right): rank for rank, (left, right) in enumerate(merges)}
    typed = zip(data["tokenizer.ggml.tokens"], data["tokenizer.ggml.token_type"], strict=True)
    plain = PlainBpe("qwen2", ranks, [token for token, kind in typed if kind in (3, 4)])
    tokenizer = Tokenizer.from_file(str(directory.path / "tokenizer.json"))
    for text in (*TEXTS, "e\u0301 and 1234", "<|fim_prefix|>x<|endoftext|>"):
        encoded = tokenizer.encode(text)
        assert encoded.tokens == plain.tokens(text)
        kept = unicodedata.normalize("NFC", text)
        assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == kept


def test_the_conversation_is_the_models_own(directory: ModelDirectory, file: GgufFile) -> None:
    chat = directory.chat_config
    assert chat.conv_template.name == "qwen2.5"
    assert chat.stop_token_ids == (151643, 151645)
    template = jinja2.Environment().from_string(file.metadata["tokenizer.chat_template"])
    said = template.render(
        messages=[{"role": "user", "content": "Hello"}], add_generation_prompt=True
    )
    system = f"<|im_start|>system\n{chat.conv_template.system_message}<|im_end|>\n"
    assert said == f"{system}<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.slow
def test_the_compiled_model_computes_the_reference(
    directory: ModelDirectory, tmp_path: Path
) -> None:
    import torch

    from shadowattn_tvm.calibrate import ReferenceModel
    from shadowattn_tvm.compiler import compile_library

    limits = "context_window_size=512;prefill_chunk_size=64"
    library = compile_library(directory, None, overrides=limits, output=tmp_path / "dense.so")
    assistant = open_assistant(directory, library.path)
    ids = assistant.tokenizer.encode("def fibonacci(n):\n    if n < 2:\n        return n\n" * 6)
    assert len(ids) > 64
    got = assistant.model.prefill(ids)
    with torch.inference_mode():
        reference = ReferenceModel.load(directory)
        hidden = reference.prefill(np.array(ids), chunk_tokens=64)
        want = reference.logits(hidden[-1:])[0].numpy()
    np.testing.assert_allclose(got, want, rtol=0, atol=5e-3)
    assert got.argmax() == want.argmax()

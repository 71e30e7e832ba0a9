"""The torch model against NumPy, against Hugging Face, and against itself in other chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from shadowattn_tvm.calibrate import ReferenceModel, dense_attention
from shadowattn_tvm.weights.dequantize import plain_parameters
from shadowattn_tvm.weights.group_quantize import quantize_q4

from . import numpy_llama
from .tiny_model import LLAMA3_SCALING, tiny_config, tiny_parameters

NUM_TOKENS = 50
IDS = np.random.default_rng(7).integers(0, 256, NUM_TOKENS)

CONFIGS = {
    "grouped heads, tied": tiny_config(),
    "grouped heads, untied": tiny_config(tie_word_embeddings=False),
    "one KV head a query head": tiny_config(num_key_value_heads=6),
    "one KV head for all": tiny_config(num_key_value_heads=1),
    "Qwen2's biases": tiny_config(qkv_bias=True),
    "Llama 3 rope scaling": tiny_config(rope_scaling=LLAMA3_SCALING),
}


def logits_of(model: ReferenceModel, chunk_tokens: int = NUM_TOKENS) -> np.ndarray:
    with torch.inference_mode():
        return model.logits(model.prefill(IDS, chunk_tokens=chunk_tokens)).numpy()


@pytest.mark.parametrize(
    "name", [name for name, config in CONFIGS.items() if config.rope_scaling is None]
)
def test_hidden_states_equal_numpy(name: str) -> None:
    config = CONFIGS[name]
    parameters = tiny_parameters(config)
    with torch.inference_mode():
        got = ReferenceModel(config, parameters).prefill(IDS, chunk_tokens=NUM_TOKENS)
    want = numpy_llama.run(config, parameters, IDS).hidden
    np.testing.assert_allclose(got.numpy(), want, atol=1e-4, rtol=1e-4)


@pytest.mark.golden
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_hugging_face(name: str) -> None:
    from tests.golden.hugging_face import hf_logits, hf_model_of_parameters

    config = CONFIGS[name]
    parameters = tiny_parameters(config)
    want = hf_logits(hf_model_of_parameters(config, parameters), IDS.tolist())
    got = logits_of(ReferenceModel(config, parameters))
    np.testing.assert_allclose(got, want.numpy(), atol=1e-4)


@pytest.mark.parametrize("chunk_tokens", [1, 7, 32])
def test_chunks_change_nothing(chunk_tokens: int) -> None:
    config = CONFIGS["Llama 3 rope scaling"]
    model = ReferenceModel(config, tiny_parameters(config))
    np.testing.assert_allclose(logits_of(model, chunk_tokens), logits_of(model), atol=1e-4)


def test_attention_sees_each_chunk_with_its_past() -> None:
    config = tiny_config()
    seen: list[tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = []

    def watch(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.append((layer, tuple(q.shape), tuple(k.shape), tuple(v.shape)))
        return dense_attention(layer, q, k, v)

    with torch.inference_mode():
        ReferenceModel(config, tiny_parameters(config)).prefill(IDS, chunk_tokens=32, attend=watch)
    first = [(i, (6, 32, 16), (2, 32, 16), (2, 32, 16)) for i in range(3)]
    last = [(i, (6, 18, 16), (2, 50, 16), (2, 50, 16)) for i in range(3)]
    assert seen == first + last


def test_what_attention_returns_is_what_the_model_goes_on_with() -> None:
    config = tiny_config()
    model = ReferenceModel(config, tiny_parameters(config))

    def nothing(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.zeros_like(q)

    with torch.inference_mode():
        blind = model.prefill(IDS, chunk_tokens=NUM_TOKENS, attend=nothing)
    # Without attention a token's state depends on the token alone.
    token_before = {int(t): i for i, t in enumerate(IDS)}
    repeated = [(i, token_before[int(t)]) for i, t in enumerate(IDS) if token_before[int(t)] != i]
    assert repeated, "expected some token twice"
    for first, second in repeated:
        torch.testing.assert_close(blind[first], blind[second])


def test_quantized_parameters_are_dequantized() -> None:
    config = tiny_config()
    stored: dict[str, np.ndarray] = {}
    for name, array in tiny_parameters(config).items():
        if array.ndim == 1:
            stored[name] = array
        else:
            stem = name.removesuffix("weight")
            stored[f"{stem}q_weight"], stored[f"{stem}q_scale"] = quantize_q4(array)
    plain = dict(plain_parameters(stored))
    np.testing.assert_array_equal(
        logits_of(ReferenceModel(config, stored)), logits_of(ReferenceModel(config, plain))
    )

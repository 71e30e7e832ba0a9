"""The golden helpers themselves: what everything else is compared with must be right."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
import transformers

from shadowattn_tvm.runtime.tokenizer import ModelTokenizer
from shadowattn_tvm.weights import ModelDirectory
from tests.calibrate.tiny_model import tiny_config, tiny_parameters

from .greedy import Divergence, GreedyRun, first_divergence, greedy
from .hugging_face import hf_logits, hf_model_of_parameters
from .prompts import conversation, conversation_ids, prompts

pytestmark = pytest.mark.golden

IDS = np.random.default_rng(5).integers(0, 256, 20).tolist()


@pytest.fixture(scope="module")
def model() -> transformers.LlamaForCausalLM:
    config = tiny_config(tie_word_embeddings=False)
    return hf_model_of_parameters(config, tiny_parameters(config))


def test_parameters_go_back_where_they_came_from(model: transformers.LlamaForCausalLM) -> None:
    parameters = tiny_parameters(tiny_config(tie_word_embeddings=False))
    attention = model.model.layers[1].self_attn
    parts = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
    fused = parameters["model.layers.1.self_attn.qkv_proj.weight"]
    np.testing.assert_array_equal(torch.cat(parts).numpy(), fused)
    assert model.dtype == torch.float32


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_loading_is_strict(change: str) -> None:
    config = tiny_config()
    parameters = tiny_parameters(config)
    if change == "missing":
        del parameters["model.norm.weight"]
    else:
        parameters["model.layers.9.input_layernorm.weight"] = parameters["model.norm.weight"]
    with pytest.raises(RuntimeError, match=f"(?i){change} key"):
        hf_model_of_parameters(config, parameters)


def test_greedy_with_its_cache_equals_starting_over_each_time(
    model: transformers.LlamaForCausalLM,
) -> None:
    run = greedy(model, IDS, 10)
    sequence = list(IDS)
    for token, logits in zip(run.tokens, run.logits, strict=True):
        want = hf_logits(model, sequence)[-1].numpy()
        np.testing.assert_allclose(logits, want, atol=1e-4)
        assert token == want.argmax()
        sequence.append(token)


def test_margins_and_divergences_are_told() -> None:
    logits = np.array([[0.0, 3.0, 2.5], [1.0, 0.0, 0.5]], np.float32)
    run = GreedyRun((1, 0), logits)
    np.testing.assert_allclose(run.margins, [0.5, 0.5])
    assert first_divergence(run, [1, 0]) is None
    assert first_divergence(run, [1, 1]) == Divergence(1, 0, 1, 1.0)
    assert str(first_divergence(run, [0, 0])).startswith("step 0: golden token 1, got 0")
    with pytest.raises(ValueError, match="shorter"):
        first_divergence(run, [1])


@pytest.mark.model
def test_prompts_cover_short_and_long(smollm2_dir: Callable[[str], ModelDirectory]) -> None:
    tokenizer = ModelTokenizer.from_directory(smollm2_dir("q0f32").path)
    num_tokens = {prompt.name: len(tokenizer.encode(prompt.text)) for prompt in prompts()}
    assert len(num_tokens) >= 4
    assert min(num_tokens.values()) < 64
    assert max(num_tokens.values()) > 1_500
    # The first turn alone fills more than one chunk of 1,024, with room for the rest in 4,096.
    first_turn = len(tokenizer.encode(conversation().question(0)))
    assert 1_024 < first_turn < 3_500
    special = tokenizer.token_id("<|im_start|>")
    assert tokenizer.encode(conversation().question(0)).count(special) == 3


def test_a_conversation_keeps_its_answers_as_history() -> None:
    turns = conversation_ids(
        conversation(), encode=lambda text: list(text.encode()), answer=lambda ids: b"An answer."
    )
    assert len(turns) == 3
    for before, after in pairwise(turns):
        assert bytes(after).startswith(bytes(before) + b"An answer.<|im_end|>\n<|im_start|>user\n")

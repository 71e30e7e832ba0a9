"""The compiled SmolLM2 against Hugging Face transformers, token for token and logit for logit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from shadowattn_tvm.config import configs_dir
from shadowattn_tvm.plan import Plan, load_plan
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.runtime.tokenizer import ModelTokenizer
from shadowattn_tvm.weights import ModelDirectory
from tests.golden.greedy import GreedyRun, first_divergence, greedy
from tests.golden.hugging_face import hf_model
from tests.golden.prompts import conversation, conversation_ids, prompts

pytestmark = [pytest.mark.model, pytest.mark.golden, pytest.mark.slow]

NUM_TOKENS = 64
MAX_LOGIT_DIFFERENCE = 1e-3
MAX_QUANTIZED_RELATIVE_DIFFERENCE = 1e-4
PLANTED_FACT = "The secret code of the lighthouse keeper is 7421."
QUESTION = "What is the secret code of the lighthouse keeper?"
MIN_FACT_PROMPT_TOKENS = 3000

Library = Callable[[str, Plan | None], Path]


@pytest.fixture(scope="module")
def directory(smollm2_dir: Callable[[str], ModelDirectory]) -> ModelDirectory:
    return smollm2_dir("q0f32")


@pytest.fixture(scope="module")
def encode(directory: ModelDirectory) -> Callable[[str], list[int]]:
    return ModelTokenizer.from_directory(directory.path).encode


@pytest.fixture(scope="module")
def golden(directory: ModelDirectory) -> Callable[[tuple[int, ...]], GreedyRun]:
    model = hf_model(directory)

    @cache
    def run(token_ids: tuple[int, ...]) -> GreedyRun:
        return greedy(model, token_ids, NUM_TOKENS)

    return run


def library_run(session: Session, token_ids: Sequence[int], num_tokens: int) -> GreedyRun:
    """Greedy tokens after `token_ids`, of which the session may hold a prefix already."""
    tokens: list[int] = []
    logits: list[NDArray[np.float32]] = [session.prefill(token_ids[session.position :])]
    while True:
        tokens.append(int(np.argmax(logits[-1])))
        if len(tokens) == num_tokens:
            return GreedyRun(tuple(tokens), np.stack(logits))
        logits.append(session.decode(tokens[-1]))


def assert_same(golden_run: GreedyRun, run: GreedyRun) -> None:
    divergence = first_divergence(golden_run, run.tokens)
    assert divergence is None, str(divergence)
    assert np.abs(golden_run.logits - run.logits).max() <= MAX_LOGIT_DIFFERENCE


@pytest.mark.parametrize("chunk_tokens", [64, 256, 1024])
def test_the_dense_library_is_hugging_face(
    chunk_tokens: int,
    directory: ModelDirectory,
    smollm2_library: Library,
    encode: Callable[[str], list[int]],
    golden: Callable[[tuple[int, ...]], GreedyRun],
) -> None:
    session = Session(directory, smollm2_library("q0f32", None), prefill_chunk_size=chunk_tokens)
    lengths = []
    for prompt in prompts():
        ids = tuple(encode(prompt.text))
        lengths.append(len(ids))
        session.reset()
        assert_same(golden(ids), library_run(session, ids, NUM_TOKENS))
    assert len(lengths) >= 4
    assert max(lengths) > 1500


def test_a_conversation_on_the_cache_is_hugging_face_on_all_of_it(
    directory: ModelDirectory,
    smollm2_library: Library,
    encode: Callable[[str], list[int]],
    golden: Callable[[tuple[int, ...]], GreedyRun],
) -> None:
    session = Session(directory, smollm2_library("q0f32", None), prefill_chunk_size=256)
    for turn in conversation_ids(conversation(), encode, lambda ids: golden(tuple(ids)).tokens):
        if session.position > 0:
            # The last answered token was picked but never read; the cache holds all before it.
            assert list(session.tokens) == turn[: session.position]
        assert_same(golden(tuple(turn)), library_run(session, turn, NUM_TOKENS))


def test_the_4_bit_library_is_hugging_face_on_the_dequantized_weights(
    smollm2_dir: Callable[[str], ModelDirectory],
    smollm2_library: Library,
    encode: Callable[[str], list[int]],
) -> None:
    directory = smollm2_dir("q4f32_1")
    ids = encode(prompts()[0].text)
    session = Session(directory, smollm2_library("q4f32_1", None))
    golden_run = greedy(hf_model(directory), ids, NUM_TOKENS)
    run = library_run(session, ids, NUM_TOKENS)
    assert_same(golden_run, run)
    relative = np.abs(run.logits - golden_run.logits).max() / np.abs(golden_run.logits).max()
    assert relative <= MAX_QUANTIZED_RELATIVE_DIFFERENCE


def everything_kept(plan: Plan) -> Plan:
    """The plan with ratio 1 in every head and no layer marked dense."""
    layers = tuple(
        layer.model_copy(
            update={
                "dense": False,
                "heads": tuple(head.model_copy(update={"keep_ratio": 1.0}) for head in layer.heads),
            }
        )
        for layer in plan.layers
    )
    return plan.model_copy(update={"layers": layers})


@pytest.fixture(scope="module")
def shipped_plan() -> Plan:
    return load_plan(configs_dir() / "plans" / "smollm2-135m-r20.json")


def test_ratio_one_gives_the_dense_tokens(
    directory: ModelDirectory,
    smollm2_library: Library,
    shipped_plan: Plan,
    encode: Callable[[str], list[int]],
    golden: Callable[[tuple[int, ...]], GreedyRun],
) -> None:
    library = smollm2_library("q0f32", everything_kept(shipped_plan))
    session = Session(directory, library, prefill_chunk_size=256)
    for prompt in (prompts()[0], prompts()[-1]):
        ids = tuple(encode(prompt.text))
        session.reset()
        assert_same(golden(ids), library_run(session, ids, NUM_TOKENS))


@pytest.fixture
def fact_prompt(encode: Callable[[str], list[int]]) -> list[int]:
    """A document of more than 3,000 tokens with one fact in it, and a question about the fact.

    The fact is at a depth where this small model, dense, finds it itself.
    """
    text = prompts()[-1].text
    document = (text * 2)[: int(len(text) * 1.1)]
    split = document.rindex(". ", 0, int(len(document) * 0.8)) + 2
    planted = f"{document[:split]}{PLANTED_FACT} {document[split:]}"
    return encode(f"<|im_start|>user\n{planted}\n\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n")


def test_a_planted_fact_is_found_through_the_shipped_plan(
    fact_prompt: list[int],
    directory: ModelDirectory,
    smollm2_library: Library,
    shipped_plan: Plan,
) -> None:
    assert len(fact_prompt) >= MIN_FACT_PROMPT_TOKENS
    library = smollm2_library("q0f32", shipped_plan)
    session = Session(directory, library, prefill_chunk_size=256)
    tokenizer = ModelTokenizer.from_directory(directory.path)
    answer = tokenizer.decode(list(library_run(session, fact_prompt, 24).tokens))
    assert "7421" in answer
    assert session.prefill_pairs.past_fraction < 0.25

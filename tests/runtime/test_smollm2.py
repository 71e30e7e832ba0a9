"""The whole runtime over a real model: SmolLM2-135M-Instruct, 4-bit, dense, greedy."""

from __future__ import annotations

import io
import signal
from dataclasses import replace

import numpy as np
import pytest

from shadowattn_tvm.runtime.assistant import Assistant
from shadowattn_tvm.runtime.chat import run_chat, run_prompt
from shadowattn_tvm.runtime.console import stream_reader
from shadowattn_tvm.runtime.loading import open_assistant
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.runtime.settings import parse_settings
from shadowattn_tvm.runtime.stats import ChatRecord

pytestmark = pytest.mark.model

TOLERANCE = {"rtol": 0, "atol": 2e-3}
"""Logits are about 20 in size; only the order of float32 additions differs between chunkings."""

TURNS = (
    "What is the capital of France?",
    "And of Italy? Answer in one word. 🙂",
    "Name a river that flows through the first city.",
)


@pytest.fixture(scope="module")
def opened(smollm2_dir, smollm2_dense_library) -> Assistant:
    return open_assistant(
        smollm2_dir("q4f32_1"), smollm2_dense_library("q4f32_1"), context_window_size=1024
    )


@pytest.fixture
def assistant(opened) -> Assistant:
    """An assistant with an empty cache that answers greedily and briefly."""
    opened.model.reset()
    greedy = opened.defaults.with_values(parse_settings("temperature=0;max_tokens=24"))
    return replace(opened, defaults=greedy)


@pytest.fixture(scope="module")
def long_prompt(opened) -> list[int]:
    """300 tokens of counting."""
    return opened.tokenizer.encode(" ".join(map(str, range(200))))[:300]


def chat(assistant: Assistant, *lines: str, out: io.StringIO | None = None) -> ChatRecord:
    script = io.BytesIO("".join(f"{line}\n" for line in lines).encode())
    shown = out or io.StringIO()
    return run_chat(assistant, read_line=stream_reader(script, shown), out=shown)


def test_the_capital_of_france(assistant):
    out = io.StringIO()
    record = run_prompt(assistant, TURNS[0], out=out)
    assert "Paris" in record.text
    assert out.getvalue() == record.text + "\n"
    assert record.finish_reason == "stop"
    assert record.stats.kept_fraction == 1.0


def test_a_chat_of_several_turns_equals_reading_each_prompt_afresh(assistant):
    record = chat(assistant, *TURNS)
    assert len(record.turns) == len(TURNS)
    for earlier, turn in zip((None, *record.turns), record.turns, strict=False):
        if earlier is not None:
            # All that was read or said before, but for the token that ended the answer.
            assert turn.stats.reused_tokens >= len(earlier.prompt_token_ids)
        assistant.model.reset()
        afresh = [e.token_id for e in assistant.answer(turn.prompt_token_ids, assistant.defaults)]
        assert afresh == list(turn.output_token_ids)


@pytest.fixture
def ctrl_c_interrupts():
    """Python's own handler: a shell has whatever it starts in the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_an_interrupted_chat_goes_on_as_if_read_afresh(assistant):
    class InterruptingOutput(io.StringIO):
        """Sends Ctrl-C to this very process while the first answer is shown."""

        def write(self, text: str) -> int:
            written = super().write(text)
            if text == " capital" and self.getvalue().count(text) == 1:
                signal.raise_signal(signal.SIGINT)
            return written

    out = InterruptingOutput()
    first, second = chat(assistant, *TURNS[:2], out=out).turns
    assert first.finish_reason == "interrupted"
    assert first.text == "The capital"
    assert "The capital [interrupted]" in out.getvalue()
    assert "assistant\nThe capital\nuser\n" in assistant.tokenizer.decode(second.prompt_token_ids)
    assert second.finish_reason != "interrupted"
    assistant.model.reset()
    afresh = [e.token_id for e in assistant.answer(second.prompt_token_ids, assistant.defaults)]
    assert afresh == list(second.output_token_ids)


def test_any_chunk_size_gives_the_same(assistant, long_prompt, smollm2_dir, smollm2_dense_library):
    whole = assistant.model.prefill(long_prompt)
    other = Session(
        smollm2_dir("q4f32_1"),
        smollm2_dense_library("q4f32_1"),
        context_window_size=512,
        prefill_chunk_size=64,
    )
    chunked = other.prefill(long_prompt)
    np.testing.assert_allclose(chunked, whole, **TOLERANCE)
    assert chunked.argmax() == whole.argmax()


def test_decoding_equals_prefilling(assistant, long_prompt):
    prefilled = assistant.model.prefill(long_prompt[:120])
    assistant.model.reset()
    assistant.model.prefill(long_prompt[:100])
    for token in long_prompt[100:120]:
        decoded = assistant.model.decode(token)
    np.testing.assert_allclose(decoded, prefilled, **TOLERANCE)


def test_what_is_taken_back_leaves_no_trace(assistant, long_prompt):
    whole = assistant.model.prefill(long_prompt)
    assistant.model.rollback(173)
    assistant.model.prefill([7] * 50)
    assistant.model.rollback(50)
    again = assistant.model.prefill(long_prompt[-173:])
    np.testing.assert_allclose(again, whole, **TOLERANCE)

"""The chat: scripted sessions over a fake model, every mistake a user can make among them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator

import pytest

from shadowattn_tvm.errors import ConfigError, ContextOverflowError
from shadowattn_tvm.runtime.chat import run_chat, run_prompt
from shadowattn_tvm.runtime.console import stream_reader
from shadowattn_tvm.runtime.messages import Message
from tests.runtime.fakes import END, FakeModel, TurnTemplate, assistant_of, speaking


def chat(model: FakeModel, script: bytes, **settings: object) -> tuple[str, object]:
    """Everything a session shows after its greeting, and its record."""
    out = io.StringIO()
    record = run_chat(
        assistant_of(model, **settings), read_line=stream_reader(io.BytesIO(script), out), out=out
    )
    return out.getvalue().partition(">>> ")[2], record


def conversation(model: FakeModel) -> str:
    return bytes(t if t < END - 1 else ord("|") for t in model.tokens).decode()


def echoing_number(history) -> int:
    """Says how many user turns the history holds, then ends."""
    text = bytes(t for t in history if t < END - 1)
    if history[-1] != ord(":"):
        return END
    return ord("0") + text.count(b"user:")


def interrupt_at(*forwards: int) -> Callable[[int, int], None]:
    """Ctrl-C in the middle of the given forward passes, counted from 0."""
    numbers: Iterator[int] = iter(range(10_000))

    def before_forward(position: int, count: int) -> None:
        if next(numbers) in forwards:
            raise KeyboardInterrupt

    return before_forward


def test_answers_stream_and_the_end_of_the_input_leaves():
    shown, record = chat(FakeModel(speaking("hi!")), b"hello\n")
    assert shown == "hi!\n>>> \n"
    assert [turn.text for turn in record.turns] == ["hi!"]


def test_the_model_sees_the_whole_conversation_and_reads_each_turn_once():
    model = FakeModel(echoing_number)
    shown, _ = chat(model, b"a\nb\nc\n/exit\nnever read\n")
    assert shown == "1\n>>> 2\n>>> 3\n>>> "
    fresh = TurnTemplate().render(
        [
            Message("user", "a"),
            Message("assistant", "1"),
            Message("user", "b"),
            Message("assistant", "2"),
            Message("user", "c"),
        ]
    )
    assert conversation(model) == (fresh.replace("<s>", "|").replace("</s>", "|") + "3")
    prefills = [f for f in model.forwarded if len(f) > 1]
    assert sum(map(len, prefills)) == len(fresh.replace("<s>", "|").replace("</s>", "|")) - 2


def test_reset_starts_a_new_conversation():
    shown, _ = chat(FakeModel(echoing_number), b"a\nb\n/reset\nc\n")
    assert shown == "1\n>>> 2\n>>> a new conversation\n>>> 1\n>>> \n"


def test_a_system_message_opens_every_conversation():
    out, model = io.StringIO(), FakeModel(echoing_number)
    script = io.BytesIO(b"a\n/reset\nb\n")
    run_chat(assistant_of(model), system="Be brief.", read_line=stream_reader(script, out), out=out)
    assert conversation(model).startswith("|system:Be brief.||user:b|")


def test_set_changes_what_follows_and_mistakes_change_nothing():
    shown, _ = chat(
        FakeModel(speaking("abcdef")),
        b"/set max_tokens=2\nx\n/set max_tokens=3;top_p=7\n/set warmth=1\nx\n/set\n",
    )
    assert shown.count("ab [the answer reached max_tokens]\n") == 2
    assert "error: expected top_p between 0 and 1, got 7.0" in shown
    assert "'warmth=1'" in shown
    assert re.search(r"max_tokens=2;stop=\n>>> \n$", shown)


def test_stats_and_metrics():
    shown, _ = chat(FakeModel(speaking("abc")), b"/stats\nx\n/stats\n/metrics\n")
    assert shown.startswith("no answer yet\n")
    assert re.search(r"prefill: [\d.]+ tok/s, decode: [\d.]+ tok/s, first token: \d+ ms", shown)
    assert "kept: 100.0% of the past, 100.0% of all pairs" in shown
    assert ">>> answers_total 1\n" in shown
    assert "\noutput_tokens_total 4\n" in shown
    assert re.search(r"\npeak_memory_bytes \d{7,}\n", shown)


def test_help_and_unknown_commands_and_paths():
    shown, _ = chat(FakeModel(speaking("ok")), b"/help\n/halp\n/usr/bin?\n\n   \n")
    assert "/metrics" in shown.partition(">>> ")[0]
    assert "unknown command /halp; /help lists them" in shown
    assert shown.endswith(">>> ok\n>>> >>> >>> \n")


def test_a_backslash_continues_the_message():
    model = FakeModel(speaking("ok"))
    chat(model, b"one\\\ntwo\n")
    assert "user:one\ntwo|" in conversation(model)


def test_an_interrupted_answer_stays_as_far_as_it_was_shown():
    # Forward 0 is the prefill, so three tokens are shown before forward 3 is torn.
    model = FakeModel(speaking("abcdef"), before_forward=interrupt_at(3))
    shown, record = chat(model, b"x\ny\n")
    assert shown == "abc [interrupted]\n>>> abcdef\n>>> \n"
    assert [t.finish_reason for t in record.turns] == ["interrupted", "stop"]
    assert "user:x||assistant:abc||user:y|" in conversation(model)


def test_an_interrupt_before_the_first_token_drops_the_turn():
    model = FakeModel(speaking("abc"), before_forward=interrupt_at(0))
    shown, record = chat(model, b"x\ny\n")
    assert shown == " [interrupted]\n>>> abc\n>>> \n"
    assert len(record.turns) == 1
    assert "user:x" not in conversation(model)


def test_an_interrupt_before_anything_is_shown_drops_the_turn():
    # The first token is the first of three bytes of a character.
    model = FakeModel(speaking("€"), before_forward=interrupt_at(1))
    shown, _ = chat(model, b"x\ny\n")
    assert shown == " [interrupted]\n>>> €\n>>> \n"
    assert "user:x" not in conversation(model)


def test_an_interrupt_at_the_prompt_does_not_leave():
    lines = iter([KeyboardInterrupt(), "x", EOFError()])

    def read_line(prompt: str) -> str:
        line = next(lines)
        if isinstance(line, BaseException):
            raise line
        return line

    out = io.StringIO()
    record = run_chat(assistant_of(FakeModel(speaking("ok"))), read_line=read_line, out=out)
    assert "/exit" in out.getvalue()
    assert len(record.turns) == 1


def test_overflow_is_explained_and_the_chat_goes_on():
    model = FakeModel(echoing_number, context_window_tokens=60)
    shown, record = chat(model, b"a\n" + b"b" * 60 + b"\nc\n/reset\nd\n")
    assert re.search(r"error: .* \d+ tokens, .* 60; .*\n\(/reset starts a new conv", shown)
    # The turn that did not fit is not part of the conversation: the next is the second.
    assert [t.text for t in record.turns] == ["1", "2", "1"]


def test_a_full_window_ends_the_answer_and_says_so():
    model = FakeModel(speaking("abcdef"), context_window_tokens=22)
    shown, record = chat(model, b"x\ny\n")
    assert " [the answer reached the context window]\n" in shown
    assert record.turns[0].finish_reason == "length"
    assert "error: the prompt has" in shown


def test_bytes_that_are_not_utf8_are_explained_and_the_chat_goes_on():
    model = FakeModel(echoing_number)
    shown, _ = chat(model, b"\xff\xfe oops\na\n")
    assert "error: expected a line of UTF-8 text" in shown
    assert shown.endswith(">>> 1\n>>> \n")


def test_a_template_that_refuses_is_explained_and_the_chat_goes_on():
    shown, _ = chat(FakeModel(echoing_number), b"unrenderable\na\n")
    assert "error: the template refuses this message\n" in shown
    assert shown.endswith(">>> 1\n>>> \n")


def test_an_answer_without_text_is_still_an_answer():
    model = FakeModel(lambda history: END)
    shown, record = chat(model, b"x\ny\n")
    assert shown == "\n>>> \n>>> \n"
    assert "user:x||assistant:||user:y|" in conversation(model)
    assert [t.text for t in record.turns] == ["", ""]


def test_one_prompt():
    out = io.StringIO()
    model = FakeModel(speaking("Paris"))
    record = run_prompt(assistant_of(model), "capital?", system="Be brief.", out=out)
    assert out.getvalue() == "Paris\n"
    assert record.text == "Paris"
    assert record.output_token_ids == (*b"Paris", END)
    assert conversation(model) == "|system:Be brief.||user:capital?||assistant:Paris"


def test_one_prompt_lets_mistakes_and_interrupts_through():
    with pytest.raises(ContextOverflowError):
        run_prompt(assistant_of(FakeModel(speaking("x"), 5)), "long", out=io.StringIO())
    with pytest.raises(ConfigError):
        run_prompt(assistant_of(FakeModel(speaking("x"))), "unrenderable", out=io.StringIO())
    torn = FakeModel(speaking("abc"), before_forward=interrupt_at(2))
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        run_prompt(assistant_of(torn), "x", out=out)
    assert out.getvalue() == "ab"

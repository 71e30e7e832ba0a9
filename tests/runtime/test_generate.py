"""The loop: where it ends, what it reuses, what it leaves behind."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowattn_tvm.errors import ConfigError, ContextOverflowError
from shadowattn_tvm.runtime.generate import common_prefix_tokens, generate, read_prompt
from shadowattn_tvm.runtime.sampling import SamplingParams
from shadowattn_tvm.runtime.stop import StopConditions
from tests.runtime.fakes import END, ByteTokenizer, FakeModel, logits_of, speaking

GREEDY = SamplingParams(temperature=0.0)
PROMPT = ByteTokenizer().encode("<s>user:hello</s><s>assistant:")


def run(model, prompt=PROMPT, sampling=GREEDY, **stop):
    conditions = StopConditions(**{"token_ids": frozenset({END}), **stop})
    return list(generate(model, ByteTokenizer(), prompt, sampling, conditions))


def text_of(events):
    return "".join(event.text for event in events)


def test_a_stop_token_ends_the_answer_and_adds_no_text():
    model = FakeModel(speaking("grüß dich"))
    events = run(model)
    assert text_of(events) == "grüß dich"
    assert [e.finish_reason for e in events] == [None] * (len(events) - 1) + ["stop"]
    assert events[-1].token_id == END
    assert [e.index for e in events] == list(range(len(events)))
    # The last token was not fed back.
    assert list(model.tokens) == [*PROMPT, *"grüß dich".encode()]


def test_max_tokens_ends_the_answer():
    events = run(FakeModel(speaking("endless")), max_tokens=3)
    assert (text_of(events), events[-1].finish_reason) == ("end", "length")


def test_a_stop_string_ends_the_answer_before_itself():
    events = run(FakeModel(speaking("one, two, three")), strings=(", t",))
    assert (text_of(events), events[-1].finish_reason) == ("one", "stop")


def test_text_held_back_for_a_stop_string_comes_with_the_end():
    events = run(FakeModel(speaking("abc")), strings=("cd",))
    assert (text_of(events), events[-1].text) == ("abc", "c")


def test_a_character_cut_by_max_tokens_is_shown_as_broken_only_at_the_end():
    events = run(FakeModel(speaking("€")), max_tokens=2)
    assert [e.text for e in events] == ["", "\N{REPLACEMENT CHARACTER}"]


def test_the_context_window_ends_the_answer():
    window = len(PROMPT) + 4
    model = FakeModel(speaking("endless"), context_window_tokens=window)
    events = run(model)
    # The fifth token needs no room: it is not fed back.
    assert (text_of(events), events[-1].finish_reason) == ("endle", "length")
    assert model.position == window


def test_a_prompt_that_fills_the_window_still_gets_one_token():
    model = FakeModel(speaking("endless"), context_window_tokens=len(PROMPT))
    assert text_of(run(model)) == "e"


def test_a_prompt_that_is_too_long_is_refused_with_the_cache_untouched():
    model = FakeModel(speaking("x"), context_window_tokens=len(PROMPT) - 1)
    model.prefill(PROMPT[:5])
    before = model.tokens
    with pytest.raises(ContextOverflowError, match=rf"{len(PROMPT)} tokens.* {len(PROMPT) - 1}"):
        run(model)
    assert model.tokens == before


def test_an_empty_prompt_is_refused():
    with pytest.raises(ConfigError, match="at least one token"):
        run(FakeModel(speaking("x")), prompt=[])


def test_seeds_repeat_and_differ():
    def sampled(seed):
        sampling = SamplingParams(temperature=1.0, seed=seed)
        return [e.token_id for e in run(FakeModel(speaking("x")), sampling=sampling, max_tokens=9)]

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_times_are_counted_from_the_call_in_milliseconds():
    ticks = count()
    stop = StopConditions(token_ids=frozenset({END}))
    events = list(
        generate(
            FakeModel(speaking("ab")), ByteTokenizer(), PROMPT, GREEDY, stop, lambda: next(ticks)
        )
    )
    # One reading at the call, one after the prefill, one per token.
    assert events[0].prefill.duration_ms == 1000.0
    assert [e.elapsed_ms for e in events] == [2000.0, 3000.0, 4000.0]


tokens = st.lists(st.integers(0, 3), min_size=1, max_size=12)


@settings(deadline=None, max_examples=200)
@given(tokens, tokens)
def test_reading_over_any_cache_equals_reading_afresh(cached, prompt):
    model = FakeModel(sum_of_history)
    model.prefill(cached)
    logits, reused = read_prompt(model, prompt)
    assert list(model.tokens) == prompt
    assert (logits == logits_of(prompt, sum_of_history(prompt))).all()
    assert model.forwarded[1:] == [tuple(prompt[reused:])]
    assert reused == min(common_prefix_tokens(cached, prompt), len(prompt) - 1)


@settings(deadline=None, max_examples=100)
@given(st.lists(tokens, min_size=1, max_size=4))
def test_a_growing_prompt_prefills_each_token_once(turns):
    model, prompt = FakeModel(sum_of_history), []
    for turn in turns:
        prompt = [*prompt, *turn]
        read_prompt(model, prompt)
    assert [list(f) for f in model.forwarded] == turns


def test_the_common_prefix():
    assert common_prefix_tokens([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix_tokens([1, 2], [1, 2, 3]) == 2
    assert common_prefix_tokens([], [1]) == 0


def sum_of_history(history):
    return sum(history) % 250

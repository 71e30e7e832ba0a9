"""Stop strings: nothing of one is ever shown, everything before it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.runtime.stop import StopConditions, StopStringFilter


def pass_through(pieces: list[str], *strings: str) -> tuple[str, bool]:
    visible = StopStringFilter(strings)
    shown = ""
    for piece in pieces:
        shown += visible.push(piece)
        if visible.found:
            return shown, True
    return shown + visible.flush(), False


@settings(deadline=None, max_examples=300)
@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_the_text_ends_before_the_first_completed_stop_string(text, strings):
    shown, found = pass_through(list(text), *strings)
    ends = [i for i in range(len(text) + 1) if any(text[:i].endswith(s) for s in strings)]
    if not ends:
        assert (shown, found) == (text, False)
    else:
        completed = text[: ends[0]]
        longest = max(len(s) for s in strings if completed.endswith(s))
        assert (shown, found) == (completed[:-longest], True)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text("ab", max_size=4)), st.text("ab", min_size=1, max_size=4))
def test_pieces_of_any_size_show_the_same(pieces, string):
    assert pass_through(pieces, string) == pass_through(list("".join(pieces)), string)


def test_the_beginning_of_a_stop_string_is_shown_once_it_turns_out_not_to_be_one():
    visible = StopStringFilter(("STOP",))
    assert [visible.push(c) for c in "aSTOx"] == ["a", "", "", "", "STOx"]


def test_without_stop_strings_text_passes_at_once():
    assert StopStringFilter(()).push("anything") == "anything"


@pytest.mark.parametrize("wrong", [{"max_tokens": 0}, {"max_tokens": -3}, {"strings": ("a", "")}])
def test_conditions_that_cannot_end_an_answer_are_refused(wrong):
    with pytest.raises(ConfigError, match="expected"):
        StopConditions(**wrong)

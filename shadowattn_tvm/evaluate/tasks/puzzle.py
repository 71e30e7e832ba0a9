"""A question whose answer lies in the prompt, among facts that look the same."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Puzzle:
    """Facts to hide in a text, and a question about one of them.

    Attributes
    ----------
    facts : sentences; the first is asked about, the others are distractors of the same form.
    question : the end of the prompt, to be completed.
    answer : the completion, without the space before it.
    """

    facts: tuple[str, ...]
    question: str
    answer: str

"""Answers are read off the prefill itself, and counted by length and depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from shadowattn_tvm.evaluate.tasks.haystack import HaystackPrompt
from shadowattn_tvm.evaluate.tasks.retrieval import PromptOutcome, answered, summarize

VOCABULARY = 11


class Scripted:
    """A session whose first choice after each position is given; notes how it was used."""

    prefill_chunk_tokens = 4

    def __init__(self, choices: Sequence[int]) -> None:
        self.choices = list(choices)
        self.position = 7  # left over from whoever used it before
        self.plain: list[int] = []

    def reset(self) -> None:
        self.position = 0

    def prefill(self, token_ids: Sequence[int]) -> None:
        self.plain.append(len(token_ids))
        self.position += len(token_ids)

    def prefill_every_position(
        self, token_ids: Sequence[int], consume: Callable[[Sequence[int], np.ndarray], None]
    ) -> None:
        for begin in range(0, len(token_ids), 3):
            rows = range(begin, min(begin + 3, len(token_ids)))
            logits = np.zeros((len(rows), VOCABULARY), np.float32)
            for row, logit in zip(rows, logits, strict=True):
                logit[self.choices[self.position + row]] = 1.0
            consume(rows, logits)
        self.position += len(token_ids)


def _prompt(length: int, answer_start: int) -> HaystackPrompt:
    ids = np.arange(length, dtype=np.int64) % VOCABULARY
    return HaystackPrompt("text", "0" * 64, 0.5, ids, answer_start)


@pytest.mark.parametrize(("length", "answer_start"), [(10, 8), (9, 8), (12, 5), (3, 1)])
def test_every_token_of_the_answer_must_be_the_first_choice(length: int, answer_start: int) -> None:
    prompt = _prompt(length, answer_start)
    following = [*prompt.token_ids[1:].tolist(), 0]
    only_the_answer = [
        token if answer_start - 1 <= position < length - 1 else 10 - token
        for position, token in enumerate(following)
    ]
    assert answered(Scripted(only_the_answer), prompt)  # type: ignore[arg-type]
    for position in range(answer_start - 1, length - 1):
        wrong = following.copy()
        wrong[position] = (wrong[position] + 1) % VOCABULARY
        assert not answered(Scripted(wrong), prompt)  # type: ignore[arg-type]


def test_whole_chunks_before_the_answer_go_without_logits() -> None:
    prompt = _prompt(10, 9)
    session = Scripted([*prompt.token_ids[1:].tolist(), 0])
    assert answered(session, prompt)  # type: ignore[arg-type]
    assert session.plain == [8]
    assert session.position == 0


def _outcome(length: int, depth: float, **answers: bool) -> PromptOutcome:
    return PromptOutcome(
        document="text", document_sha256="0" * 64, length_tokens=length, depth=depth, **answers
    )


def test_cells_and_totals_are_counted() -> None:
    outcomes = [
        _outcome(2048, 0.1, dense=True, shadow=True, recency=False),
        _outcome(1024, 0.5, dense=True, shadow=False, recency=False),
        _outcome(2048, 0.1, dense=True, shadow=False, recency=False),
        _outcome(1024, 0.1, dense=False, shadow=True, recency=True),
    ]
    result = summarize(outcomes, recency_ratio=0.2)
    assert [(cell.length_tokens, cell.depth, cell.prompts) for cell in result.cells] == [
        (1024, 0.1, 1),
        (1024, 0.5, 1),
        (2048, 0.1, 2),
    ]
    assert [(cell.dense, cell.shadow, cell.recency) for cell in result.cells] == [
        (0.0, 1.0, 1.0),
        (1.0, 0.0, 0.0),
        (1.0, 0.5, 0.0),
    ]
    assert (result.dense, result.shadow, result.recency) == (0.75, 0.5, 0.25)
    assert result.prompts == tuple(outcomes)

"""Prompts: their length, where the facts are, that documents take turns, what is refused."""

from __future__ import annotations

import random

import numpy as np
import pytest

from shadowattn_tvm.corpora import Document
from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.evaluate.tasks.haystack import (
    DEPTHS,
    HaystackPrompt,
    haystack_prompts,
    hide,
    lengths_up_to,
)
from shadowattn_tvm.evaluate.tasks.needle import needle_puzzle
from shadowattn_tvm.evaluate.tasks.passkey import passkey_puzzle
from shadowattn_tvm.evaluate.tasks.puzzle import Puzzle

PUZZLE = Puzzle(("A is 1.", "B is 2.", "C is 3."), "A is", "1")


class Bytes:
    """A token is a byte."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


def _documents(count: int, characters: int = 3000) -> list[Document]:
    return [Document(f"doc{i}", chr(ord("a") + i) * characters) for i in range(count)]


def _text(prompt: HaystackPrompt) -> str:
    return bytes(prompt.token_ids.tolist()).decode()


def _prompts(**changes: object) -> tuple[HaystackPrompt, ...]:
    arguments = {
        "lengths_tokens": (1024, 2048),
        "num_prompts": 23,
        "seed": 5,
        "min_documents": 3,
    }
    return haystack_prompts(_documents(3), Bytes(), passkey_puzzle, **arguments | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_a_prompt_has_prefix_facts_question_and_answer(depth: float) -> None:
    text = [ord(".")] * 200
    prompt = hide(
        PUZZLE, _documents(1)[0], text, Bytes(), random.Random(0), depth=depth, prefix_ids=b"<>"
    )
    shown = _text(prompt)
    assert prompt.length_tokens == 200
    assert shown.startswith("<>")
    assert shown[: prompt.answer_start].endswith("\n\nA is")
    assert shown[prompt.answer_start :] == " 1"
    assert all(shown.count(f"\n\n{fact}\n\n") == 1 for fact in PUZZLE.facts)
    before = shown[: shown.index("\n\nA is 1.")].count(".") - sum(
        fact in shown[: shown.index("A is 1.")] for fact in PUZZLE.facts[1:]
    )
    filler = 200 - 2 - 3 * len("\n\nA is 1.\n\n") - len("\n\nA is") - len(" 1")
    assert before == int(depth * filler)


def test_distractors_are_spread_over_the_text() -> None:
    for seed in range(20):
        shown = _text(
            hide(PUZZLE, _documents(1)[0], [46] * 400, Bytes(), random.Random(seed), depth=0.5)
        )
        middle = shown.index("A is 1.")
        assert shown.index("B is 2.") < middle < shown.index("C is 3.")


def test_a_prompt_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="longer --context"):
        hide(PUZZLE, _documents(1)[0], [46] * 60, Bytes(), random.Random(0), depth=0.5)


def test_every_cell_has_as_many_prompts_and_documents_take_turns() -> None:
    prompts = _prompts()
    cells = {(length, depth): 0 for length in (1024, 2048) for depth in DEPTHS}
    for prompt in prompts:
        cells[prompt.length_tokens, prompt.depth] += 1
        filler = prompt.document_sha256
        assert filler in {document.sha256 for document in _documents(3)}
        assert chr(ord("a") + int(prompt.document[-1])) * 30 in _text(prompt)
    assert set(cells.values()) == {3}  # 23 prompts were asked for, 10 cells
    by_document = [sum(p.document == f"doc{i}" for p in prompts) for i in range(3)]
    assert max(by_document) - min(by_document) <= 1
    at_a_depth = {p.document for p in prompts if p.depth == DEPTHS[0]}
    assert len(at_a_depth) == 3


def test_prompts_differ_and_are_the_same_for_the_same_seed() -> None:
    first, again, other = _prompts(), _prompts(), _prompts(seed=6)
    assert len({tuple(p.token_ids) for p in first}) == len(first)
    assert all(np.array_equal(a.token_ids, b.token_ids) for a, b in zip(first, again, strict=True))
    assert not any(
        np.array_equal(a.token_ids, b.token_ids) for a, b in zip(first, other, strict=True)
    )


def test_too_few_long_documents_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"at least 3 documents of 2048 tokens.*got 2 of 3"):
        haystack_prompts(
            [*_documents(2), Document("short", "x" * 2047)],
            Bytes(),
            passkey_puzzle,
            lengths_tokens=(1024, 2048),
            num_prompts=1,
            seed=0,
            min_documents=3,
        )


def test_lengths_double_up_to_the_context() -> None:
    assert lengths_up_to(1024) == (1024,)
    assert lengths_up_to(5000) == (1024, 2048, 4096)
    with pytest.raises(ConfigError, match="at least 1024 tokens"):
        lengths_up_to(1023)


@pytest.mark.parametrize("make", [passkey_puzzle, needle_puzzle])
def test_only_one_fact_answers_the_question(make) -> None:  # type: ignore[no-untyped-def]
    for seed in range(30):
        puzzle = make(random.Random(seed))
        answers = [fact for fact in puzzle.facts if puzzle.answer in fact]
        assert answers == [puzzle.facts[0]]
        assert puzzle.facts[0].startswith(f"{puzzle.question} {puzzle.answer}")
        assert [fact for fact in puzzle.facts if fact.startswith(puzzle.question)] == answers
        assert len(set(puzzle.facts)) == len(puzzle.facts) >= 3

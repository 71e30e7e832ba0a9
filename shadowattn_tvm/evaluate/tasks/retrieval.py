"""Finding a fact in a long prompt: dense, shadowAttn and a control that sees recent keys only.

An answer counts when every token of it is the model's first choice, given the tokens before it.
The answer is part of the prefill, so the kernel under test itself must find the fact: nothing is
left to decode steps, which are dense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from ...compiler.kernel_parameters import shadow_spec
from ...runtime.session import LogitRows, Session
from ..baselines import RecencyOnly, with_uniform_ratio
from ..context import EvaluationContext
from ..document import Count, FiniteFloat, Fraction, TaskResult
from .haystack import HaystackPrompt, PuzzleMaker, haystack_prompts, lengths_up_to

DENSE, SHADOW, RECENCY = "dense", "shadow", "recency"


class PromptOutcome(TaskResult):
    """One prompt: which methods answered it. `depth`: where its fact was, 0 = at the start."""

    document: str
    document_sha256: str
    length_tokens: Count
    depth: FiniteFloat
    dense: bool
    shadow: bool
    recency: bool


class RetrievalCell(TaskResult):
    """The prompts of one length and depth: the part of them that each method answered."""

    length_tokens: Count
    depth: FiniteFloat
    prompts: Count
    dense: Fraction
    shadow: Fraction
    recency: Fraction


class RetrievalResult(TaskResult):
    """Exact answers over all prompts, by cell, and prompt by prompt.

    `recency` is the control: every head of every layer sees its chunk and the newest
    `recency_ratio` of the past, the plan's budget spent without looking.
    """

    dense: Fraction
    shadow: Fraction
    recency: Fraction
    recency_ratio: Fraction
    cells: Annotated[tuple[RetrievalCell, ...], Field(strict=False)]
    prompts: Annotated[tuple[PromptOutcome, ...], Field(strict=False)]


def run_retrieval(
    context: EvaluationContext, name: str, make_puzzle: PuzzleMaker
) -> RetrievalResult:
    """Ask every method the same prompts, at least `settings.num_windows` of them.

    Raises `ConfigError` for a context or documents too short to hide facts in.
    """
    settings = context.settings
    prompts = haystack_prompts(
        context.documents,
        context.tokenizer,
        make_puzzle,
        lengths_tokens=lengths_up_to(settings.context_tokens),
        num_prompts=max(settings.num_windows, settings.min_windows),
        seed=settings.seed,
        prefix_ids=context.prefix_ids,
        min_documents=settings.min_documents,
    )
    control = context.open_model()
    ratio = context.plan.past_fraction
    spec = shadow_spec(context.plan, context.architecture)
    control.use(RecencyOnly(with_uniform_ratio(spec, ratio)))
    sessions = {DENSE: context.dense, SHADOW: context.shadow, RECENCY: control.session}
    outcomes = []
    for number, prompt in enumerate(prompts):
        context.progress(name, number, len(prompts))
        outcomes.append(_outcome(prompt, sessions))
    context.progress(name, len(prompts), len(prompts))
    return summarize(outcomes, recency_ratio=ratio)


def summarize(outcomes: Sequence[PromptOutcome], *, recency_ratio: float) -> RetrievalResult:
    """Prompt by prompt, by cell (shortest and shallowest first), and over all."""
    by_cell: dict[tuple[int, float], list[PromptOutcome]] = {}
    for outcome in outcomes:
        by_cell.setdefault((outcome.length_tokens, outcome.depth), []).append(outcome)
    cells = tuple(
        RetrievalCell(
            length_tokens=length, depth=depth, prompts=len(members), **_fractions(members)
        )
        for (length, depth), members in sorted(by_cell.items())
    )
    return RetrievalResult(
        recency_ratio=recency_ratio, cells=cells, prompts=tuple(outcomes), **_fractions(outcomes)
    )


def answered(session: Session, prompt: HaystackPrompt) -> bool:
    """Whether each token of the answer is the likeliest (ties: the lower id) after what precedes
    it, in one prefill of the whole prompt."""
    token_ids = prompt.token_ids.tolist()
    # Logits are needed from the token before the answer on: whole chunks before it go without.
    head = (prompt.answer_start - 1) // session.prefill_chunk_tokens * session.prefill_chunk_tokens
    predicted = np.full(len(token_ids) - head, -1, np.int64)

    def consume(positions: Sequence[int], logits: LogitRows) -> None:
        predicted[positions[0] : positions[-1] + 1] = logits.argmax(axis=1)

    session.reset()
    if head:
        session.prefill(token_ids[:head])
    session.prefill_every_position(token_ids[head:], consume)
    session.reset()
    answer = prompt.token_ids[prompt.answer_start :]
    first = prompt.answer_start - 1 - head
    return bool((predicted[first : first + len(answer)] == answer).all())


def _outcome(prompt: HaystackPrompt, sessions: Mapping[str, Session]) -> PromptOutcome:
    return PromptOutcome(
        document=prompt.document,
        document_sha256=prompt.document_sha256,
        length_tokens=prompt.length_tokens,
        depth=prompt.depth,
        **{method: answered(session, prompt) for method, session in sessions.items()},
    )


def _fractions(outcomes: Sequence[PromptOutcome]) -> dict[str, float]:
    return {
        method: sum(getattr(outcome, method) for outcome in outcomes) / len(outcomes)
        for method in (DENSE, SHADOW, RECENCY)
    }

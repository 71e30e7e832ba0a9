"""Agreement of continuations: dense writes greedily, shadowAttn is asked for the same tokens.

The prompt is prefilled, sparse in the one library and dense in the other; the tokens after it are
decoded, which is dense in both. What differs is what sparse prefill left in the KV cache.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...corpora import Window
from ...errors import ConfigError, LibraryError
from ...runtime.scoring import log_softmax
from ...runtime.session import Session
from ..context import EvaluationContext
from ..document import Count, FiniteFloat, Fraction, Interval, TaskResult
from ..statistics import bootstrap_interval


class Continuation(TaskResult):
    """One window: its first `prompt_tokens` tokens were the prompt.

    `kl_nats`: mean KL divergence of shadowAttn's next-token distribution from dense's;
    `greedy_match`: the part of positions at which both have the same likeliest token.
    """

    document: str
    document_sha256: str
    start_token: Count
    prompt_tokens: Count
    kl_nats: FiniteFloat
    greedy_match: Fraction


class AgreementResult(TaskResult):
    """Means over windows, with bootstrap intervals over windows."""

    kl_nats: FiniteFloat
    kl_ci95_nats: Interval
    greedy_match: Fraction
    greedy_match_ci95: Interval
    continuation_tokens: Count
    windows: Annotated[tuple[Continuation, ...], Field(strict=False)]


def run_agreement(context: EvaluationContext) -> AgreementResult:
    """Continue every window by `settings.continuation_tokens`, which are taken off its end so that
    the context isn't exceeded. Raises `ConfigError` if no past is left to thin out."""
    settings = context.settings
    prompt_tokens = settings.context_tokens - settings.continuation_tokens
    if prompt_tokens <= settings.prefill_chunk_tokens:
        raise ConfigError(
            f"agreement: expected a context longer than a prefill chunk of "
            f"{settings.prefill_chunk_tokens} and a continuation of "
            f"{settings.continuation_tokens} tokens, got {settings.context_tokens}"
        )
    total = len(context.windows)
    windows = []
    for done, window in enumerate(context.windows):
        context.progress("agreement", done, total)
        windows.append(_continue(context, window, prompt_tokens))
    context.progress("agreement", total, total)
    divergences = [window.kl_nats for window in windows]
    matches = [window.greedy_match for window in windows]
    return AgreementResult(
        kl_nats=float(np.mean(divergences)),
        kl_ci95_nats=bootstrap_interval(divergences),
        greedy_match=float(np.mean(matches)),
        greedy_match_ci95=bootstrap_interval(matches),
        continuation_tokens=settings.continuation_tokens,
        windows=tuple(windows),
    )


def _continue(context: EvaluationContext, window: Window, prompt_tokens: int) -> Continuation:
    prompt = window.token_ids[:prompt_tokens].tolist()
    count = context.settings.continuation_tokens
    dense, tokens = greedy_continuation(context.dense, prompt, count)
    shadow = forced_continuation(context.shadow, prompt, tokens)
    return Continuation(
        document=window.document,
        document_sha256=window.document_sha256,
        start_token=window.start_token,
        prompt_tokens=prompt_tokens,
        kl_nats=kl_divergence(dense, shadow),
        greedy_match=float((dense.argmax(axis=1) == shadow.argmax(axis=1)).mean()),
    )


def greedy_continuation(
    session: Session, prompt: list[int], num_tokens: int
) -> tuple[NDArray[np.float64], list[int]]:
    """The likeliest tokens one after the other, and the log-probabilities (num_tokens, vocab) each
    was chosen from. End-of-text tokens are tokens like any other."""
    session.reset()
    rows = [session.prefill(prompt)]
    tokens = [int(rows[0].argmax())]
    while len(tokens) < num_tokens:
        rows.append(session.decode(tokens[-1]))
        tokens.append(int(rows[-1].argmax()))
    session.reset()
    return log_softmax(np.stack(rows)), tokens


def forced_continuation(
    session: Session, prompt: list[int], tokens: list[int]
) -> NDArray[np.float64]:
    """Log-probabilities (tokens, vocab) before each of `tokens`."""
    session.reset()
    rows = [session.prefill(prompt)]
    rows += [session.decode(token) for token in tokens[:-1]]
    session.reset()
    return log_softmax(np.stack(rows))


def kl_divergence(dense: NDArray[np.float64], shadow: NDArray[np.float64]) -> float:
    """Mean over rows of KL(dense || shadow) in nats, from log-probabilities (rows, vocab).

    Raises `LibraryError` if they aren't finite.
    """
    divergence = float((np.exp(dense) * (dense - shadow)).sum(axis=1).mean())
    if not np.isfinite(divergence):
        raise LibraryError(
            "expected finite logits, got NaN or infinities; the weights or the library are corrupt"
        )
    return max(divergence, 0.0)  # rounding can take a divergence of nothing below zero

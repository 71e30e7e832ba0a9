"""Perplexity of held-out windows, prefilled by the dense library and by shadowAttn's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from ...corpora import Window
from ...runtime.scoring import score_tokens
from ...runtime.session import Session
from ..context import EvaluationContext
from ..document import Count, FiniteFloat, Interval, TaskResult
from ..statistics import relative_interval, relative_percent


class WindowScore(TaskResult):
    """One window: `start_token` counts the document's own tokens, `tokens` includes the prefix.

    nll: mean negative log-likelihood, nats per predicted token. Predicted are the document's
    tokens, except the first where no prefix precedes it.
    """

    document: str
    document_sha256: str
    start_token: Count
    tokens: Count
    nll_dense: FiniteFloat
    nll_shadow: FiniteFloat


class PplResult(TaskResult):
    """Perplexities (exp of the mean over windows) and by how much shadowAttn's is higher.

    `relative_percent` is 100 * (exp(mean over windows of nll_shadow - nll_dense) - 1); its interval
    is a bootstrap over windows. `prefix_token_ids` precede the document's tokens in every window.
    """

    dense: FiniteFloat
    shadow: FiniteFloat
    relative_percent: FiniteFloat
    ci95_percent: Interval
    prefix_token_ids: Annotated[tuple[int, ...], Field(strict=False)]
    windows: Annotated[tuple[WindowScore, ...], Field(strict=False)]


def run_ppl(context: EvaluationContext) -> PplResult:
    """Score every window with both libraries."""
    total = len(context.windows)
    scores = []
    for done, window in enumerate(context.windows):
        context.progress("ppl", done, total)
        dense, shadow = (window_nll(session, window) for session in (context.dense, context.shadow))
        scores.append(
            WindowScore(
                document=window.document,
                document_sha256=window.document_sha256,
                start_token=window.start_token,
                tokens=len(window.token_ids),
                nll_dense=dense,
                nll_shadow=shadow,
            )
        )
    context.progress("ppl", total, total)
    return summarize(scores, context.prefix_ids)


def window_nll(session: Session, window: Window) -> float:
    """Mean nats per predicted token of a window; of its prefix only what predicts the text."""
    scores = score_tokens(session, window.token_ids.tolist())
    predicted = scores.log_probabilities[max(window.prefix_tokens - 1, 0) :]
    return float(-predicted.mean())


def summarize(windows: Sequence[WindowScore], prefix_ids: Sequence[int]) -> PplResult:
    """The figures over windows. Raises `ConfigError` without any."""
    differences = [window.nll_shadow - window.nll_dense for window in windows]
    interval = relative_interval(differences)
    return PplResult(
        dense=float(np.exp(np.mean([window.nll_dense for window in windows]))),
        shadow=float(np.exp(np.mean([window.nll_shadow for window in windows]))),
        relative_percent=relative_percent(differences),
        ci95_percent=interval,
        prefix_token_ids=tuple(prefix_ids),
        windows=tuple(windows),
    )

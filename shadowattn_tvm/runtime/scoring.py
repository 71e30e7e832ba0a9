"""How well a model predicts given tokens: log-probabilities of every position of a prefill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import LibraryError
from .session import LogitRows, Session


@dataclass(frozen=True)
class TokenScores:
    """What the model said of tokens 1, 2, ... of a text, each after the tokens before it.

    Attributes
    ----------
    log_probabilities : `[tokens - 1]` float64, natural logarithms.
    greedy : `[tokens - 1]` int64, the likeliest token (ties: the lower id).
    """

    log_probabilities: NDArray[np.float64]
    greedy: NDArray[np.int64]

    @property
    def mean_nll(self) -> float:
        """Mean negative log-likelihood, in nats per predicted token."""
        return float(-self.log_probabilities.mean())


def score_tokens(session: Session, token_ids: Sequence[int]) -> TokenScores:
    """Prefill an empty session with `token_ids`, at least two, and score each but the first.

    The session is reset before and after. Raises `ContextOverflowError` and `ConfigError` like
    `Session.prefill`, and `LibraryError` for logits that are not finite.
    """
    targets = np.asarray(token_ids[1:], np.int64)
    log_probabilities = np.full(len(targets), np.nan)
    greedy = np.full(len(targets), -1, np.int64)

    def consume(positions: Sequence[int], logits: LogitRows) -> None:
        rows = slice(positions[0], min(positions[-1] + 1, len(targets)))
        logits = logits[: rows.stop - rows.start]  # nothing follows the last token
        if len(logits):
            predicted = np.take_along_axis(logits, targets[rows, None], 1)
            log_probabilities[rows] = (predicted - log_normalizer(logits))[:, 0]
            greedy[rows] = logits.argmax(axis=1)

    session.reset()
    session.prefill_every_position(token_ids, consume)
    session.reset()
    if not np.isfinite(log_probabilities).all():
        raise LibraryError(
            "expected finite logits, got NaN or infinities; the weights or the library are corrupt"
        )
    return TokenScores(log_probabilities, greedy)


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Natural log-probabilities over the last axis."""
    return logits - log_normalizer(logits)


def log_normalizer(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """log(sum(exp(logits))) over the last axis, kept with length 1.

    Exponentials in the precision of the logits, summed in float64: a vocabulary times a chunk of
    them is much of the time it takes to score a text.
    """
    largest = logits.max(axis=-1, keepdims=True)
    total = np.exp(logits - largest).sum(axis=-1, keepdims=True, dtype=np.float64)
    normalizer: NDArray[np.float64] = largest + np.log(total)
    return normalizer

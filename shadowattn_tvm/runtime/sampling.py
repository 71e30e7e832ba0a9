"""From logits to the next token: temperature, nucleus, penalties; NumPy, seeded, in float64."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, LibraryError

Logits = npt.NDArray[np.float32]
"""Unnormalized log-probabilities of the next token, shape (vocab,), float32."""


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is drawn. Raises `ConfigError` for values outside the stated ranges.

    Attributes
    ----------
    temperature : logits are divided by it; 0 takes the likeliest token (ties: the lower id).
    top_p : draw from the smallest set of likeliest tokens whose probability reaches it, [0, 1]; 0
        leaves the likeliest alone.
    repetition_penalty : logits of tokens already in the answer are divided by it where positive,
        multiplied where negative (CTRL, 2019); > 0, 1 is off.
    presence_penalty, frequency_penalty : subtracted from the logit of a token in the answer: once,
        and once per occurrence (the OpenAI API's definition); within [-2, 2], 0 is off.
    seed : the same seed gives the same draws; None seeds from the system.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        def require(holds: bool, name: str, expected: str) -> None:
            if not holds:
                raise ConfigError(f"expected {name} {expected}, got {getattr(self, name)}")

        # Written so that NaN fails every one of them.
        require(0.0 <= self.temperature < math.inf, "temperature", "to be finite and at least 0")
        require(0.0 <= self.top_p <= 1.0, "top_p", "between 0 and 1")
        require(
            0.0 < self.repetition_penalty < math.inf,
            "repetition_penalty",
            "to be finite and above 0",
        )
        for name in ("presence_penalty", "frequency_penalty"):
            require(-2.0 <= getattr(self, name) <= 2.0, name, "between -2 and 2")
        require(self.seed is None or self.seed >= 0, "seed", "to be a non-negative integer")


class Sampler:
    """Draws one answer: remembers its tokens for the penalties and the state of its generator."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._rng = np.random.default_rng(params.seed)
        self._occurrences: Counter[int] = Counter()

    def sample(self, logits: Logits) -> int:
        """The next token's id.

        Raises `LibraryError` if the best logit is not finite: no answer can be drawn from it.
        """
        scores = self._penalized(logits)
        best = int(np.argmax(scores))  # NumPy's argmax finds NaN first
        if not np.isfinite(scores[best]):
            raise LibraryError(
                f"the model's logits are not finite (token {best}: {scores[best]}); the weights or "
                "the library are damaged: convert and compile them again"
            )
        token = best if self._params.temperature == 0.0 else self._draw(scores)
        self._occurrences[token] += 1
        return token

    def _penalized(self, logits: Logits) -> npt.NDArray[np.float64]:
        p, scores = self._params, logits.astype(np.float64)
        if self._occurrences:
            ids = np.fromiter(self._occurrences.keys(), np.int64)
            counts = np.fromiter(self._occurrences.values(), np.float64)
            seen = scores[ids]
            seen = np.where(seen > 0, seen / p.repetition_penalty, seen * p.repetition_penalty)
            scores[ids] = seen - p.presence_penalty - p.frequency_penalty * counts
        return scores

    def _draw(self, scores: npt.NDArray[np.float64]) -> int:
        # The maximum is subtracted first: a temperature near zero must not overflow.
        with np.errstate(over="ignore"):
            weights = np.exp((scores - scores.max()) / self._params.temperature)
        probabilities = weights / weights.sum()
        if self._params.top_p < 1.0:
            candidates = nucleus(probabilities, self._params.top_p)
        else:
            candidates = np.arange(probabilities.size)
        # One uniform number against the running sum.
        cumulative = np.cumsum(probabilities[candidates])
        point = self._rng.random() * cumulative[-1]
        return int(candidates[np.searchsorted(cumulative, point, side="right")])


def nucleus(probabilities: npt.NDArray[np.float64], top_p: float) -> npt.NDArray[np.int64]:
    """Ids of the smallest set of likeliest tokens whose probability sums to at least `top_p`.

    probabilities (vocab,) float64, summing to 1. The result (1..vocab,) int64 is ordered from the
    likeliest down, ties by the lower id.
    """
    # All tokens below this floor together weigh less than 1 - top_p, so the set is complete
    # without them; sorting the few others is what makes a large vocabulary cheap.
    floor = min((1.0 - top_p) / probabilities.size, probabilities.max())
    candidates = np.flatnonzero(probabilities >= floor)
    order = np.argsort(-probabilities[candidates], kind="stable")
    candidates = candidates[order]
    size = int(np.searchsorted(np.cumsum(probabilities[candidates]), top_p)) + 1
    return candidates[:size]

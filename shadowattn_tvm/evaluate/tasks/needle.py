"""Needles: several places have a secret word each; one place's is asked for.

Harder than passkeys: an answer is one ordinary word, so nothing marks it as a key.
"""

from __future__ import annotations

import random

from ..context import EvaluationContext
from .puzzle import Puzzle
from .retrieval import RetrievalResult, run_retrieval

PLACES = (
    *("library", "garden", "station", "museum", "kitchen", "castle", "school", "theatre"),
    *("market", "chapel", "cellar", "office"),
)

WORDS = (
    *("lantern", "marble", "copper", "river", "violet", "harbor", "candle", "falcon"),
    *("pepper", "meadow", "silver", "timber"),
)

NUM_NEEDLES = 4
"""The one asked for and three distractors."""


def needle_puzzle(rng: random.Random) -> Puzzle:
    """Different places and words each time."""
    places = rng.sample(PLACES, NUM_NEEDLES)
    words = rng.sample(WORDS, NUM_NEEDLES)
    facts = tuple(
        f"The secret word of the {place} is {word}. Remember it: {word} is the secret word of the "
        f"{place}."
        for place, word in zip(places, words, strict=True)
    )
    return Puzzle(facts, f"The secret word of the {places[0]} is", words[0])


def run_needle(context: EvaluationContext) -> RetrievalResult:
    """The task `needle`; see `retrieval`."""
    return run_retrieval(context, "needle", needle_puzzle)

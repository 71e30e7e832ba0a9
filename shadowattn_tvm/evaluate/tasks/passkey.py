"""Passkeys: several people have a number each, hidden far apart; one person's is asked for."""

from __future__ import annotations

import random

from ..context import EvaluationContext
from .puzzle import Puzzle
from .retrieval import RetrievalResult, run_retrieval

NAMES = (
    *("Alice", "Robert", "Maria", "Thomas", "Helen", "David", "Susan", "Peter"),
    *("Laura", "George", "Emma", "Oscar"),
)

NUM_KEYS = 4
"""The one asked for and three distractors. A small model finds one key anywhere; of several it
takes the wrong one now and then, which leaves room to see a difference."""

_FEWEST, _MOST = 10_000, 99_999
"""Five digits: guessing finds one in 90,000."""


def passkey_puzzle(rng: random.Random) -> Puzzle:
    """Different names and numbers each time."""
    names = rng.sample(NAMES, NUM_KEYS)
    keys = rng.sample(range(_FEWEST, _MOST + 1), NUM_KEYS)
    # Said twice, since completion models of this size otherwise take it for noise.
    facts = tuple(
        f"The pass key of {name} is {key}. Remember it: {key} is the pass key of {name}."
        for name, key in zip(names, keys, strict=True)
    )
    return Puzzle(facts, f"The pass key of {names[0]} is", str(keys[0]))


def run_passkey(context: EvaluationContext) -> RetrievalResult:
    """The task `passkey`; see `retrieval`."""
    return run_retrieval(context, "passkey", passkey_puzzle)

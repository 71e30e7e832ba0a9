"""Rounds of whole models: every contender in turn, in its own process, checked in every round."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ..contenders import Answer, ContenderProcess
from .agreement import agreement, require_agreement, worst
from .model_document import Agreement, ModelContenderName

DENSE: ModelContenderName = "dense"
"""What the others are held against."""

Processes = Mapping[ModelContenderName, ContenderProcess]
Ask = Callable[[ContenderProcess], Answer]


@dataclass(frozen=True)
class Timed:
    """One contender's rounds.

    Attributes
    ----------
    times_ms : of each round.
    agreement : with the dense library, at the worst round; None for that itself.
    loaded_memory_bytes, peak_memory_bytes : see `ModelRow`.
    """

    times_ms: tuple[float, ...]
    agreement: Agreement | None
    loaded_memory_bytes: int | None
    peak_memory_bytes: int | None


def checked_turn(
    processes: Processes,
    ask: Ask,
    first: int = 0,
    *,
    free: Collection[ModelContenderName] = (),
) -> tuple[dict[ModelContenderName, Answer], dict[ModelContenderName, Agreement]]:
    """Ask everybody, one at a time and beginning with number `first`; what they answered, and how
    well the others agree with the dense library. Those that are `free` to differ aren't held to it;
    for the rest, raises like `require_agreement`."""
    names = list(processes)
    order = [names[(first + offset) % len(names)] for offset in range(len(names))]
    answers = {name: ask(processes[name]) for name in order}
    dense = answers[DENSE].logits
    return answers, {
        name: (
            agreement(dense, answers[name].logits)
            if name in free
            else require_agreement(name, dense, answers[name].logits)
        )
        for name in names
        if name != DENSE
    }


def timed_rounds(
    processes: Processes,
    ask: Ask,
    *,
    rounds: int,
    on_round: Callable[[int, int], None],
    free: Collection[ModelContenderName] = (),
) -> dict[ModelContenderName, Timed]:
    """Ask everybody once a round; the order turns, so that none always follows the same one.
    Raises like `checked_turn`."""
    turns = []
    for index in range(rounds):
        on_round(index, rounds)
        turns.append(checked_turn(processes, ask, index, free=free))
    on_round(rounds, rounds)
    last, _ = turns[-1]
    return {
        name: Timed(
            times_ms=tuple(answers[name].elapsed_ms for answers, _ in turns),
            agreement=None if name == DENSE else worst([found[name] for _, found in turns]),
            loaded_memory_bytes=process.loaded_memory_bytes,
            peak_memory_bytes=last[name].peak_memory_bytes,
        )
        for name, process in processes.items()
    }

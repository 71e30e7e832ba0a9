"""Who is held to the dense library's answer while models are timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest

from shadowattn_tvm.bench.model_runs import Processes, checked_turn, timed_rounds
from shadowattn_tvm.bench.reference import WrongResultError
from shadowattn_tvm.contenders import Answer
from shadowattn_tvm.contenders.messages import Logits
from shadowattn_tvm.errors import ConfigError

DENSE = np.array([2.0, 1.9, -1.0], np.float32)
OTHER = np.array([-5.0, -5.0, 8.0], np.float32)


@dataclass
class Contender:
    """Answers every question with the same logits."""

    logits: Logits
    loaded_memory_bytes: int = 1

    def prefill(self) -> Answer:
        return Answer(logits=self.logits, elapsed_ms=2.0, peak_memory_bytes=3)


def _processes(contenders: Mapping[str, Contender]) -> Processes:
    return cast(Processes, contenders)


def _ask(process: Any) -> Answer:
    answer: Answer = process.prefill()
    return answer


def test_another_answer_stops_the_run_unless_its_weights_are_others() -> None:
    processes = _processes({"dense": Contender(DENSE), "llama_cpp": Contender(OTHER)})
    with pytest.raises(ConfigError, match="llama_cpp: its next token is another"):
        checked_turn(processes, _ask)
    answers, found = checked_turn(processes, _ask, free=["llama_cpp"])
    assert set(answers) == {"dense", "llama_cpp"}
    assert not found["llama_cpp"].same_token
    timed = timed_rounds(
        processes, _ask, rounds=3, on_round=lambda done, total: None, free=["llama_cpp"]
    )
    agreement = timed["llama_cpp"].agreement
    assert agreement is not None
    assert agreement.kl_nats > 1
    assert timed["dense"].agreement is None
    assert timed["llama_cpp"].times_ms == (2.0, 2.0, 2.0)


def test_who_is_free_frees_nobody_else() -> None:
    processes = _processes(
        {"dense": Contender(DENSE), "shadow": Contender(OTHER), "llama_cpp": Contender(OTHER)}
    )
    with pytest.raises(WrongResultError, match="shadow: its next token is another"):
        checked_turn(processes, _ask, free=["llama_cpp"])

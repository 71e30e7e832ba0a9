"""Scores of every position of a prefill, against one forward pass per position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shadowattn_tvm.errors import ContextOverflowError
from shadowattn_tvm.runtime.machine import load_weights
from shadowattn_tvm.runtime.scoring import log_softmax, score_tokens
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.weights import ModelDirectory

TOKENS = [int(t) for t in np.random.default_rng(5).integers(0, 256, 50)]
"""Three chunks of 16 and one of 2."""


@pytest.fixture
def session(tiny_directory: ModelDirectory, tiny_shadow_library: Path) -> Session:
    return Session(tiny_directory, tiny_shadow_library)


def test_every_position_has_the_logits_of_a_prefill_that_ends_there(
    tiny_directory: ModelDirectory, tiny_library: Path
) -> None:
    # Dense: a chunk that ends earlier has other maxima, so a sparse one may pick other scales.
    session = Session(tiny_directory, tiny_library)
    collected: dict[int, np.ndarray] = {}
    session.prefill_every_position(
        TOKENS, lambda positions, logits: collected.update(zip(positions, logits, strict=True))
    )
    assert list(collected) == list(range(len(TOKENS)))
    assert session.position == len(TOKENS)
    for position in (0, 15, 16, 40, 49):
        session.reset()
        np.testing.assert_allclose(
            collected[position], session.prefill(TOKENS[: position + 1]), rtol=1e-4, atol=1e-4
        )


def test_scores_are_the_log_softmax_of_those_logits(session: Session) -> None:
    rows: list[np.ndarray] = []
    session.prefill_every_position(TOKENS, lambda _, logits: rows.extend(logits))
    pairs = session.prefill_pairs
    scores = score_tokens(session, TOKENS)
    assert session.position == 0
    assert (session.prefill_pairs - pairs) == pairs
    for i, token in enumerate(TOKENS[1:]):
        exact = rows[i].astype(np.float64)
        expected = exact[token] - np.log(np.exp(exact).sum())
        assert scores.log_probabilities[i] == pytest.approx(expected, abs=1e-6)
        assert scores.greedy[i] == exact.argmax()
    assert scores.mean_nll == pytest.approx(-scores.log_probabilities.sum() / 49)


def test_what_the_consumer_raises_leaves_the_session_as_before(session: Session) -> None:
    session.prefill(TOKENS[:5])
    pairs = session.prefill_pairs

    def fail(positions: object, logits: object) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        session.prefill_every_position(TOKENS, fail)
    assert list(session.tokens) == TOKENS[:5]
    assert session.prefill_pairs == pairs


def test_positions_count_from_the_tokens_given(session: Session) -> None:
    session.prefill(TOKENS[:20])
    seen: list[int] = []
    session.prefill_every_position(TOKENS[20:], lambda positions, _: seen.extend(positions))
    assert seen == list(range(30))


def test_too_long_a_text_is_refused(session: Session) -> None:
    with pytest.raises(ContextOverflowError, match="256 tokens"):
        score_tokens(session, TOKENS * 6)


def test_weights_are_shared_between_sessions(
    tiny_directory: ModelDirectory, tiny_library: Path, tiny_shadow_library: Path
) -> None:
    weights = load_weights(tiny_directory)
    for library in (tiny_library, tiny_shadow_library):
        shared = Session(tiny_directory, library, weights=weights).prefill(TOKENS)
        own = Session(tiny_directory, library).prefill(TOKENS)
        np.testing.assert_array_equal(shared, own)


def test_log_softmax_holds_for_large_logits() -> None:
    logits = np.array([[1000.0, 1000.0, -1000.0]], np.float32)
    np.testing.assert_allclose(log_softmax(logits)[0, :2], np.log(0.5))
    assert log_softmax(logits)[0, 2] == pytest.approx(-2000 + np.log(0.5))

"""Agreement: the divergence by hand, the continuation from single steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shadowattn_tvm.errors import ConfigError, LibraryError
from shadowattn_tvm.evaluate.context import EvaluationContext
from shadowattn_tvm.evaluate.tasks.agreement import (
    forced_continuation,
    greedy_continuation,
    kl_divergence,
    run_agreement,
)
from shadowattn_tvm.runtime.scoring import log_softmax


def test_the_divergence_by_hand() -> None:
    dense, shadow = np.log([[0.5, 0.5], [1.0 - 1e-12, 1e-12]]), np.log([[0.25, 0.75], [0.5, 0.5]])
    expected = (0.5 * np.log(2) + 0.5 * np.log(2 / 3) + np.log(2)) / 2
    assert kl_divergence(dense, shadow) == pytest.approx(expected)
    assert kl_divergence(dense, dense) == 0.0


def test_a_divergence_of_nan_is_an_error() -> None:
    with pytest.raises(LibraryError, match="finite logits"):
        kl_divergence(np.full((1, 2), np.nan), np.zeros((1, 2)))


def test_the_continuation_is_greedy(tiny_context: EvaluationContext) -> None:
    prompt = tiny_context.windows[0].token_ids[:100].tolist()
    rows, tokens = greedy_continuation(tiny_context.dense, prompt, 5)
    assert tokens == rows.argmax(axis=1).tolist()
    tiny_context.dense.prefill(prompt)
    tiny_context.dense.decode(tokens[0])
    expected = log_softmax(tiny_context.dense.decode(tokens[1]))
    np.testing.assert_array_equal(rows[2], expected)
    forced = forced_continuation(tiny_context.dense, prompt, tokens)
    np.testing.assert_array_equal(forced, rows)


def test_dense_agrees_with_itself_and_sparse_does_not(tiny_context: EvaluationContext) -> None:
    itself = run_agreement(replace(tiny_context, shadow=tiny_context.dense))
    assert (itself.kl_nats, itself.greedy_match) == (0.0, 1.0)
    sparse = run_agreement(tiny_context)
    assert 0.0 < sparse.kl_nats < 10.0
    assert len(sparse.windows) == 4
    assert sparse.kl_nats == pytest.approx(np.mean([w.kl_nats for w in sparse.windows]))
    assert {w.prompt_tokens for w in sparse.windows} == {256 - 8}
    assert sparse.kl_ci95_nats[0] <= sparse.kl_nats <= sparse.kl_ci95_nats[1]


def test_without_a_past_there_is_nothing_to_agree_on(tiny_context: EvaluationContext) -> None:
    settings = replace(tiny_context.settings, context_tokens=24)
    with pytest.raises(ConfigError, match="longer than a prefill chunk"):
        run_agreement(replace(tiny_context, settings=settings))

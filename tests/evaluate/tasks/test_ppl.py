"""Perplexity: each window's figure from logits, the summary by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from shadowattn_tvm.evaluate.context import EvaluationContext
from shadowattn_tvm.evaluate.statistics import bootstrap_interval
from shadowattn_tvm.evaluate.tasks.ppl import (
    WindowScore,
    run_ppl,
    summarize,
    window_nll,
)


def score(nll_dense: float, nll_shadow: float) -> WindowScore:
    return WindowScore(
        document="d",
        document_sha256="0" * 64,
        start_token=0,
        tokens=9,
        nll_dense=nll_dense,
        nll_shadow=nll_shadow,
    )


def test_a_window_by_single_steps(tiny_context: EvaluationContext) -> None:
    window = tiny_context.windows[0]
    dense = tiny_context.dense
    dense.reset()
    rows: list[np.ndarray] = []
    tokens = window.token_ids.tolist()
    dense.prefill_every_position(tokens, lambda _, logits: rows.extend(logits))
    losses = [
        math.log(np.exp(row.astype(np.float64)).sum()) - float(row[token])
        for row, token in zip(rows[:-1], tokens[1:], strict=True)
    ]
    assert window_nll(dense, window) == pytest.approx(np.mean(losses), rel=1e-6)
    # The last of a prefix predicts the first token of the text.
    for prefix_tokens, counted in ((1, losses), (3, losses[2:])):
        prefixed = replace(window, prefix_tokens=prefix_tokens)
        assert window_nll(dense, prefixed) == pytest.approx(np.mean(counted), rel=1e-6)


def test_windows_are_reported_with_what_it_takes_to_find_them(
    tiny_context: EvaluationContext,
) -> None:
    result = run_ppl(tiny_context)
    assert len(result.windows) == len(tiny_context.windows) == 4
    for window, scored in zip(tiny_context.windows, result.windows, strict=True):
        text = {d.sha256: d for d in tiny_context.documents}[scored.document_sha256].text
        ids = tiny_context.tokenizer.encode(text)
        start, stop = scored.start_token, scored.start_token + scored.tokens
        assert ids[start:stop] == window.token_ids.tolist()
    dense, shadow = (
        [window_nll(session, window) for window in tiny_context.windows]
        for session in (tiny_context.dense, tiny_context.shadow)
    )
    assert [w.nll_dense for w in result.windows] == dense
    assert [w.nll_shadow for w in result.windows] == shadow
    assert all(d != s for d, s in zip(dense, shadow, strict=True))


def test_the_summary_by_hand() -> None:
    result = summarize([score(2.0, 2.1), score(3.0, 3.3)], (7,))
    assert result.dense == pytest.approx(math.exp(2.5))
    assert result.shadow == pytest.approx(math.exp(2.7))
    assert result.relative_percent == pytest.approx(100 * (math.exp(0.2) - 1))
    lower, upper = bootstrap_interval([0.1, 0.3])
    assert result.ci95_percent == pytest.approx(
        (100 * (math.exp(lower) - 1), 100 * (math.exp(upper) - 1))
    )
    assert result.prefix_token_ids == (7,)


def test_a_figure_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        score(2.0, math.nan)

"""The plans we ship, on texts they have not seen: little perplexity lost, within their budget.

A few windows only, so the bounds are wider than what docs/results measures.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shadowattn_tvm.config import configs_dir
from shadowattn_tvm.corpora import Window, read_documents, sample_windows
from shadowattn_tvm.plan import Plan, load_plan
from shadowattn_tvm.runtime.scoring import score_tokens
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.runtime.tokenizer import ModelTokenizer
from shadowattn_tvm.weights import ModelDirectory

pytestmark = pytest.mark.model

TEXTS_VARIABLE = "SHADOWATTN_TEXTS"
"""Names the folder that `make texts` fills."""

CONTEXT_TOKENS = 2048
CHUNK_TOKENS = 256
NUM_WINDOWS = 2

MAX_LOST_PERCENT = {"smollm2-135m-r20": 0.6, "smollm2-135m-r10": 1.5}
"""Single windows move by half a percent either way."""


@pytest.fixture(scope="module")
def directory(smollm2_dir: Callable[[str], ModelDirectory]) -> ModelDirectory:
    return smollm2_dir("q0f32")


@pytest.fixture(scope="module")
def windows(directory: ModelDirectory) -> tuple[Window, ...]:
    texts = os.environ.get(TEXTS_VARIABLE)
    if not texts:
        pytest.skip(f"{TEXTS_VARIABLE} names no folder of texts: `make texts` makes one")
    return sample_windows(
        read_documents([str(Path(texts) / "held-out")]),
        ModelTokenizer.from_directory(directory.path),
        window_tokens=CONTEXT_TOKENS,
        max_windows=NUM_WINDOWS,
    )


@pytest.fixture(scope="module")
def nll(
    directory: ModelDirectory,
    smollm2_library: Callable[[str, Plan | None], Path],
    windows: tuple[Window, ...],
) -> Callable[[Plan | None], tuple[np.ndarray, float]]:
    """Mean losses of the windows through a plan's library, and the past fraction computed."""

    def measure(plan: Plan | None) -> tuple[np.ndarray, float]:
        session = Session(
            directory, smollm2_library("q0f32", plan), prefill_chunk_size=CHUNK_TOKENS
        )
        losses = [score_tokens(session, window.token_ids.tolist()).mean_nll for window in windows]
        return np.array(losses), session.prefill_pairs.past_fraction

    return measure


def test_shipped_plans_lose_little_on_unseen_texts(
    windows: tuple[Window, ...], nll: Callable[[Plan | None], tuple[np.ndarray, float]]
) -> None:
    dense, everything = nll(None)
    assert everything == 1.0
    for name, limit in MAX_LOST_PERCENT.items():
        plan = load_plan(configs_dir() / "plans" / f"{name}.json")
        seen = {document.sha256 for document in plan.provenance.corpus}
        assert not seen & {window.document_sha256 for window in windows}
        losses, past_fraction = nll(plan)
        assert past_fraction == pytest.approx(plan.provenance.ratio, abs=1e-3)
        lost_percent = 100 * np.expm1((losses - dense).mean())
        assert lost_percent < limit, name
        assert (losses != dense).all()  # it did run sparse

"""A tiny model with texts to evaluate it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shadowattn_tvm.corpora import read_documents
from shadowattn_tvm.evaluate.context import EvaluationContext, EvaluationSettings
from shadowattn_tvm.evaluate.held_out import held_out
from shadowattn_tvm.evaluate.run import make_context
from shadowattn_tvm.plan import Plan
from shadowattn_tvm.runtime.tokenizer import ModelTokenizer
from shadowattn_tvm.weights import ModelDirectory

SETTINGS = EvaluationSettings(
    num_windows=4,
    context_tokens=256,
    prefill_chunk_tokens=16,
    min_windows=4,
    recall_windows=2,
    recall_rows=4,
    continuation_tokens=8,
)
"""The limits are the tiny model's own, so its libraries are those of the other tests."""


MakeContext = Callable[..., EvaluationContext]


@pytest.fixture(scope="session")
def make_tiny_context(tiny_directory: ModelDirectory, tiny_texts: Path) -> MakeContext:
    """A context for a plan, with `SETTINGS`."""

    def make(plan: Plan) -> EvaluationContext:
        tokenizer = ModelTokenizer.from_directory(tiny_directory.path)
        texts = held_out(read_documents([str(tiny_texts)]), plan, tokenizer, (), SETTINGS)
        return make_context(tiny_directory, plan, texts, SETTINGS)

    return make


@pytest.fixture(scope="session")
def tiny_context(make_tiny_context: MakeContext, tiny_plan: Plan) -> EvaluationContext:
    return make_tiny_context(tiny_plan)

"""Held-out text: nothing that was calibrated on, and enough of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shadowattn_tvm.corpora import Document
from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.evaluate.held_out import held_out
from shadowattn_tvm.plan import CorpusDocument, Plan
from tests.evaluate.conftest import SETTINGS


class Bytes:
    def encode(self, text: str) -> list[int]:
        return list(text.encode())


DOCUMENTS = tuple(Document(f"d{i}", chr(97 + i) * 600) for i in range(4))


def plan_calibrated_on(plan: Plan, *documents: Document) -> Plan:
    corpus = tuple(CorpusDocument(name=d.name, sha256=d.sha256) for d in documents)
    provenance = plan.provenance.model_copy(update={"corpus": corpus})
    return plan.model_copy(update={"provenance": provenance})


def test_what_was_calibrated_on_is_left_out_by_content(tiny_plan: Plan) -> None:
    renamed = Document("another name", DOCUMENTS[1].text)
    plan = plan_calibrated_on(tiny_plan, renamed)
    texts = held_out(DOCUMENTS, plan, Bytes(), (), SETTINGS)
    assert texts.left_out == ("d1",)
    assert [d.name for d in texts.documents] == ["d0", "d2", "d3"]
    assert {w.document for w in texts.windows} == {"d0", "d2", "d3"}
    assert len(texts.windows) == 4


def test_too_few_documents_are_an_error(tiny_plan: Plan) -> None:
    plan = plan_calibrated_on(tiny_plan, *DOCUMENTS[:2])
    with pytest.raises(ConfigError, match=r"at least 3 documents .* got 2 of 4.*d0, d1"):
        held_out(DOCUMENTS, plan, Bytes(), (), SETTINGS)


def test_too_few_windows_are_an_error(tiny_plan: Plan) -> None:
    settings = replace(SETTINGS, num_windows=100, min_windows=20)
    with pytest.raises(ConfigError, match="at least 20 windows of 256 tokens, got 8"):
        held_out(DOCUMENTS, tiny_plan, Bytes(), (), settings)


def test_windows_begin_with_the_prefix(tiny_plan: Plan) -> None:
    texts = held_out(DOCUMENTS, tiny_plan, Bytes(), (1, 2), SETTINGS)
    assert all(w.token_ids[:2].tolist() == [1, 2] for w in texts.windows)
    assert {len(w.token_ids) for w in texts.windows} == {256}

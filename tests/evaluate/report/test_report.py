"""Tables and plots show every point, and say where they come from."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shadowattn_tvm.evaluate.report import write_report
from shadowattn_tvm.evaluate.report.markdown import markdown
from shadowattn_tvm.evaluate.report.titles import TITLES
from shadowattn_tvm.evaluate.sweep_document import (
    Difference,
    Kind,
    Point,
    SweepDocument,
    SweepWindow,
)
from shadowattn_tvm.evaluate.sweep_kinds import KINDS

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def _point(label: str, percent: float, value: float | None) -> Point:
    return Point(
        label=label,
        value=value,
        past_fraction=0.2,
        total_fraction=0.3,
        plan_sha256=None,
        nll=(2.0, 3.0),
        against_dense=Difference(percent=percent, ci95_percent=(percent - 0.5, percent + 1.0)),
        against_base=Difference(percent=percent - 0.25, ci95_percent=(percent - 1, percent)),
    )


def _document(kind: Kind = "ratio", *, worst_percent: float = 3.0) -> SweepDocument:
    return SweepDocument(
        kind=kind,
        model="tiny",
        model_fingerprint="f" * 64,
        quantization="q0f32",
        plan_sha256="a" * 64,
        plan_method="uniform",
        context_tokens=256,
        prefill_chunk_tokens=16,
        base="20%",
        notes=("A note.",),
        windows=tuple(
            SweepWindow(
                document=f"doc|{i}",
                document_sha256=str(i) * 64,
                start_token=0,
                tokens=256,
                nll_dense=2.0,
            )
            for i in range(2)
        ),
        points=(_point("20%", 0.25, 0.2), _point("5%", worst_percent, 0.05)),
        command="shadowattn eval m --sweep ratio",
        versions={"python": "3.11"},
        created=datetime(2026, 1, 2, tzinfo=UTC),
    )


def test_the_table_has_every_point_and_its_origin() -> None:
    text = markdown(_document())
    assert "| 20% | 20.0 % | 30.0 % | +0.25 % (-0.25 to +1.25) |  |" in text
    assert "| 5% | 20.0 % | 30.0 % | +3.00 % (+2.50 to +4.00) | +2.75 % (+2.00 to +3.00) |" in text
    for fact in ("A note.", "doc|1", "1" * 64, "shadowattn eval m --sweep ratio", "2026-01-02"):
        assert fact in text
    assert "2 windows of 256 tokens from 2 documents" in text


def test_every_kind_has_a_title() -> None:
    assert TITLES.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", ["ratio", "method"])
@pytest.mark.parametrize("worst_percent", [3.0, 500.0])
def test_a_report_is_a_document_a_table_and_a_plot(
    kind: Kind, worst_percent: float, tmp_path: Path
) -> None:
    document = _document(kind, worst_percent=worst_percent)
    paths = write_report(document, tmp_path / "new")
    assert [path.name for path in paths] == [f"{kind}.json", f"{kind}.md", f"{kind}.png"]
    assert SweepDocument.model_validate(json.loads(paths[0].read_text())) == document
    assert paths[1].read_text() == markdown(document)
    assert paths[2].read_bytes().startswith(PNG_MAGIC)
    again = write_report(document, tmp_path / "new")
    assert sorted((tmp_path / "new").iterdir()) == sorted(again)

"""The plot of `bench attention`: a line for each contender that has rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowattn_tvm.bench import AttentionRow
from shadowattn_tvm.bench.attention_plot import plot_attention
from shadowattn_tvm.errors import ConfigError


def row(contender: str, context: int, workers: int = 0, chunk: int = 128) -> AttentionRow:
    return AttentionRow.model_validate(
        {
            "contender": contender,
            "context": context,
            "chunk": chunk,
            "heads": 9,
            "kv_heads": 3,
            "head_dim": 64,
            "workers": workers,
            "inputs": "random",
            "plan": "r20" if contender == "shadow" else None,
            "past_fraction": 1.0,
            "median_ms": context / 100,
            "spread_ms": 0.0,
            "rounds": 1,
            "checked": True,
        }
    )


@pytest.fixture
def rows() -> list[AttentionRow]:
    contexts = (2048, 1024)
    dense = [row("cg_full", context) for context in contexts]
    shadow = [row("shadow", context, workers) for context in contexts for workers in (0, 1, 2)]
    return [*dense, *shadow, row("cg_full", 4096, chunk=512)]


def test_lines_are_those_of_the_rows(rows: list[AttentionRow], tmp_path: Path) -> None:
    plot_attention(rows, "a model", tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert all(label in text for label in ("C/G-Full", "shadowAttn, one core", "128 queries"))
    assert "NPU's part" in text
    assert "4,096" not in text, "another chunk's"
    assert "C/G-Sparse" not in text, "has no rows"
    plot_attention(rows, "a model", tmp_path / "b.svg")
    assert text == (tmp_path / "b.svg").read_text()


def test_without_workers_there_is_one_line_of_ours(
    rows: list[AttentionRow], tmp_path: Path
) -> None:
    plot_attention([each for each in rows if each.workers == 0], "a model", tmp_path / "a.svg")
    assert "NPU's part" not in (tmp_path / "a.svg").read_text()


def test_other_formats_are_refused(rows: list[AttentionRow], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.png or \.svg"):
        plot_attention(rows, "a model", tmp_path / "a.gif")

"""Reading what others wrote: every failure is one of our errors, and names the value."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from shadowattn_tvm.config import documents
from shadowattn_tvm.config.documents import read_json_object, read_text, validated
from shadowattn_tvm.errors import ConfigError, WeightsError


class Inner(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    size: int


class Outer(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    parts: list[Inner]


def test_every_mistake_is_named_with_its_path() -> None:
    value = {"parts": [{"size": 1}, {"size": "2"}, {}], "more": 3}
    with pytest.raises(WeightsError) as caught:
        validated(Outer, value, "x.json", WeightsError)
    assert str(caught.value).splitlines() == [
        "x.json: 3 values are not as expected",
        "  parts.1.size: Input should be a valid integer, got '2'",
        "  parts.2.size: Field required",
        "  more: Extra inputs are not permitted, got 3",
    ]


def test_a_flood_of_mistakes_is_cut() -> None:
    with pytest.raises(ConfigError) as caught:
        validated(Outer, {"parts": [{}] * 50}, "x.json")
    lines = str(caught.value).splitlines()
    assert lines[0] == "x.json: 50 values are not as expected"
    assert lines[-1] == "  and 40 more"
    assert len(lines) == 12


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected JSON"),
        (b"[1]", "expected a JSON object, got a list"),
        (b"{", "expected JSON"),
        (b"\xff", "expected UTF-8 text"),
        (b"[" * 100_000, "expected JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "expected JSON"),
    ],
)
def test_what_is_no_json_object(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_json_object(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"can't read .*: No such file"):
        read_text(tmp_path / "gone")
    with pytest.raises(WeightsError, match=r"can't read .*: Is a directory"):
        read_text(tmp_path, WeightsError)
    (tmp_path / "large").write_text("x" * 101)
    monkeypatch.setattr(documents, "_MAX_DOCUMENT_BYTES", 100)
    with pytest.raises(ConfigError, match="expected at most 100 bytes, got 101"):
        read_text(tmp_path / "large")

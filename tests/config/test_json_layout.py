"""Documents are written for people, and read back the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from shadowattn_tvm.config.json_layout import json_layout, write_document

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_the_value_is_the_same_when_read_back(value: object) -> None:
    assert json.loads(json_layout(value)) == value


def test_what_fits_takes_a_line_and_numbers_make_rows() -> None:
    value = {"name": "x", "rows": [[1.5] * 40, [2.5] * 3], "heads": [{"scale": 0.5, "keep": None}]}
    assert json_layout(value) == "\n".join(
        [
            "{",
            '  "name": "x",',
            '  "rows": [',
            f"    [{', '.join(['1.5'] * 40)}],",
            "    [2.5, 2.5, 2.5]",
            "  ],",
            '  "heads": [{"scale": 0.5, "keep": null}]',
            "}",
        ]
    )


def test_a_document_keeps_the_order_of_its_fields(tmp_path: Path) -> None:
    class Pair(BaseModel):
        second: int
        first: str

    write_document(tmp_path / "pair.json", Pair(second=2, first="ö"))
    assert (tmp_path / "pair.json").read_text(encoding="utf-8") == '{"second": 2, "first": "ö"}\n'


def test_there_is_no_json_for_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_layout([float("nan")])

"""Option values that are lists of numbers."""

from __future__ import annotations

import pytest

from shadowattn_tvm.cli.values import parse_shape
from shadowattn_tvm.errors import ConfigError


def test_a_shape() -> None:
    assert parse_shape("12/2/128") == (12, 2, 128)


@pytest.mark.parametrize(
    "text", ["", "12", "12/2", "12/2/0", "12/2/-1", "a/b/c", "12/2/128/1", "1//2"]
)
def test_what_is_no_shape(text: str) -> None:
    with pytest.raises(ConfigError, match="query heads, KV heads and head dim as '12/2/128'"):
        parse_shape(text)

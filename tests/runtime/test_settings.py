"""`/set`: values by name, all or nothing."""

from __future__ import annotations

import pytest

from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.runtime.settings import Settings, parse_settings


def test_mlcs_example_is_understood():
    changed = Settings().with_values(
        parse_settings("temperature=0.5;top_p=0.8;seed=23;max_tokens=100;stop=str1,str2")
    )
    assert (changed.sampling.temperature, changed.sampling.top_p) == (0.5, 0.8)
    assert (changed.sampling.seed, changed.max_tokens) == (23, 100)
    assert changed.stop == ("str1", "str2")


def test_what_is_not_named_stays():
    first = Settings().with_values(parse_settings("temperature=0.5;max_tokens=7"))
    assert first.with_values(parse_settings("top_p=0.9")).sampling.temperature == 0.5
    assert first.with_values(parse_settings(" max_tokens = none ; ")).max_tokens is None


def test_the_description_can_be_set_again():
    settings = Settings().with_values(parse_settings("seed=3;stop=a,b;frequency_penalty=0.5"))
    assert Settings().with_values(parse_settings(settings.describe())) == settings


@pytest.mark.parametrize(
    "text",
    ["warmth=1", "temperature", "temperature=hot", "seed=1.5", "max_tokens=0", "top_p=2", "=1"],
)
def test_what_cannot_be_set_is_refused_with_what_was_got(text):
    with pytest.raises(ConfigError, match=r"expected .*got"):
        Settings().with_values(parse_settings(text))

"""Which words are ours, and which are mlc_llm's."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.mlc.arguments import Arguments, take_apart


def test_everything_is_mlcs_without_our_options() -> None:
    argv = ["compile", "model", "--device", "android:adreno", "-o", "lib.tar", "--opt=O2"]
    assert take_apart(argv) == Arguments(None, False, None, tuple(argv))


@pytest.mark.parametrize(
    "argv",
    [
        ["--shadow-attn", "plan.json", "compile", "m", "-o", "x.so"],
        ["compile", "--shadow-attn", "plan.json", "m", "-o", "x.so"],
        ["compile", "m", "-o", "x.so", "--shadow-attn=plan.json"],
    ],
)
def test_the_plan_is_found_wherever_it_is(argv: list[str]) -> None:
    arguments = take_apart(argv)
    assert arguments == Arguments("plan.json", False, None, ("compile", "m", "-o", "x.so"))
    assert arguments.subcommand == "compile"


def test_a_report_is_printed_or_written() -> None:
    plain = take_apart(["compile", "--shadow-attn-report", "m", "--shadow-attn", "off"])
    assert plain == Arguments("off", True, None, ("compile", "m"))
    written = take_apart(["compile", "--shadow-attn-report=r.json", "m", "--shadow-attn", "off"])
    assert written == Arguments("off", True, Path("r.json"), ("compile", "m"))


def test_a_lone_double_dash_ends_our_options() -> None:
    argv = ["chat", "m", "--", "--shadow-attn", "p"]
    assert take_apart(argv) == Arguments(None, False, None, tuple(argv))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["compile", "m", "--shadow-attn"], "--shadow-attn: expected a plan file"),
        (["compile", "m", "--shadow-attn="], "--shadow-attn: expected a plan file"),
        (["compile", "--shadow-attn", "a", "--shadow-attn=b"], "expected --shadow-attn once"),
        (["compile", "--shadow-attn", "a", "--shadow-attn-report="], "expected a file to write"),
        (["compile", "m", "--shadow-attn-report"], "tells what --shadow-attn did"),
    ],
)
def test_mistakes(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        take_apart(argv)

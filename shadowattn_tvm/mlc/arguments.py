"""What was typed: our two options, and everything else, which is mlc_llm's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError

SHADOW_ATTN = "--shadow-attn"
REPORT = "--shadow-attn-report"


@dataclass(frozen=True)
class Arguments:
    """A command line taken apart.

    Attributes
    ----------
    shadow_attn : value of `--shadow-attn`; None where it wasn't given.
    report : `--shadow-attn-report` was given.
    report_file : its value, if it had one.
    rest : all other arguments, in order: the subcommand and what mlc_llm is to make of it.
    """

    shadow_attn: str | None
    report: bool
    report_file: Path | None
    rest: tuple[str, ...]

    @property
    def subcommand(self) -> str | None:
        """mlc_llm's; it comes first."""
        return self.rest[0] if self.rest else None


def take_apart(argv: Sequence[str]) -> Arguments:
    """Find our options anywhere before a lone `--`.

    `--shadow-attn PLAN` and `--shadow-attn=PLAN`; `--shadow-attn-report` and
    `--shadow-attn-report=FILE`. Raises `ConfigError` for one without its value or given twice, and
    for a report about nothing.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    ours: dict[str, str | None] = {}
    rest: list[str] = []
    words = iter(argv[:end])
    for word in words:
        name, separator, value = word.partition("=")
        if name not in (SHADOW_ATTN, REPORT):
            rest.append(word)
            continue
        if name in ours:
            raise ConfigError(f"expected {name} once, got it twice")
        if not separator and name == SHADOW_ATTN:
            value = next(words, "")
        if not value and (separator or name == SHADOW_ATTN):
            raise ConfigError(f"{name}: expected {_EXPECTED[name]}, got nothing")
        ours[name] = value or None
    if REPORT in ours and SHADOW_ATTN not in ours:
        raise ConfigError(f"{REPORT} tells what {SHADOW_ATTN} did: give that, too")
    file = ours.get(REPORT)
    return Arguments(
        shadow_attn=ours.get(SHADOW_ATTN),
        report=REPORT in ours,
        report_file=None if file is None else Path(file),
        rest=(*rest, *argv[end:]),
    )


_EXPECTED = {
    SHADOW_ATTN: "a plan file, a shipped plan's name, or 'off'",
    REPORT: "a file to write",
}

"""What `shadowattn doctor` found, as a document."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..config.json_layout import write_document

State = Literal["ok", "untested", "missing", "broken"]
"""`untested`: there, in another version than ours were tested with; `broken`: there, and it fails
when it is used."""

Section = Literal["compiler", "devices", "MLC-LLM", "optional packages"]


class Finding(BaseModel):
    """One piece, there or not.

    Attributes
    ----------
    required : whether compiling and chatting on this machine takes it.
    found : what is there, or what it says when it fails.
    enables : what it is for.
    install : the one command that brings it; None where no command does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    section: Section
    name: str
    state: State
    required: bool
    found: str
    enables: str
    install: str | None

    @property
    def fails(self) -> bool:
        """Whether nothing will work before this is mended."""
        return self.required and self.state != "ok"


class Report(BaseModel):
    """`shadowattn doctor --json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1] = 1
    findings: Annotated[tuple[Finding, ...], Field(strict=False)]

    @property
    def failing(self) -> tuple[Finding, ...]:
        """What is required and isn't in order."""
        return tuple(finding for finding in self.findings if finding.fails)


def save_report(report: Report, path: Path) -> None:
    """Write a report atomically. Raises `OutputError`."""
    write_document(path, report)

"""`shadowattn doctor`: what this machine has, and how to get the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..doctor import Finding, Report, examine, save_report
from ..errors import ConfigError
from .options import RpcKey, RpcServer, RpcTracker
from .progress import progress_bar, stages

_COLOURS = {"ok": "green", "untested": "yellow", "missing": "yellow", "broken": "red"}


def doctor(
    rpc: RpcServer = None,
    tracker: RpcTracker = None,
    key: RpcKey = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Result file to write.")] = None,
) -> None:
    """What this machine has, what each missing piece would enable, and what installs it.

    Ends with exit code 2 if something required is not in order: what compiling and chatting here
    takes, and the RPC device that was named.
    """
    address = None
    if (rpc, tracker, key) != (None, None, None):
        from ..device.rpc import rpc_address

        address = rpc_address(rpc, tracker, key)
    with progress_bar() as bar:
        update = stages(bar)
        report = examine(address, on_finding=lambda done, total: update("packages", done, total))
    if json_file is not None:
        save_report(report, json_file)
    _print(report)
    if report.failing:
        names = ", ".join(f"{each.name} ({each.state})" for each in report.failing)
        raise ConfigError(f"required, but not in order: {names}")


def _print(report: Report) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "state", "found", "for"):
        table.add_column(heading, overflow="fold")
    section = ""
    for finding in report.findings:
        if finding.section != section:
            section = finding.section
            table.add_row(f"[bold]{section}[/]")
        colour = "red" if finding.fails else _COLOURS[finding.state]
        table.add_row(
            f"  {escape(finding.name)}",
            f"[{colour}]{finding.state}[/]",
            escape(finding.found),
            escape(_purpose(finding)),
        )
    Console().print(table)


def _purpose(finding: Finding) -> str:
    """And what to do, where something is to be done."""
    if finding.state == "ok" or finding.install is None:
        return finding.enables
    return f"{finding.enables}\n-> {finding.install}"

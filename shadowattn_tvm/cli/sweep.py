"""`shadowattn eval --sweep` and `--ablation`: a plan and its variants side by side."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..plan import Plan, load_plan
from .progress import console

if TYPE_CHECKING:  # torch and matplotlib are only needed here
    from ..evaluate import EvaluationSettings
    from ..evaluate.context import Progress
    from ..weights import ModelDirectory

ABLATION = "ablation"


def sweep(
    directory: ModelDirectory,
    plan: Plan,
    settings: EvaluationSettings,
    *,
    kinds: Sequence[str],
    corpus: tuple[str, ...],
    calibration_corpus: Sequence[str] | None,
    calibration_windows: int,
    against: Sequence[str],
    report_folder: Path | None,
    command: str,
    progress: Progress,
) -> None:
    """Run sweeps and say where their reports are. Raises `ConfigError` for unusable options."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigError(
            "sweeps calibrate variants of the plan with torch, which is not installed: "
            "pip install 'shadowattn-tvm[calibrate]'"
        )
    from ..evaluate.sweep_run import SweepRequest, require_kinds, run_sweeps

    if report_folder is None:
        raise ConfigError("--sweep and --ablation write several files: give a folder by --report")
    request = SweepRequest(
        kinds=require_kinds(kinds),
        corpus=corpus,
        calibration_corpus=tuple(calibration_corpus or ("pydoc",)),
        calibration_windows=calibration_windows,
        settings=settings,
        others=dict(map(_named_plan, against)),
        report_folder=report_folder,
        command=command,
    )
    run_sweeps(
        directory,
        plan,
        request,
        progress=progress,
        on_report=lambda path: console.print(f"  {path}", highlight=False),
    )


def _named_plan(text: str) -> tuple[str, Plan]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise ConfigError(f"--against: expected NAME=PLAN.json, got {text!r}")
    return name, load_plan(Path(path))

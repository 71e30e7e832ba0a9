"""Sweeps from start to end: texts, the open model, every kind asked for, reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..compiler.library import check_plan
from ..config.paths import cache_dir
from ..corpora import Document, read_documents
from ..errors import ConfigError
from ..plan import Plan
from ..runtime.tokenizer import ModelTokenizer
from ..weights import ModelDirectory
from .context import EvaluationSettings, Progress
from .held_out import held_out
from .open_model import open_model
from .report import require_plots, write_report
from .sweep import run_sweep
from .sweep_cache import SweepCache
from .sweep_context import SweepContext
from .sweep_document import Kind
from .sweep_kinds import KINDS

LOSSES_FILE = "losses.json"
"""In the folder of measurements."""


@dataclass(frozen=True)
class SweepRequest:
    """What to sweep on what.

    Attributes
    ----------
    kinds : of sweeps, done in this order.
    corpus, calibration_corpus : sources for `corpora.read_documents`: held-out texts, and texts
        that variants of the plan are calibrated on.
    calibration_windows : of the latter.
    settings : sizes and limits.
    others : plans whose allocations the `method` sweep compares, by name.
    report_folder : where reports go.
    command : what the user typed, for the record.
    measurements_folder : where measurements are kept between runs; None takes the user's cache.
    """

    kinds: tuple[Kind, ...]
    corpus: tuple[str, ...]
    calibration_corpus: tuple[str, ...]
    calibration_windows: int
    settings: EvaluationSettings
    others: Mapping[str, Plan]
    report_folder: Path
    command: str
    measurements_folder: Path | None = None


def run_sweeps(
    directory: ModelDirectory,
    plan: Plan,
    request: SweepRequest,
    *,
    progress: Progress = lambda what, done, total: None,
    on_report: Callable[[Path], None] = lambda path: None,
) -> None:
    """Run every kind asked for and write its report; `on_report` is told of each file.

    Raises `ConfigError` (too little text, the same text on both sides, no matplotlib), `PlanError`
    (a plan for another model), `CompileError`, `LibraryError`, `OutputError`.
    """
    require_plots()
    for candidate in (plan, *request.others.values()):
        check_plan(candidate, directory)
    settings = request.settings
    tokenizer = ModelTokenizer.from_directory(directory.path)
    prefix_ids = tuple(directory.chat_config.conv_template.system_prefix_token_ids or ())
    texts = held_out(read_documents(request.corpus), plan, tokenizer, prefix_ids, settings)
    calibration = read_documents(request.calibration_corpus)
    _require_apart(texts.documents, calibration)
    folder = request.measurements_folder or cache_dir() / "sweeps"
    context = SweepContext(
        directory=directory,
        plan=plan,
        windows=texts.windows,
        model=open_model(
            directory,
            context_tokens=settings.context_tokens,
            prefill_chunk_tokens=settings.prefill_chunk_tokens,
        ),
        calibration=calibration,
        calibration_windows=request.calibration_windows,
        calibration_folder=folder,
        others=request.others,
        cache=SweepCache(folder / LOSSES_FILE),
        progress=progress,
    )
    for kind in request.kinds:
        document = run_sweep(kind, context, command=request.command)
        for path in write_report(document, request.report_folder):
            on_report(path)


def require_kinds(names: Sequence[str]) -> tuple[Kind, ...]:
    """The names as kinds. Raises `ConfigError` for one that isn't."""
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise ConfigError(f"unknown sweep {unknown[0]!r}: expected one of {', '.join(KINDS)}")
    return tuple(kind for name in names for kind in KINDS if kind == name)


def _require_apart(evaluated: Sequence[Document], calibrated: Sequence[Document]) -> None:
    by_hash = {document.sha256: document.name for document in calibrated}
    both = [document.name for document in evaluated if document.sha256 in by_hash]
    if both:
        raise ConfigError(
            f"expected different texts to calibrate and to evaluate on, got {both[0]} in both; "
            "take it out of --corpus or --calibration-corpus"
        )

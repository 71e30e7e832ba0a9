"""An evaluation from start to end: text, libraries, tasks, result file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from ..compiler import Phase, compile_library
from ..compiler.kernel_parameters import shadow_spec
from ..compiler.overrides import apply_overrides
from ..corpora import read_documents
from ..errors import ConfigError, LibraryError
from ..plan import Plan
from ..runtime.library_file import read_metadata
from ..runtime.machine import load_weights
from ..runtime.plan_check import require_plan
from ..runtime.session import Session
from ..runtime.tokenizer import ModelTokenizer
from ..weights import ModelDirectory
from .budget import prefill_budget
from .context import EvaluationContext, EvaluationSettings, Progress
from .held_out import HeldOut, held_out
from .open_model import OpenModel, open_model
from .results import (
    EvaluatedCorpus,
    EvaluatedDocument,
    EvaluationRecord,
    Results,
    describe_model,
    describe_plan,
    these_versions,
    this_machine,
)
from .tasks import TASKS


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate on what.

    Attributes
    ----------
    tasks : names in `tasks.TASKS`.
    corpus : sources for `corpora.read_documents`.
    settings : sizes and limits.
    command : what the user typed, for the record.
    libraries : compiled before, by us or by mlc_llm: one with the plan, a dense one, or both; what
        is missing is compiled.
    """

    tasks: tuple[str, ...]
    corpus: tuple[str, ...]
    settings: EvaluationSettings
    command: tuple[str, ...] = ()
    libraries: tuple[Path, ...] = ()


def evaluate(
    directory: ModelDirectory,
    plan: Plan,
    request: EvaluationRequest,
    *,
    on_phase: Callable[[Phase], None] = lambda phase: None,
    progress: Progress = lambda what, done, total: None,
) -> EvaluationRecord:
    """Run the tasks on the plan's compiled library, beside the dense one.

    Raises `ConfigError` (unknown tasks, sizes out of range, too little text), `PlanError` (a plan
    for another model), `CompileError`, `LibraryError`, `WeightsError`.
    """
    require_tasks(request.tasks)
    architecture = apply_overrides(directory.architecture, _limits(request.settings))
    tokenizer = ModelTokenizer.from_directory(directory.path)
    prefix_ids = tuple(directory.chat_config.conv_template.system_prefix_token_ids or ())
    texts = held_out(read_documents(request.corpus), plan, tokenizer, prefix_ids, request.settings)
    context = make_context(
        directory,
        plan,
        texts,
        request.settings,
        libraries=request.libraries,
        on_phase=on_phase,
        progress=progress,
    )
    spec = shadow_spec(plan, architecture)
    settings = request.settings
    results = {name: TASKS[name](context) for name in TASKS if name in request.tasks}
    return EvaluationRecord(
        created=datetime.now(UTC),
        command=request.command,
        versions=these_versions(),
        machine=this_machine(),
        model=describe_model(directory),
        plan=describe_plan(plan),
        corpus=_corpus(request.corpus, texts),
        budget=prefill_budget(spec, settings.context_tokens, settings.prefill_chunk_tokens),
        results=Results.model_validate(results),
    )


def make_context(
    directory: ModelDirectory,
    plan: Plan,
    texts: HeldOut,
    settings: EvaluationSettings,
    *,
    libraries: Sequence[Path] = (),
    on_phase: Callable[[Phase], None] = lambda phase: None,
    progress: Progress = lambda what, done, total: None,
) -> EvaluationContext:
    """Load both libraries, those in `libraries` or else compiled (or found in the cache). The
    weights are held once."""
    limits = _limits(settings)
    architecture = apply_overrides(directory.architecture, limits)
    given = sort_libraries(libraries, plan)
    paths = [
        given.get(variant is not None)
        or compile_library(directory, variant, overrides=limits, on_phase=on_phase).path
        for variant in (None, plan)
    ]
    weights = load_weights(directory)
    dense, shadow = (
        Session(
            directory,
            path,
            context_window_size=settings.context_tokens,
            prefill_chunk_size=settings.prefill_chunk_tokens,
            weights=weights,
        )
        for path in paths
    )

    @cache
    def opened() -> OpenModel:
        return open_model(
            directory,
            context_tokens=settings.context_tokens,
            prefill_chunk_tokens=settings.prefill_chunk_tokens,
            weights=weights,
            on_phase=on_phase,
        )

    return EvaluationContext(
        directory=directory,
        architecture=architecture,
        tokenizer=ModelTokenizer.from_directory(directory.path),
        plan=plan,
        documents=texts.documents,
        windows=texts.windows,
        prefix_ids=tuple(directory.chat_config.conv_template.system_prefix_token_ids or ()),
        dense=dense,
        shadow=shadow,
        open_model=opened,
        settings=settings,
        progress=progress,
    )


def sort_libraries(libraries: Sequence[Path], plan: Plan) -> dict[bool, Path]:
    """The libraries by whether a plan was compiled in. Raises `LibraryError` for one with another
    plan, and for two of a kind."""
    given: dict[bool, Path] = {}
    for path in libraries:
        metadata = read_metadata(path)
        with_plan = metadata.shadow_attn is not None
        if with_plan:
            require_plan(metadata, plan, path)
        if with_plan in given:
            raise LibraryError(
                f"expected at most one dense library and one with the plan, got {given[with_plan]} "
                f"and {path}, both {'with the plan' if with_plan else 'dense'}"
            )
        given[with_plan] = path
    return given


def require_tasks(names: Sequence[str]) -> None:
    """Raise `ConfigError` unless there are names and all are known."""
    unknown = [name for name in names if name not in TASKS]
    if unknown or not names:
        raise ConfigError(
            f"expected tasks out of {', '.join(TASKS)}, got {', '.join(unknown) or 'none'}"
        )


def _limits(settings: EvaluationSettings) -> str:
    """The libraries' limits, as overrides."""
    return (
        f"context_window_size={settings.context_tokens};"
        f"prefill_chunk_size={settings.prefill_chunk_tokens}"
    )


def _corpus(sources: tuple[str, ...], texts: HeldOut) -> EvaluatedCorpus:
    windows = Counter(window.document_sha256 for window in texts.windows)
    return EvaluatedCorpus(
        sources=sources,
        documents=tuple(
            EvaluatedDocument(name=d.name, sha256=d.sha256, windows=windows[d.sha256])
            for d in texts.documents
        ),
        left_out=texts.left_out,
    )

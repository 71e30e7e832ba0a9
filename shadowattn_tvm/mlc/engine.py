"""`mlc_llm chat` and `mlc_llm serve` on a library with shadowAttn.

MLC's command runs as ever, but for the function it ends in: that is called with the library we
compiled, or with the one the user named once we know it is the right one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..plan import Plan
from ..runtime.library_file import require_library
from .installation import require_known_layout, swapped
from .library_cache import LibraryRequest, ready_library
from .report import CompileReport

OverridesOf = Callable[[Mapping[str, Any]], dict[str, Any]]


def chat_with(argv: Sequence[str], plan: Plan | None) -> tuple[CompileReport, ...]:
    """Run `mlc_llm chat` on `argv`, what follows the subcommand. Raises `LibraryError` for a
    `--model-lib` compiled otherwise, and like `compile_with`."""
    return _run("chat", argv, plan, _chat_overrides)


def serve_with(argv: Sequence[str], plan: Plan | None) -> tuple[CompileReport, ...]:
    """Run `mlc_llm serve` on `argv`; see `chat_with`. Models for drafts and embeddings are
    compiled by MLC, densely."""
    return _run("serve", argv, plan, _serve_overrides)


def _chat_overrides(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return dict(vars(arguments["overrides"]))


def _serve_overrides(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's names for two limits are not the compiler's."""
    return {
        **arguments,
        "context_window_size": arguments["max_single_sequence_length"],
        "max_batch_size": arguments["max_num_sequence"],
    }


def _run(
    name: str, argv: Sequence[str], plan: Plan | None, overrides_of: OverridesOf
) -> tuple[CompileReport, ...]:
    require_known_layout(name)
    command = importlib.import_module(f"mlc_llm.cli.{name}")
    original = getattr(command, name)
    reports: list[CompileReport] = []

    def with_library(**arguments: Any) -> None:
        library = arguments["model_lib"]
        if library is None:
            overrides = overrides_of(arguments)
            request = LibraryRequest(
                model=arguments["model"],
                device=arguments["device"],
                overrides=overrides,
                opt=overrides["opt"],
            )
            ready = ready_library(request, plan)
            reports.append(ready.report)
            library = str(ready.path)
        else:
            require_library(Path(library), plan)
        original(**{**arguments, "model_lib": library})

    with swapped(command, **{name: with_library}):
        command.main(list(argv))
    return tuple(reports)

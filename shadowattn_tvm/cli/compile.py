"""`shadowattn compile`: model directory + plan + target -> library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import load_shadow_attn
from .progress import console


def compile_command(
    model: Annotated[Path, typer.Argument(help="Model directory made by convert_weight.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Library to write (.so).")],
    plan: Annotated[
        str, typer.Option("--plan", help="Plan file, a shipped plan's name, or 'off' for dense.")
    ],
    device: Annotated[str, typer.Option(help="What to compile for.")] = "host",
    overrides: Annotated[
        str,
        typer.Option(help='Limits, as "context_window_size=4096;prefill_chunk_size=256".'),
    ] = "",
    debug_dump: Annotated[
        Path | None, typer.Option(help="Folder for the IR after each phase.")
    ] = None,
    tuning_logs: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Folder that `shadowattn tune -o` wrote to, 'shipped' for ours, or 'off' for "
            "hand-chosen tiles only.",
        ),
    ] = "shipped",
) -> None:
    """Compile a model library, with shadowAttn in its attention slots."""
    from ..compiler import Phase, compile_library
    from ..weights import open_model_directory

    def report(phase: Phase) -> None:
        console.print(f"  {phase.duration_s:6.1f} s  {phase.name}", highlight=False)

    library = compile_library(
        open_model_directory(model),
        load_shadow_attn(plan),
        device=device,
        overrides=overrides,
        output=output,
        debug_dump=debug_dump,
        tuning_logs=tuning_logs,
        on_phase=report,
    )
    if library.from_cache:
        console.print("  already compiled: taken from the cache")
    console.print(f"  {library.tuned.describe()}", highlight=False, markup=False, soft_wrap=True)
    print(library.path)

"""`shadowattn compile`: model directory + plan + target -> library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import load_shadow_attn, refuse_options
from .progress import console, progress_bar


def compile_command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Model directory made by convert_weight.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="Library to write (.so, or .tar for an archive of its object files), or folder "
            "for a Hexagon's bank of pilot graphs.",
        ),
    ],
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
    from ..compiler.hexagon import is_hexagon
    from ..weights import open_model_directory

    if is_hexagon(device):
        refuse_options(context, ("debug_dump", "tuning_logs"), f"with --device {device}")
        _compile_bank(model, output, plan, device, overrides)
        return

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


def _compile_bank(model: Path, output: Path, plan: str, device: str, overrides: str) -> None:
    """The pilot graphs of a plan for a DSP."""
    from ..compiler.hexagon import compile_bank
    from ..weights import open_model_directory

    with progress_bar() as bar:
        task = bar.add_task("pilot graphs", total=None)
        bank = compile_bank(
            open_model_directory(model),
            load_shadow_attn(plan),
            device=device,
            output=output,
            overrides=overrides,
            on_graph=lambda done, total: bar.update(task, completed=done, total=total),
        )
    sizes = [graph.code_bytes for graph in bank.manifest.graphs]
    console.print(
        f"  {len(sizes)} graphs of {min(sizes) / 1e3:.1f} to {max(sizes) / 1e3:.1f} kB, "
        f"together {bank.manifest.library.size_bytes / 1e6:.2f} MB",
        highlight=False,
    )
    print(bank.path)

"""`shadowattn trace`: when the stages of a prefill began and ended, or would on a device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..runtime.threads import use_physical_cores
from .options import load_shadow_attn, refuse_options
from .progress import console
from .simulate import simulate as simulate_device

ONLY_SIMULATED = ("context", "layer")
ONLY_MEASURED = ("model", "tokens", "corpus")
"""Parameters of one kind of trace."""


def trace(
    call: typer.Context,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Trace to write, for Perfetto or Chrome.")
    ],
    plan: Annotated[
        str, typer.Option("--plan", help="Plan file or a shipped plan's name, with shared lists.")
    ],
    model: Annotated[
        Path | None,
        typer.Argument(help="Model directory made by convert_weight; not with --simulate."),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens of the prompt.", min=2)] = 2048,
    prefill_chunk: Annotated[
        int | None,
        typer.Option(
            "--prefill-chunk",
            "--chunk",
            help="Tokens of a prefill chunk; by default the model's, simulated the plan's.",
            min=1,
        ),
    ] = None,
    corpus: Annotated[
        list[str] | None, typer.Option(help="Where the prompt is from; pydoc if left out.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the longest launch here (.png or .svg).")
    ] = None,
    simulate: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE",
            help="Run nothing: compute one layer from the cost table of a device "
            "(configs/devices) or of a .toml file, in turn and planned.",
        ),
    ] = None,
    context: Annotated[
        int, typer.Option(help="With --simulate: tokens older than the chunk.", min=1)
    ] = 2048,
    layer: Annotated[
        int | None,
        typer.Option(help="With --simulate: which; by default the one with most work."),
    ] = None,
) -> None:
    """Run a prefill, a core standing in for the NPU, and write when every stage began and ended."""
    if simulate is not None:
        refuse_options(call, ONLY_MEASURED, "with --simulate")
        simulate_device(
            simulate,
            plan,
            output,
            context=context,
            chunk_tokens=prefill_chunk,
            layer=layer,
            plot=plot,
        )
        return
    refuse_options(call, ONLY_SIMULATED, "without --simulate")
    if model is None:
        raise ConfigError("expected a model directory to trace, or --simulate DEVICE; got neither")
    _trace_model(model, plan, output, tokens, prefill_chunk, corpus or ("pydoc",), plot)


def _trace_model(
    model: Path,
    plan: str,
    output: Path,
    tokens: int,
    prefill_chunk: int | None,
    corpus: Sequence[str],
    plot: Path | None,
) -> None:
    """Trace a prefill of the first window of the corpus."""
    use_physical_cores()
    from ..bench.timeline_plot import plot_launch
    from ..bench.trace import save_trace, trace_prefill
    from ..corpora import read_documents, sample_windows
    from ..plan.plot import require_plotting
    from ..runtime.tokenizer import ModelTokenizer
    from ..weights import open_model_directory

    if plot is not None:
        require_plotting(plot)
    chosen = load_shadow_attn(plan)
    if chosen is None:
        raise ConfigError("--plan: expected a plan with a pipeline, got 'off'")
    directory = open_model_directory(model)
    (window,) = sample_windows(
        read_documents(list(corpus)),
        ModelTokenizer.from_directory(directory.path),
        window_tokens=tokens,
        max_windows=1,
        prefix_ids=directory.chat_config.conv_template.system_prefix_token_ids or (),
    )
    chunk = prefill_chunk or directory.architecture.prefill_chunk_size
    traced = trace_prefill(directory, chosen, window.token_ids.tolist(), prefill_chunk_tokens=chunk)
    save_trace(traced.document(), output)
    if plot is not None:
        longest = traced.longest()
        where = f"chunk {1 + longest // traced.num_layers}, layer {longest % traced.num_layers}"
        plot_launch(traced.launches[longest], f"{directory.path.name}, {where}", plot)
    total_ms = sum(launch.makespan_ms for launch in traced.launches)
    console.print(
        f"  {len(traced.launches)} launches, {total_ms:.1f} ms of sparse attention in a prefill of "
        f"{traced.num_tokens} tokens",
        highlight=False,
    )
    print(output)

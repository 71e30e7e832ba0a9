"""`shadowattn trace`: when the stages of a prefill began and ended."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..runtime.threads import use_physical_cores
from .options import load_shadow_attn
from .progress import console


def trace(
    model: Annotated[Path, typer.Argument(help="Model directory made by convert_weight.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Trace to write, for Perfetto or Chrome.")
    ],
    plan: Annotated[
        str, typer.Option("--plan", help="Plan file or a shipped plan's name, with shared lists.")
    ],
    tokens: Annotated[int, typer.Option(help="Tokens of the prompt.", min=2)] = 2048,
    prefill_chunk: Annotated[
        int | None, typer.Option(help="Tokens of a prefill chunk; by default the model's.", min=1)
    ] = None,
    corpus: Annotated[
        list[str] | None, typer.Option(help="Where the prompt is from; pydoc if left out.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the longest launch here (.png or .svg).")
    ] = None,
) -> None:
    """Run a prefill, a core standing in for the NPU, and write when every stage began and ended."""
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
        read_documents(list(corpus or ("pydoc",))),
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

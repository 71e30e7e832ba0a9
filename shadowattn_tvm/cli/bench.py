"""`shadowattn bench`: how long things take, contenders side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from ..errors import ConfigError
from ..runtime.threads import use_physical_cores
from .options import load_shadow_attn
from .progress import progress_bar

if TYPE_CHECKING:  # the command line starts without what only some commands need
    from ..bench import AttentionRow

bench_app = typer.Typer(
    help="How long things take: contenders take turns, results are checked before they are timed.",
    no_args_is_help=True,
)

DEFAULT_CONTEXTS = (1024, 2048, 4096, 8192)


@bench_app.callback()
def bench() -> None:
    """Keeps `attention` a command of its own."""


@bench_app.command("attention")
def attention(
    model: Annotated[Path, typer.Argument(help="Model directory made by convert_weight.")],
    plan: Annotated[str, typer.Option("--plan", help="Plan file or a shipped plan's name.")],
    context: Annotated[
        list[int] | None, typer.Option(help="Older tokens. May be repeated.", min=1)
    ] = None,
    chunk: Annotated[
        list[int] | None, typer.Option(help="Tokens of the chunk. May be repeated.", min=1)
    ] = None,
    workers: Annotated[
        list[int] | None,
        typer.Option(
            help="CPU workers beside a core that stands in for the NPU; 0 = one core does "
            "everything. May be repeated.",
            min=0,
        ),
    ] = None,
    inputs: Annotated[
        Literal["random", "captured"],
        typer.Option(help="random, or captured from the model over --corpus."),
    ] = "random",
    corpus: Annotated[
        list[str] | None, typer.Option(help="Text for captured inputs; pydoc if left out.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Times of every contender.", min=1)] = 7,
    stock: Annotated[bool, typer.Option(help="Time TVM's own kernel too.")] = True,
    seed: Annotated[int, typer.Option(help="Of random inputs.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Result file to write.")] = None,
) -> None:
    """Attention of a prefill chunk to everything older: one layer, all heads."""
    use_physical_cores()
    from ..bench import AttentionBench, AttentionGrid, bench_attention, save_bench
    from ..bench.inputs import LayerInputs, captured_inputs, random_inputs
    from ..compiler.kernel_parameters import shadow_spec
    from ..compiler.library import check_plan
    from ..corpora import read_documents
    from ..evaluate.results import these_versions, this_machine
    from ..weights import open_model_directory

    chosen = load_shadow_attn(plan)
    if chosen is None:
        raise ConfigError("--plan: expected a plan to hold against dense attention, got 'off'")
    directory = open_model_directory(model)
    check_plan(chosen, directory)
    grid = AttentionGrid(
        spec=shadow_spec(chosen, directory.architecture),
        plan=plan,
        contexts=tuple(context or DEFAULT_CONTEXTS),
        chunks=tuple(chunk or (256,)),
        workers=tuple(workers or ((0, 1) if chosen.sharing.pooled else (0,))),
        rounds=rounds,
        inputs=inputs,
        with_stock=stock,
    )

    def layers(num_queries: int, num_keys: int) -> Sequence[LayerInputs]:
        if inputs == "random":
            return [random_inputs(grid.spec.attention, num_queries, num_keys, seed)]
        documents = read_documents(list(corpus or ("pydoc",)))
        return captured_inputs(directory, documents, num_queries, num_keys)

    rows: list[AttentionRow] = []
    with progress_bar() as bar:
        tasks = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        for more in bench_attention(grid, layers, progress=progress):
            rows += more
    if json_file is not None:
        record = AttentionBench(
            created=datetime.now(UTC).replace(microsecond=0),
            command=("shadowattn", *sys.argv[1:]),
            versions=these_versions(),
            machine=this_machine(),
            rows=tuple(rows),
        )
        save_bench(record, json_file)
    _print(rows)


def _print(rows: Sequence[AttentionRow]) -> None:
    from rich.console import Console

    table = Table(title="Attention of one layer to everything older", title_justify="left")
    for heading in ("context", "chunk", "contender", "cores", "past", "ms", "spread", "C/G-Full"):
        table.add_column(heading, justify="left" if heading == "contender" else "right")
    full = {(row.context, row.chunk): row.median_ms for row in rows if row.contender == "cg_full"}
    for row in rows:
        table.add_row(
            f"{row.context:,}",
            str(row.chunk),
            row.contender,
            str(1 + row.workers),
            f"{row.past_fraction:.1%}",
            f"{row.median_ms:.2f}",
            f"{row.spread_ms:.2f}",
            f"{full[row.context, row.chunk] / row.median_ms:.2f}x",
        )
    Console().print(table)

"""`shadowattn bench prefill` and `bench decode`: whole models, contenders side by side."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from ..runtime.threads import THREADS_VARIABLE, num_physical_cores
from .options import load_shadow_attn
from .progress import console, progress_bar, stages

if TYPE_CHECKING:  # the command line starts without what only some commands need
    from ..bench.model import ModelGrid
    from ..bench.model_document import ModelBench, ModelRow, SkippedContender
    from ..compiler import Phase
    from ..weights import ModelDirectory

DEFAULT_PROMPTS = (512, 2048, 4096, 8000)
DEFAULT_CONTEXTS = (512, 4096)

Model = Annotated[Path, typer.Argument(help="Model directory made by convert_weight.")]
PlanOption = Annotated[str, typer.Option("--plan", help="Plan file or a shipped plan's name.")]
Threads = Annotated[
    int | None, typer.Option(help="Of every contender; by default the physical cores.", min=1)
]
PrefillChunk = Annotated[
    int | None,
    typer.Option(help="Tokens of a chunk of our libraries; by default the model's.", min=2),
]
Gguf = Annotated[
    Path | None,
    typer.Option(
        help="The file the weights were made from, for llama.cpp.", exists=True, dir_okay=False
    ),
]
Without = Annotated[
    list[str] | None,
    typer.Option(help="Leave out shadow, torch or llama_cpp. May be repeated."),
]
Corpus = Annotated[
    list[str] | None, typer.Option(help="Where prompts are from; pydoc if left out.")
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Result file to write.")]


def prefill(
    model: Model,
    plan: PlanOption,
    prompt_tokens: Annotated[
        list[int] | None, typer.Option(help="Tokens of a prompt. May be repeated.", min=2)
    ] = None,
    threads: Threads = None,
    rounds: Annotated[
        int | None, typer.Option(help="Of every length; by default 5 to 1, as it grows.", min=1)
    ] = None,
    prefill_chunk: PrefillChunk = None,
    gguf: Gguf = None,
    without: Without = None,
    corpus: Corpus = None,
    json_file: JsonFile = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw time against length here (.png or .svg).")
    ] = None,
) -> None:
    """Time to the first token: our libraries with the plan and dense, torch, llama.cpp."""
    from ..bench.model import bench_prefill
    from ..bench.model_document import PrefillBench, PrefillRow
    from ..bench.model_plot import plot_prefill
    from ..plan.plot import require_plotting
    from .bench_model_tables import print_prefill

    if plot is not None:
        require_plotting(plot)
    lengths = tuple(prompt_tokens or DEFAULT_PROMPTS)
    sources = tuple(corpus or ("pydoc",))
    directory = _directory(model, max(lengths))
    text = _text(directory, sources, max(lengths))
    grid, skipped = _grid(directory, plan, threads, rounds, prefill_chunk, gguf, without)
    rows: list[PrefillRow] = []
    with progress_bar() as bar:
        for more in bench_prefill(
            grid, [text[:length] for length in lengths], progress=stages(bar)
        ):
            rows += more
            _save(PrefillBench, grid, rows, skipped, sources, json_file)
    if plot is not None:
        plot_prefill(rows, f"{directory.path.name}, threads: {grid.threads}", plot)
    print_prefill(rows, skipped)


def decode(
    model: Model,
    plan: PlanOption,
    context: Annotated[
        list[int] | None, typer.Option(help="Tokens of the prompt. May be repeated.", min=2)
    ] = None,
    tokens: Annotated[int, typer.Option(help="To decode after it.", min=1)] = 32,
    threads: Threads = None,
    rounds: Annotated[
        int | None, typer.Option(help="Of every context; by default 5.", min=1)
    ] = None,
    prefill_chunk: PrefillChunk = None,
    gguf: Gguf = None,
    without: Without = None,
    corpus: Corpus = None,
    json_file: JsonFile = None,
) -> None:
    """Tokens a second after a prompt: our libraries with the plan and dense, torch, llama.cpp."""
    from ..bench.model import bench_decode
    from ..bench.model_document import DecodeBench, DecodeRow
    from .bench_model_tables import print_decode

    contexts = tuple(context or DEFAULT_CONTEXTS)
    sources = tuple(corpus or ("pydoc",))
    directory = _directory(model, max(contexts) + tokens)
    text = _text(directory, sources, max(contexts) + tokens)
    texts = [(text[:length], text[length : length + tokens]) for length in contexts]
    grid, skipped = _grid(directory, plan, threads, rounds, prefill_chunk, gguf, without)
    rows: list[DecodeRow] = []
    with progress_bar() as bar:
        for more in bench_decode(grid, texts, progress=stages(bar)):
            rows += more
            _save(DecodeBench, grid, rows, skipped, sources, json_file)
    print_decode(rows, skipped)


def _directory(model: Path, num_tokens: int) -> ModelDirectory:
    """The model, if its context window holds so many tokens."""
    from ..weights import open_model_directory

    directory = open_model_directory(model)
    limit = directory.architecture.context_window_size
    if num_tokens > limit:
        raise ConfigError(
            f"expected at most the {limit} tokens of the model's context window, got {num_tokens}"
        )
    return directory


def _text(directory: ModelDirectory, sources: Sequence[str], num_tokens: int) -> list[int]:
    """So many consecutive tokens, the model's prefix first."""
    from ..corpora import read_documents, sample_windows
    from ..runtime.tokenizer import ModelTokenizer

    (window,) = sample_windows(
        read_documents(list(sources)),
        ModelTokenizer.from_directory(directory.path),
        window_tokens=num_tokens,
        max_windows=1,
        prefix_ids=directory.chat_config.conv_template.system_prefix_token_ids or (),
    )
    token_ids: list[int] = window.token_ids.tolist()
    return token_ids


def _grid(
    directory: ModelDirectory,
    plan: str,
    threads: int | None,
    rounds: int | None,
    prefill_chunk: int | None,
    gguf: Path | None,
    without: Sequence[str] | None,
) -> tuple[ModelGrid, list[SkippedContender]]:
    """What to time, compiled, and who stays away."""
    from ..bench.model import ModelGrid
    from ..bench.model_contenders import model_contenders

    chosen = load_shadow_attn(plan)
    if chosen is None:
        raise ConfigError("--plan: expected a plan to hold against dense attention, got 'off'")
    contenders, skipped = model_contenders(
        directory,
        chosen,
        gguf=gguf,
        without=without or (),
        chunk_tokens=prefill_chunk,
        on_phase=_report_phase,
    )
    grid = ModelGrid(
        directory=directory,
        plan=chosen,
        plan_name=plan,
        contenders=contenders,
        threads=threads or int(os.environ.get(THREADS_VARIABLE) or num_physical_cores()),
        chunk_tokens=prefill_chunk or directory.architecture.prefill_chunk_size,
        rounds=rounds,
    )
    return grid, skipped


def _report_phase(phase: Phase) -> None:
    console.print(f"  {phase.duration_s:6.1f} s  {phase.name}", highlight=False)


def _save(
    kind: type[ModelBench[Any]],
    grid: ModelGrid,
    rows: Sequence[ModelRow],
    skipped: Sequence[SkippedContender],
    sources: tuple[str, ...],
    path: Path | None,
) -> None:
    """Write a bench file of what there is so far, if one is wanted: a run takes minutes."""
    from ..bench import save_bench
    from ..evaluate.results import these_versions, this_machine

    if path is None:
        return
    record = kind(
        created=datetime.now(UTC).replace(microsecond=0),
        command=("shadowattn", *sys.argv[1:]),
        versions=these_versions(),
        machine=this_machine(),
        model=grid.directory.path.name,
        weight_hash=grid.directory.weight_hash,
        text=sources,
        skipped=tuple(skipped),
        rows=tuple(rows),
    )
    save_bench(record, path)

"""`shadowattn eval`: model directory + plan + text -> what shadowAttn costs in accuracy."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError
from .options import load_shadow_attn
from .progress import console, progress_bar, stages
from .sweep import ABLATION, sweep

if TYPE_CHECKING:  # the command line starts without what only some commands need
    from ..compiler import Phase
    from ..evaluate import EvaluationRecord

DEFAULT_TASKS = "recall,ppl,passkey,needle,agreement"


def eval_command(
    model: Annotated[Path, typer.Argument(help="Model directory made by convert_weight.")],
    plan: Annotated[str, typer.Option("--plan", help="Plan file or a shipped plan's name.")],
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            "--corpus",
            help="Held-out text: a file, a directory, pydoc or wikitext2. May be repeated; pydoc "
            "if left out.",
        ),
    ] = None,
    tasks: Annotated[str, typer.Option(help="Some of these.")] = DEFAULT_TASKS,
    windows: Annotated[int, typer.Option(help="Windows of text.", min=1)] = 24,
    context: Annotated[int, typer.Option(help="Tokens of a window.", min=2)] = 2048,
    prefill_chunk: Annotated[
        int | None, typer.Option(help="Tokens of a prefill chunk; by default the model's.", min=2)
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Result file to write.")] = None,
    min_windows: Annotated[
        int, typer.Option(help="Fewer windows are an error; lower it for trials only.", min=1)
    ] = 20,
    min_documents: Annotated[
        int, typer.Option(help="Fewer documents are an error; lower it for trials only.", min=1)
    ] = 3,
    recall_windows: Annotated[int, typer.Option(help="Windows that recall looks at.", min=1)] = 20,
    recall_rows: Annotated[
        int, typer.Option(help="Rows that recall looks at in each head and chunk.", min=1)
    ] = 16,
    seed: Annotated[int, typer.Option(help="Of what is drawn at random.")] = 0,
    sweeps: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            help="Instead of tasks, compare variants of the plan: ratio, buckets, sigma, method, "
            "sharing, voters, rest, pilot or baselines. May be repeated.",
        ),
    ] = None,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Likewise, the plan without its parts.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Folder for the tables and plots of sweeps.")
    ] = None,
    calibration_corpus: Annotated[
        list[str] | None,
        typer.Option(help="Text that variants are calibrated on; pydoc if left out."),
    ] = None,
    calibration_windows: Annotated[
        int, typer.Option(help="Windows of it for each variant.", min=1)
    ] = 4,
    model_lib: Annotated[
        list[Path] | None,
        typer.Option(
            "--model-lib",
            help="A library compiled before, by `compile` or by `mlc_llm compile`: with the plan, "
            "or dense. May be given twice, for both; what is missing is compiled.",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PLAN.json, an allocation for --sweep method. May be repeated."),
    ] = None,
) -> None:
    """Measure a plan on held-out text, on its compiled library, beside the dense one."""
    from ..evaluate import EvaluationRequest, EvaluationSettings, evaluate, save_record
    from ..weights import open_model_directory

    chosen = load_shadow_attn(plan)
    if chosen is None:
        raise ConfigError("--plan: expected a plan to hold against the dense library, got 'off'")
    directory = open_model_directory(model)
    settings = EvaluationSettings(
        num_windows=windows,
        context_tokens=context,
        prefill_chunk_tokens=min(
            context, prefill_chunk or directory.architecture.prefill_chunk_size
        ),
        min_windows=min_windows,
        min_documents=min_documents,
        seed=seed,
        recall_windows=recall_windows,
        recall_rows=recall_rows,
    )
    sources = tuple(corpus or ("pydoc",))
    command = ("shadowattn", *sys.argv[1:])
    kinds = [*(sweeps or ()), *((ABLATION,) if ablation else ())]
    if kinds and model_lib:
        raise ConfigError("--model-lib can't be given with a sweep: it compiles its variants")
    if kinds:
        with progress_bar() as bar:
            sweep(
                directory,
                chosen,
                settings,
                kinds=kinds,
                corpus=sources,
                calibration_corpus=calibration_corpus,
                calibration_windows=calibration_windows,
                against=against or (),
                report_folder=report,
                command=shlex.join(command),
                progress=stages(bar),
            )
        return
    request = EvaluationRequest(
        tasks=tuple(filter(None, (name.strip() for name in tasks.split(",")))),
        corpus=sources,
        settings=settings,
        command=command,
        libraries=tuple(model_lib or ()),
    )
    with progress_bar() as bar:
        record = evaluate(directory, chosen, request, on_phase=_report_phase, progress=stages(bar))
    if record.corpus.left_out:
        names = ", ".join(record.corpus.left_out)
        console.print(f"  left out, since the plan was calibrated on it: {names}", highlight=False)
    if json_file is not None:
        save_record(record, json_file)
    _print(record)


def _report_phase(phase: Phase) -> None:
    console.print(f"  {phase.duration_s:6.1f} s  {phase.name}", highlight=False)


def _print(record: EvaluationRecord) -> None:
    from rich.console import Console

    from ..evaluate.table import record_table

    Console().print(record_table(record))

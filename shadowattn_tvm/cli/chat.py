"""`shadowattn chat`: talk to a model, compiled first if it isn't yet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..plan import Plan
from ..weights import ModelDirectory
from .options import OFF, RpcKey, RpcServer, RpcTracker, load_shadow_attn
from .progress import console


def chat(
    model: Annotated[Path, typer.Argument(help="Model directory made by convert_weight.")],
    model_lib: Annotated[
        Path | None, typer.Option(help="Compiled library; by default compiled into the cache.")
    ] = None,
    shadow_attn: Annotated[
        str | None,
        typer.Option(
            help="Plan file, a shipped plan's name, or 'off' for dense attention. By default "
            "whatever --model-lib was compiled with, and dense without one."
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Answer this and exit, instead of a conversation.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answer.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    overrides: Annotated[
        str, typer.Option(help='Limits, as "context_window_size=4096;prefill_chunk_size=256".')
    ] = "",
    device: Annotated[
        str, typer.Option(help="What to compile for; arm64 for most phones' CPUs.")
    ] = "host",
    rpc: RpcServer = None,
    tracker: RpcTracker = None,
    key: RpcKey = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write tokens, text and statistics here.")
    ] = None,
) -> None:
    """Chat with a model in the terminal; /help lists the commands."""
    from ..device.rpc import connect, rpc_address
    from ..runtime.chat import run_chat, run_prompt
    from ..runtime.library_metadata import LibraryMetadata
    from ..runtime.loading import open_assistant
    from ..runtime.machine import RemoteMachine
    from ..runtime.plan_check import require_plan
    from ..runtime.stats import ChatRecord, GenerationRecord, summary, write_record
    from ..weights import open_model_directory

    if model_lib is not None and overrides:
        raise ConfigError("--overrides choose what is compiled: leave out --model-lib, or them")
    address = rpc_address(rpc, tracker, key)
    directory = open_model_directory(model)
    plan = load_shadow_attn(shadow_attn or OFF)
    library = model_lib or _compile(directory, plan, overrides, device)
    # A device's own files are its own business: library and weights are sent to it.
    machine = None if address is None else RemoteMachine(connect(address), shares_files=False)

    def require(metadata: LibraryMetadata, path: Path) -> None:
        if shadow_attn is not None:
            require_plan(metadata, plan, path)

    assistant = open_assistant(directory, library, machine=machine, require=require)
    chosen = {
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "max_tokens": max_tokens,
    }
    settings = assistant.defaults.with_values({k: v for k, v in chosen.items() if v is not None})
    record: GenerationRecord | ChatRecord
    if prompt is None:
        record = run_chat(assistant, settings, system=system)
    else:
        record = run_prompt(assistant, prompt, settings, system=system)
        console.print(summary(record), style="dim", highlight=False, soft_wrap=True)
    if json_file is not None:
        write_record(json_file, record)


def _compile(directory: ModelDirectory, plan: Plan | None, overrides: str, device: str) -> Path:
    """The library, from the cache or compiled into it."""
    from ..compiler import Phase, compile_library

    with console.status("compiling") as status:

        def report(phase: Phase) -> None:
            console.print(f"  {phase.duration_s:6.1f} s  {phase.name}", highlight=False)
            status.update("compiling (once; the next start is instant)")

        return compile_library(
            directory, plan, device=device, overrides=overrides, on_phase=report
        ).path

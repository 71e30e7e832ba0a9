"""`shadowattn tune`: tiles of a model's kernels, measured on the machine that will run them."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError
from ..runtime.threads import use_physical_cores
from .options import load_shadow_attn
from .progress import console, progress_bar, stages

if TYPE_CHECKING:  # the command line starts without what only some commands need
    from ..tune import Rpc, TuningRow

_MAX_PORT = 65535


def tune_command(
    model: Annotated[Path, typer.Argument(help="Model directory made by convert_weight.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="Folder of tuning logs; the database goes into <target>/ there."
        ),
    ],
    plan: Annotated[
        str,
        typer.Option(
            "--plan", help="Plan file, a shipped plan's name, or 'off': its lists are tuned for."
        ),
    ] = "off",
    device: Annotated[str, typer.Option(help="What to tune for.")] = "host",
    kernels: Annotated[
        str | None,
        typer.Option(help="Which kernels, as gemm,list_attention; all that the model has."),
    ] = None,
    trials: Annotated[int, typer.Option(help="Tiles of each kernel.", min=1)] = 32,
    seed: Annotated[int, typer.Option(help="Of the search.", min=0)] = 0,
    rpc_tracker: Annotated[
        str | None,
        typer.Option(
            "--rpc-tracker",
            "--tracker",
            metavar="HOST:PORT",
            help="Measure on a device behind this RPC tracker.",
        ),
    ] = None,
    rpc_key: Annotated[
        str | None,
        typer.Option("--rpc-key", "--key", help="The device's key; with --rpc-tracker."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Result file to write.")] = None,
) -> None:
    """Search for tile sizes with MetaSchedule, here or over RPC; `compile` takes the best."""
    rpc = _rpc(rpc_tracker, rpc_key)
    use_physical_cores()
    from ..compiler import model_workloads, plain_target, resolve_target, target_folder
    from ..evaluate.results import these_versions, this_machine
    from ..tune import (
        TuneSettings,
        Tuning,
        require_tunable,
        save_tuning,
        select_workloads,
        tune,
    )
    from ..weights import open_model_directory

    directory = open_model_directory(model)
    require_tunable(directory.quantization)
    target = resolve_target(device)
    workloads = model_workloads(
        directory.architecture, directory.quantization, load_shadow_attn(plan)
    )
    if kernels is not None:
        workloads = select_workloads(workloads, [kind.strip() for kind in kernels.split(",")])
    settings = TuneSettings(trials=trials, seed=seed, rpc=rpc)
    with progress_bar() as bar:
        rows = tune(workloads, target, output, settings, on_trial=stages(bar))
    for row in rows:
        console.print(f"  {_describe(row)}", highlight=False, markup=False, soft_wrap=True)
    if json_file is not None:
        save_tuning(
            Tuning(
                created=datetime.now(UTC).replace(microsecond=0),
                command=("shadowattn", *sys.argv[1:]),
                versions=these_versions(),
                machine=this_machine(),
                runner="local" if rpc is None else "rpc",
                target=plain_target(target),
                trials=trials,
                seed=seed,
                rows=tuple(rows),
            ),
            json_file,
        )
    print(output / target_folder(target))


def _rpc(tracker: str | None, key: str | None) -> Rpc | None:
    """Raises `ConfigError` for half of the two, and for a malformed address."""
    from ..tune import Rpc

    if (tracker is None) != (key is None):
        raise ConfigError("expected --rpc-tracker and --rpc-key together, got one of them")
    if tracker is None or key is None:
        return None
    host, _, port = tracker.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT):
        raise ConfigError(f"--rpc-tracker: expected HOST:PORT, got {tracker!r}")
    return Rpc(host, int(port), key)


def _describe(row: TuningRow) -> str:
    """One line for people."""
    tried = f"{row.measured} of {row.space} tiles"
    failed = f", {row.failed} failed ({row.reason})" if row.failed else ""
    if row.best is None or row.best_ms is None:
        return f"{row.kernel}: {tried}{failed}"
    sizes = ", ".join(f"{name} {value}" for name, value in row.best.items())
    if row.best == row.hand_chosen:
        return f"{row.kernel}: {tried}{failed}; the hand-chosen tile stays, {row.best_ms:.3f} ms"
    before = f", hand-chosen {row.hand_chosen_ms:.3f} ms" if row.hand_chosen_ms else ""
    return f"{row.kernel}: {tried}{failed}; {row.best_ms:.3f} ms{before}: {sizes}"

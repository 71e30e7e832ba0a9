"""`shadowattn calibrate --stage-costs`: measure a plan's stages and put its heads in order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..pipeline import (
    Shape,
    all_layers_ms,
    in_turn_launches,
    most_kept_first,
    planned_launches,
)
from ..plan import Plan, StageCosts, UnitLaunches, head_order, save_plan
from ..runtime.threads import use_physical_cores
from .options import load_shadow_attn
from .progress import console, progress_bar, stages

if TYPE_CHECKING:  # the command line starts without what only some commands need
    from ..bench import Rig
    from ..evaluate.results import Machine

DEFAULT_CONTEXTS = (512, 1024, 2048, 4096)


def calibrate_stage_costs(
    model: Path,
    plan_name: str,
    output: Path,
    *,
    contexts: Sequence[int] | None,
    chunk_tokens: int | None,
    rounds: int,
    rig: Rig,
) -> None:
    """Measure every list's stages on the rig, fit what they cost, order the heads by it, write the
    plan again.

    The order is for the longest context. Raises `ConfigError` for a plan without shared lists.
    """
    use_physical_cores()
    from ..bench.stage_fit import fit_costs
    from ..bench.stage_times import measure_lists
    from ..compiler.kernel_parameters import shadow_spec
    from ..compiler.library import check_plan
    from ..weights import open_model_directory

    plan = load_shadow_attn(plan_name)
    if plan is None or not plan.sharing.pooled:
        found = "'off'" if plan is None else "one that selects for each query and head"
        raise ConfigError(
            f"--stage-costs: expected a plan whose queries or heads share lists, got {found}: only "
            f"such a plan has a pipeline; make one with `shadowattn calibrate --query-block 16`"
        )
    directory = open_model_directory(model)
    check_plan(plan, directory)
    architecture = directory.architecture
    chunk = chunk_tokens or architecture.prefill_chunk_size
    measured = tuple(
        sorted(set(contexts or _default_contexts(architecture.context_window_size, chunk)))
    )
    with progress_bar() as bar:
        times = measure_lists(
            shadow_spec(plan, architecture),
            contexts=measured,
            chunk=chunk,
            rounds=rounds,
            rig=rig,
            progress=stages(bar),
        )
    fitted = fit_costs(times, query_block=plan.sharing.query_block, head_dim=plan.model.head_dim)
    costs = StageCosts(
        model=fitted.model,
        pilot_error=fitted.pilot_error,
        attend_error=fitted.attend_error,
        machine=_words(rig.machine()),
        contexts=measured,
        chunk_tokens=chunk,
        planned_context=measured[-1],
        rounds=rounds,
        created=datetime.now(UTC).replace(microsecond=0),
        tool_version=version("shadowattn-tvm"),
    )
    shape = Shape(queries=chunk, keys=costs.planned_context)
    planned = planned_launches(plan, costs.model, shape)
    changed = {"head_order": head_order(planned), "stage_costs": costs}
    save_plan(plan.model_copy(update=changed), output)
    _report(plan, planned, costs, shape)
    print(output)


def _words(machine: Machine) -> str:
    cores = "" if machine.physical_cores is None else f"{machine.physical_cores} cores, "
    return f"{machine.processor}, {cores}{machine.threads} threads"


def _default_contexts(context_window: int, chunk: int) -> tuple[int, ...]:
    """Those that the model reaches; the longest that it does where it reaches none."""
    longest = max(context_window - chunk, 1)
    return tuple(context for context in DEFAULT_CONTEXTS if context <= longest) or (longest,)


def _report(plan: Plan, planned: UnitLaunches, costs: StageCosts, shape: Shape) -> None:
    orders = {
        "in turn": in_turn_launches(plan),
        "most kept first": most_kept_first(plan),
        "planned": planned,
    }
    times = (
        f"{name} {all_layers_ms(plan, order, costs.model, shape):.2f} ms"
        for name, order in orders.items()
    )
    console.print(
        f"fitted to {costs.pilot_error:.1%} (pilot) and {costs.attend_error:.1%} (attend) of a "
        f"list's time; by these costs all layers take, after {shape.keys:,} tokens: "
        f"{', '.join(times)}",
        highlight=False,
    )

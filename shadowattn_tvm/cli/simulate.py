"""`shadowattn trace --simulate DEVICE`: a layer's pipeline as a cost table says it would run."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ..config.devices import DeviceCosts, device_costs
from ..errors import ConfigError
from ..pipeline import Shape, Simulation, simulate_layer
from ..plan.plot import require_plotting
from .options import load_shadow_attn
from .progress import console


def simulate(
    device_name: str,
    plan_name: str,
    output: Path,
    *,
    context: int,
    chunk_tokens: int | None,
    layer: int | None,
    plot: Path | None,
) -> None:
    """Simulate one layer in several orders; write the trace and the picture, compare the orders.

    Raises `ConfigError` for an unknown device and a plan without a pipeline there.
    """
    if plot is not None:
        require_plotting(plot)
    plan = load_shadow_attn(plan_name)
    if plan is None:
        raise ConfigError("--plan: expected a plan to simulate, got 'off'")
    device = device_costs(device_name)
    shape = Shape(queries=chunk_tokens or plan.provenance.prefill_chunk_tokens, keys=context)
    simulation = simulate_layer(plan, device.costs, shape, layer)

    from ..bench.timeline import simulated_timeline
    from ..bench.trace import save_trace
    from ..bench.trace_events import simulated_document

    what = (
        f"SIMULATED from the cost table of {device.name}: {plan.model.name}, layer "
        f"{simulation.layer}, {shape.queries} queries, {shape.keys:,} older tokens"
    )
    compared = [
        simulated_timeline(simulation, order) for order in (simulation.in_turn, simulation.planned)
    ]
    save_trace(simulated_document(compared, what, {"layer": simulation.layer}), output)
    if plot is not None:
        from ..bench.timeline_plot import plot_timelines

        plot_timelines(compared, what, plot)
    _report(what, device, simulation)
    print(output)


def _report(what: str, device: DeviceCosts, simulation: Simulation) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("order", "launches", "ms", "of the bound"):
        table.add_column(heading, justify="left" if heading == "order" else "right")
    bound = simulation.lower_bound_ms
    for order in simulation.orders:
        table.add_row(
            escape(order.name),
            str(len(order.order)),
            f"{order.makespan_ms:.3f}",
            f"{order.makespan_ms / bound:.3f}",
        )
    table.add_row("lower bound", "", f"{bound:.3f}", "")
    console.print(what, highlight=False, markup=False, soft_wrap=True)
    console.print(table, highlight=False)
    dense = len(simulation.jobs.dense_units)
    notes = [
        "nothing ran: times follow from the costs in the table, and all heads are in one bucket",
        *([f"{dense} heads or groups keep everything and are not in the pipeline"] * (dense > 0)),
        *(f"{stage}: {source}" for stage, source in device.sources.model_dump().items()),
    ]
    for note in notes:
        console.print(f"  {note}", highlight=False, markup=False)

"""`bench pipeline`: one launch for all items, against its lower bound and against simpler ways."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from tir_kernels.spec import ShadowSpec, keep_count

from ..errors import ConfigError
from ..pipeline.johnson import lagged_makespan
from .attention import AttentionGrid, LayersOf
from .document import PipelineRow
from .inputs import SlotCall
from .kernels import Schedule, stamped_kernels
from .reference import require_close, shadow_reference
from .rig import HERE, Kernel, Rig
from .stamps import Launch, LaunchFile, collected_launches
from .timing import Contender, alternate, clocked_ms, quartile_distance

_THREADS: dict[Schedule, int] = {"pipelined": 2, "per_launch": 2, "sequential": 1}

Launches = dict[Schedule, list[list[Launch]]]
"""By schedule and round: a launch for each layer."""


def bench_pipeline(
    grid: AttentionGrid,
    layers: LayersOf,
    *,
    rig: Rig = HERE,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Iterator[PipelineRow]:
    """A row for every context and chunk, timed on the rig.

    Raises `DeviceError` if its device is lost or has one thread only, `CompileError` for a plan
    that has no pipeline, `ConfigError` for a context in which all heads run dense and
    `WrongResultError` for a schedule that computes something else.
    """
    sparse = {context: sparse_layers(grid.spec, context) for context in grid.contexts}
    kernels = stamped_kernels(rig, grid.spec)
    slot_call = partial(SlotCall, grid.spec.attention)
    with collected_launches(rig) as collected:
        for context in grid.contexts:
            for chunk in grid.chunks:
                inputs = layers(chunk, context)
                calls = [
                    (layer, slot_call(inputs[layer % len(inputs)], layer, rig.device))
                    for layer in sparse[context]
                ]
                report = partial(progress, f"{context} tokens, chunk of {chunk}")
                launches = timed(rig, grid, kernels, calls, collected, report)
                yield row_of(grid, context, chunk, launches)


def sparse_layers(spec: ShadowSpec, context: int) -> list[int]:
    """Those with sparse heads after `context` tokens. Raises `ConfigError` if there are none."""
    found = [
        layer
        for layer, heads in enumerate(spec.heads)
        if any(keep_count(context, head.keep_ratio_q16, spec.k_min) < context for head in heads)
    ]
    if not found:
        raise ConfigError(
            f"--context: the plan keeps all of {context} tokens in every head; expected a longer "
            f"context"
        )
    return found


def timed(
    rig: Rig,
    grid: AttentionGrid,
    kernels: dict[Schedule, Kernel],
    calls: Sequence[tuple[int, SlotCall]],
    collected: LaunchFile,
    report: Callable[[int, int], None],
) -> Launches:
    """The launches of all schedules that have a kernel, which take turns; the first round doesn't
    count. `collected`: where the kernels' launches arrive."""
    rounds: Launches = {schedule: [] for schedule in kernels}
    layer, call = calls[0]
    wanted = shadow_reference(grid.spec, layer, call.inputs)
    for schedule, kernel in kernels.items():
        rig.use_threads(_THREADS[schedule])
        call(kernel, 0.0)
        require_close(schedule, call.output(), wanted)
    collected.take()

    def run(schedule: Schedule) -> None:
        for _, each in calls:
            each(kernels[schedule], 0.0)
        rounds[schedule].append(collected.take())

    contenders = [
        Contender(
            schedule, partial(clocked_ms, partial(run, schedule)), len(calls), _THREADS[schedule]
        )
        for schedule in kernels
    ]
    alternate(contenders, rounds=grid.rounds, use_threads=rig.use_threads, on_round=report)
    return {schedule: kept[1:] for schedule, kept in rounds.items()}


def row_of(grid: AttentionGrid, context: int, chunk: int, launches: Launches) -> PipelineRow:
    """What the launches of all rounds come to."""
    geometry = grid.spec.attention
    pipelined = launches["pipelined"]
    makespans = {
        schedule: _by_round(rounds, lambda launch: launch.makespan_ms)
        for schedule, rounds in launches.items()
    }
    return PipelineRow(
        context=context,
        chunk=chunk,
        heads=geometry.num_q_heads,
        kv_heads=geometry.num_kv_heads,
        head_dim=geometry.head_dim,
        inputs=grid.inputs,
        plan=grid.plan,
        items=len(pipelined[0][0].pilot_ms),
        pilot_ms=statistics.median(_by_round(pipelined, lambda one: float(one.pilot_ms.sum()))),
        attend_ms=statistics.median(_by_round(pipelined, lambda one: float(one.attend_ms.sum()))),
        makespan_ms=statistics.median(makespans["pipelined"]),
        spread_ms=quartile_distance(makespans["pipelined"]),
        lower_bound_ms=statistics.median(_by_round(pipelined, _bound_ms)),
        per_launch_ms=statistics.median(makespans["per_launch"]),
        sequential_ms=statistics.median(makespans["sequential"]),
        rounds=grid.rounds,
        checked=True,
    )


def _by_round(rounds: Sequence[Sequence[Launch]], figure: Callable[[Launch], float]) -> list[float]:
    """A figure of launches, on average over the layers of each round."""
    return [statistics.fmean(figure(launch) for launch in layers) for layers in rounds]


def _bound_ms(launch: Launch) -> float:
    """What no order of a launch's items can beat, by its own stage times: whatever slowed them."""
    pilot, attend = launch.pilot_ms.tolist(), launch.attend_ms.tolist()
    return lagged_makespan(pilot, [0.0] * len(pilot), attend)

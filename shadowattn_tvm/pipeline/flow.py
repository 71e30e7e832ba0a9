"""The per-head pipeline as a flow shop: what a head costs at each stage, and when it is done.

Every head passes three stages in this order: the pilot estimates on the NPU, the CPU selects, the
CPU or the GPU attends. The pilot runs in launches of one or several heads that have the same scale
bucket, and a launch hands over all its heads when it ends. Heads are selected and attended in the
order of the launches. Where one machine selects and attends, a head's two stages follow each other
there. Where two do, the first may have to keep a head's lists until the other takes them.

Source: "Dynamic Sparse Attention on Mobile SoCs", the head-wise pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigError

Launch = tuple[int, ...]
"""Heads that are launched together, in the order in which they go on."""

Order = tuple[Launch, ...]
"""A plan: every head once."""


@dataclass(frozen=True)
class HeadCost:
    """What a head costs after its pilot, in milliseconds, and which launches it may join.

    Raises `ConfigError` for costs that are negative or not finite.
    """

    bucket: int
    select_ms: float
    attend_ms: float

    def __post_init__(self) -> None:
        for name in ("select_ms", "attend_ms"):
            _require_cost(name, getattr(self, name))


@dataclass(frozen=True)
class Pipeline:
    """A problem to plan.

    Attributes
    ----------
    heads : costs by head.
    launch_ms : duration of a launch of 1, 2, ... heads; no launch is larger.
    shared_cpu : one machine selects and attends.
    blocking : who selects does nothing else until who attends takes a head's lists.

    Raises `ConfigError` without heads or launches, and for costs that are negative or not finite.
    """

    heads: tuple[HeadCost, ...]
    launch_ms: tuple[float, ...]
    shared_cpu: bool
    blocking: bool = False

    def __post_init__(self) -> None:
        if not self.heads or not self.launch_ms:
            raise ConfigError(
                f"expected at least one head and one launch cost, got {len(self.heads)} heads and "
                f"{len(self.launch_ms)} launch costs"
            )
        for cost in self.launch_ms:
            _require_cost("launch_ms", cost)

    def launch(self, launch: Launch) -> float:
        """Duration of a launch in ms. Its size must have a cost."""
        return self.launch_ms[len(launch) - 1]

    def after_pilot(self, head: int) -> tuple[float, float]:
        """What a head costs the second and the third machine, in ms; a shared CPU is the second."""
        cost = self.heads[head]
        if self.shared_cpu:
            return cost.select_ms + cost.attend_ms, 0.0
        return cost.select_ms, cost.attend_ms


@dataclass(frozen=True)
class Span:
    """A stage of a head, or a launch, on a machine, in ms from the start."""

    stage: str
    heads: Launch
    start_ms: float
    end_ms: float


PILOT, SELECT, ATTEND = "pilot", "select", "attend"
"""Stages, by the names that kernels are annotated with."""


def makespan_ms(pipeline: Pipeline, order: Order) -> float:
    """When the last head is done, in ms. Raises `ConfigError` for what is not an order."""
    return max(span.end_ms for span in timeline(pipeline, order))


def timeline(pipeline: Pipeline, order: Order) -> tuple[Span, ...]:
    """Every launch and every later stage of every head, each as early as it can be.

    Raises `ConfigError` for what is not an order.
    """
    require_order(pipeline, order)
    spans = []
    npu = select = attend = 0.0
    for launch in order:
        spans.append(Span(PILOT, launch, npu, npu + pipeline.launch(launch)))
        npu = spans[-1].end_ms
        for head in launch:
            cost = pipeline.heads[head]
            start = max(select, npu)
            select = start + cost.select_ms
            spans.append(Span(SELECT, (head,), start, select))
            start = select if pipeline.shared_cpu else max(attend, select)
            attend = start + cost.attend_ms
            spans.append(Span(ATTEND, (head,), start, attend))
            if pipeline.shared_cpu:
                select = attend
            elif pipeline.blocking:
                select = start
    return tuple(spans)


def require_order(pipeline: Pipeline, order: Sequence[Launch]) -> None:
    """Raise `ConfigError` unless every head is in one launch, no launch is empty or too large, and
    the heads of each have one bucket."""
    heads = sorted(head for launch in order for head in launch)
    if heads != list(range(len(pipeline.heads))):
        raise ConfigError(
            f"expected every head of 0..{len(pipeline.heads) - 1} once, got {list(order)}"
        )
    for launch in order:
        if not 1 <= len(launch) <= len(pipeline.launch_ms):
            raise ConfigError(
                f"expected launches of 1 to {len(pipeline.launch_ms)} heads, got {launch}"
            )
        buckets = {pipeline.heads[head].bucket for head in launch}
        if len(buckets) != 1:
            raise ConfigError(
                f"expected heads of one bucket in a launch, got buckets {sorted(buckets)} in "
                f"{launch}"
            )


def _require_cost(name: str, value: float) -> None:
    if not 0.0 <= value < float("inf"):
        raise ConfigError(f"expected {name} to be finite and at least 0, got {value}")

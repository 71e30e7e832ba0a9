"""What no order of heads can beat."""

from __future__ import annotations

from collections import Counter

from .flow import Pipeline
from .johnson import lagged_makespan


def lower_bound_ms(pipeline: Pipeline) -> float:
    """A makespan, in ms, that no order and no choice of launches stays below.

    The largest of: each machine's work with the shortest way to it and from it; and the optimum of
    each two machines alone, where every head pays its cheapest share of a launch and, between
    machines that are not neighbours, waits for the stage in between without competing for it.
    """
    share = [_cheapest_share(pipeline)] * len(pipeline.heads)
    costs = [pipeline.after_pilot(head) for head in range(len(pipeline.heads))]
    second, third = [cost[0] for cost in costs], [cost[1] for cost in costs]
    nothing = [0.0] * len(costs)
    return max(
        pilot_work_ms(pipeline) + min(b + c for b, c in costs),
        min(pipeline.launch_ms) + sum(second) + min(third),
        min(pipeline.launch_ms) + min(second) + sum(third),
        lagged_makespan(share, nothing, second) + min(third),
        min(pipeline.launch_ms) + lagged_makespan(second, nothing, third),
        lagged_makespan(share, second, third),
    )


def pilot_work_ms(pipeline: Pipeline) -> float:
    """The least time of all launches, in ms: each bucket's heads in launches of the best sizes."""
    in_bucket = Counter(head.bucket for head in pipeline.heads)
    least = [0.0]  # of n heads of a bucket
    for count in range(1, max(in_bucket.values()) + 1):
        sizes = range(1, min(count, len(pipeline.launch_ms)) + 1)
        least.append(min(pipeline.launch_ms[size - 1] + least[count - size] for size in sizes))
    return sum(least[count] for count in in_bucket.values())


def _cheapest_share(pipeline: Pipeline) -> float:
    return min(cost / size for size, cost in enumerate(pipeline.launch_ms, start=1))

"""The order of heads: which are launched together, and what follows what.

Several known rules are tried and the best result is improved and taken. With one machine after the
NPU and launches of one head, Johnson's rule is among them and optimal. Otherwise the problem is
NP-hard and there is no promise but this: the plan is never later than the heads in their own order,
launched one by one.

Planning is offline: it takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .bounds import lower_bound_ms
from .flow import Launch, Order, Pipeline
from .johnson import johnson_order

Clock = tuple[float, float, float]
"""When the NPU and the two machines after it are free again, in ms from the start."""

START: Clock = (0.0, 0.0, 0.0)

_ROUNDING = 1e-9


@dataclass(frozen=True)
class HeadPlan:
    """An order, the rule it comes from, its makespan and the bound below it, in ms."""

    order: Order
    rule: str
    makespan_ms: float
    lower_bound_ms: float


def plan_heads(pipeline: Pipeline) -> HeadPlan:
    """The best order found. Of equally good ones the one whose rule is named first; the heads in
    turn are only taken if every rule does worse."""
    score, bound = Scorer(pipeline), lower_bound_ms(pipeline)
    name, order, least = "", in_turn(pipeline), float("inf")
    for candidate_name, candidate in _candidates(pipeline):
        makespan = score(candidate)
        if _shorter(makespan, least):
            name, order, least = candidate_name, candidate, makespan
        if not _shorter(bound, least):
            break
    improvements: tuple[tuple[str, Callable[[Order], Order]], ...] = (
        (f"{name}, resized", lambda order: _resized(order, pipeline, score)),
        ("insertion", lambda order: _resized(insertion(order, score), pipeline, score)),
    )
    for improved_name, improve in improvements:
        if _shorter(bound, least):
            improved = improve(order)
            if _shorter(score(improved), least):
                name, order, least = improved_name, improved, score(improved)
    return HeadPlan(order, name, least, bound)


def _candidates(pipeline: Pipeline) -> Iterator[tuple[str, Order]]:
    for size in range(1, len(pipeline.launch_ms) + 1):
        launches = _launches(pipeline, size)
        for name, rule in RULES.items():
            yield name, rule(pipeline, launches)
    yield "in turn", in_turn(pipeline)


class Scorer:
    """Makespans of orders, by the same steps as `flow.makespan_ms`, without its checks: the
    planner tries hundreds."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._launch_ms = (0.0, *pipeline.launch_ms)
        self._costs = [pipeline.after_pilot(head) for head in range(len(pipeline.heads))]
        self._blocking = pipeline.blocking and not pipeline.shared_cpu

    def __call__(self, order: Sequence[Launch]) -> float:
        """The makespan in ms of an order, or of a part of one."""
        return self.advance(START, order)[2]

    def advance(self, clock: Clock, order: Sequence[Launch]) -> Clock:
        """The clock after the launches of `order` and their heads."""
        npu, select, attend = clock
        for launch in order:
            npu += self._launch_ms[len(launch)]
            for head in launch:
                second, third = self._costs[head]
                select = (select if select > npu else npu) + second
                start = attend if attend > select else select
                attend = start + third
                if self._blocking:
                    select = start
        return npu, select, attend


def in_turn(pipeline: Pipeline) -> Order:
    """Every head by itself, in the order of their numbers."""
    return tuple((head,) for head in range(len(pipeline.heads)))


def johnson(pipeline: Pipeline, launches: Sequence[Launch]) -> Order:
    """Johnson's rule with all that comes after the pilot as the second stage."""
    pilot = [pipeline.launch(launch) for launch in launches]
    rest = [sum(map(sum, _after(pipeline, launch))) for launch in launches]
    return tuple(launches[i] for i in johnson_order(pilot, rest))


def johnson_outer(pipeline: Pipeline, launches: Sequence[Launch]) -> Order:
    """Johnson's rule on the first and the last machine: the first of Campbell, Dudek and Smith's
    (1970) surrogate problems."""
    pilot = [pipeline.launch(launch) for launch in launches]
    last = [sum(third for _, third in _after(pipeline, launch)) for launch in launches]
    return tuple(launches[i] for i in johnson_order(pilot, last))


def johnson_sums(pipeline: Pipeline, launches: Sequence[Launch]) -> Order:
    """Johnson's rule on the sums of the first two and of the last two machines: the second of
    Campbell, Dudek and Smith's."""
    after = [_after(pipeline, launch) for launch in launches]
    first = [
        pipeline.launch(launch) + sum(second for second, _ in costs)
        for launch, costs in zip(launches, after, strict=True)
    ]
    last = [sum(map(sum, costs)) for costs in after]
    return tuple(launches[i] for i in johnson_order(first, last))


def earliest_finish(pipeline: Pipeline, launches: Sequence[Launch]) -> Order:
    """The paper's greedy rule: next comes the launch whose last head would be attended earliest."""
    score = Scorer(pipeline)
    left, order, clock = list(launches), list[Launch](), START
    while left:
        ends = [score.advance(clock, (launch,)) for launch in left]
        chosen = min(range(len(left)), key=lambda i: ends[i][2])
        clock = ends[chosen]
        order.append(left.pop(chosen))
    return tuple(order)


RULES: Mapping[str, Callable[[Pipeline, Sequence[Launch]], Order]] = {
    "johnson": johnson,
    "johnson, outer machines": johnson_outer,
    "johnson, sums": johnson_sums,
    "earliest finish": earliest_finish,
}
"""By name, what puts given launches in order."""


def insertion(launches: Sequence[Launch], score: Scorer) -> Order:
    """Nawaz, Enscore and Ham's rule (1983): launches with much work first, each where the part of
    the order that exists so far gets longest by least."""
    order = list[Launch]()
    for launch in sorted(launches, key=lambda launch: -score([launch])):
        clock, ends = START, []
        for place in range(len(order) + 1):
            ends.append(score.advance(clock, (launch, *order[place:]))[2])
            clock = score.advance(clock, order[place : place + 1])
        order.insert(ends.index(min(ends)), launch)
    return tuple(order)


def _launches(pipeline: Pipeline, size: int) -> list[Launch]:
    """All heads in launches of `size`, the last of a bucket maybe smaller. Of a bucket
    those with most work after the pilot come first, which is Johnson's order, their pilots being
    alike; within a launch heads go on in Johnson's order for the machines after the NPU."""
    buckets: dict[int, list[int]] = {}
    for head, cost in enumerate(pipeline.heads):
        buckets.setdefault(cost.bucket, []).append(head)
    launches = []
    for heads in buckets.values():
        ranked = sorted(heads, key=lambda head: -sum(pipeline.after_pilot(head)))
        for i in range(0, len(ranked), size):
            together = ranked[i : i + size]
            second, third = zip(*(pipeline.after_pilot(head) for head in together), strict=True)
            launches.append(tuple(together[j] for j in johnson_order(second, third)))
    return launches


def _resized(order: Order, pipeline: Pipeline, score: Scorer) -> Order:
    """The order after splitting launches and joining neighbours as long as that helps: a small
    launch in front lets the CPU start early, larger ones behind it are cheaper."""
    best = score(order)
    improved = True
    while improved:
        improved = False
        for changed in _resizings(order, pipeline):
            makespan = score(changed)
            if _shorter(makespan, best):
                order, best, improved = changed, makespan, True
                break
    return order


def _resizings(order: Order, pipeline: Pipeline) -> list[Order]:
    heads = pipeline.heads
    splits = [
        (*order[:i], launch[:cut], launch[cut:], *order[i + 1 :])
        for i, launch in enumerate(order)
        for cut in range(1, len(launch))
    ]
    joins = [
        (*order[:i], launch + follower, *order[i + 2 :])
        for i, (launch, follower) in enumerate(pairwise(order))
        if heads[launch[0]].bucket == heads[follower[0]].bucket
        and len(launch) + len(follower) <= len(pipeline.launch_ms)
    ]
    return splits + joins


def _after(pipeline: Pipeline, launch: Launch) -> list[tuple[float, float]]:
    return [pipeline.after_pilot(head) for head in launch]


def _shorter(a_ms: float, b_ms: float) -> bool:
    """Whether a is less than b by more than rounding."""
    return a_ms < b_ms * (1.0 - _ROUNDING)

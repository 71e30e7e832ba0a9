"""Simulated timelines: as the planner's spans say, and called a simulation everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowattn_tvm.bench.timeline import Bar, Timeline, simulated_timeline
from shadowattn_tvm.bench.timeline_plot import plot_timelines
from shadowattn_tvm.bench.trace_events import simulated_document
from shadowattn_tvm.config.cost_model import FusedLaunch
from shadowattn_tvm.pipeline import Shape, Simulation, simulate_layer
from shadowattn_tvm.plan import Plan, Sharing
from tests.plan.tiny_plan import cost_model, shared_lists


@pytest.fixture
def simulation(tiny_plan: Plan) -> Simulation:
    plan = shared_lists(tiny_plan, Sharing(query_block=8), (0.1, 0.2, 0.3, 1.0, 0.25, 0.5))
    launches = (FusedLaunch(heads=1, ms=1.0), FusedLaunch(heads=2, ms=1.2))
    costs = cost_model(covers="chunk", queries=16, launches=launches)
    return simulate_layer(plan, costs, Shape(queries=16, keys=1000), layer=1)


def test_bars_name_units_not_jobs(simulation: Simulation) -> None:
    timeline = simulated_timeline(simulation, simulation.in_turn)
    assert list(timeline.machines) == ["NPU", "CPU"]
    assert [bar.items for bar in timeline.machines["NPU"]] == [(0,), (1,), (2,), (4,), (5,)]
    assert [bar.stage for bar in timeline.machines["CPU"]] == ["select", "attend"] * 5
    assert timeline.machines["NPU"][1] == Bar("pilot", 1.0, 2.0, (1,))
    assert timeline.end_ms == pytest.approx(simulation.in_turn.makespan_ms)
    fused = simulated_timeline(simulation, simulation.planned)
    assert sorted(i for bar in fused.machines["NPU"] for i in bar.items) == [0, 1, 2, 4, 5]
    assert any(len(bar.items) == 2 for bar in fused.machines["NPU"])


def test_three_machines_have_three_lanes(tiny_plan: Plan) -> None:
    costs = cost_model(covers="chunk").model_copy(update={"shared_cpu": False})
    simulation = simulate_layer(shared_lists(tiny_plan), costs, Shape(16, 1000))
    timeline = simulated_timeline(simulation, simulation.planned)
    assert list(timeline.machines) == ["NPU", "CPU", "GPU"]
    for machine, stage in (("CPU", "select"), ("GPU", "attend")):
        assert {bar.stage for bar in timeline.machines[machine]} == {stage}


def test_events_say_that_they_are_simulated(simulation: Simulation) -> None:
    orders = (simulation.in_turn, simulation.planned)
    timelines = [simulated_timeline(simulation, order) for order in orders]
    document = simulated_document(timelines, "a phone", {"layer": 1})
    assert document.otherData == {"kind": "simulated", "description": "a phone"}
    names = [event.args["name"] for event in document.traceEvents if event.ph == "M"]
    assert names[:3] == ["SIMULATED, in turn", "NPU (simulated)", "CPU (simulated)"]
    assert names[3].startswith("SIMULATED, planned")
    events = [event for event in document.traceEvents if event.ph == "X"]
    assert {event.pid for event in events} == {1, 2}
    second = [event for event in events if (event.pid, event.tid) == (1, 0)][1]
    assert (second.name, second.ts, second.dur) == ("pilot", 1000.0, 1000.0)
    assert second.args == {"layer": 1, "units": 1}
    assert any(isinstance(event.args["units"], str) for event in events if event.pid == 2)


def test_the_picture_has_every_timeline_and_its_title(tmp_path: Path) -> None:
    bars = (Bar("pilot", 0.0, 2.0, (0,)),), (Bar("select", 2.0, 2.5, (0,)),)
    timelines = [
        Timeline(name, {"NPU": bars[0], "CPU": bars[1]}) for name in ("in turn", "planned")
    ]
    plot_timelines(timelines, "SIMULATED: a phone", tmp_path / "t.svg")
    drawn = (tmp_path / "t.svg").read_text()
    for text in ("SIMULATED: a phone", "in turn: 2.50 ms", "planned: 2.50 ms", "NPU", "select"):
        assert f"<!-- {text} -->" in drawn

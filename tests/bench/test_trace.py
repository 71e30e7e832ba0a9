"""`trace`: a tiny model's prefill, the events it gives, and the picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shadowattn_tvm.bench.stamps import Launch
from shadowattn_tvm.bench.timeline import planned
from shadowattn_tvm.bench.timeline_plot import plot_launch
from shadowattn_tvm.bench.trace import save_trace, trace_prefill
from shadowattn_tvm.bench.trace_events import trace_document
from shadowattn_tvm.errors import CompileError, ConfigError
from shadowattn_tvm.plan import Plan
from shadowattn_tvm.weights import ModelDirectory
from tests.plan.tiny_plan import shared_lists

TOKENS = [int(t) for t in np.random.default_rng(5).integers(0, 256, 60)]


def launch(start_ms: float = 0.0) -> Launch:
    columns = ([0.0, 2.0], [2.0, 3.0], [2.5, 4.0], [3.5, 5.5])
    return Launch(*map(np.array, columns), start_ms=start_ms)


def test_a_prefill_is_traced_layer_by_layer(
    tiny_directory: ModelDirectory, tiny_plan: Plan, tmp_path: Path
) -> None:
    plan = shared_lists(tiny_plan)
    traced = trace_prefill(tiny_directory, plan, TOKENS, prefill_chunk_tokens=16)
    chunks, layers = 3, tiny_directory.architecture.num_hidden_layers  # the first has no past
    assert len(traced.launches) == chunks * layers
    starts = [each.start_ms for each in traced.launches]
    assert starts == sorted(starts)
    save_trace(traced.document(), tmp_path / "trace.json")
    document = json.loads((tmp_path / "trace.json").read_text())
    events = [event for event in document["traceEvents"] if event["ph"] == "X"]
    assert {(e["args"]["chunk"], e["args"]["layer"]) for e in events} == {
        (chunk, layer) for chunk in (1, 2, 3) for layer in range(layers)
    }
    assert {(event["name"], event["tid"]) for event in events} == {("pilot", 0), ("attend", 1)}
    assert all(event["ts"] >= 0 and event["dur"] >= 0 for event in events)


def test_events_by_hand() -> None:
    document = trace_document([launch(7.0), launch(17.0)], num_layers=1)
    events = [event for event in document.traceEvents if event.ph == "X"]
    assert len(events) == 8
    first, *_, last = events
    assert (first.name, first.ts, first.dur) == ("pilot", 0.0, 2000.0)
    assert first.args == {"chunk": 1, "layer": 0, "list": 0}
    assert (last.name, last.ts, last.dur) == ("attend", 14000.0, 1500.0)
    assert last.args == {"chunk": 2, "layer": 0, "list": 1}


def test_planned_has_the_measured_stages_and_no_other_delay() -> None:
    plan = planned(launch())
    np.testing.assert_allclose(plan.pilot_end, [2.0, 3.0])
    np.testing.assert_allclose(plan.attend_begin, [2.0, 3.0])
    np.testing.assert_allclose(plan.attend_end, [3.0, 4.5])


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_picture_is_drawn(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"timeline.{suffix}"
    plot_launch(launch(), "a launch", path)
    assert path.stat().st_size > 1000


def test_mistakes(tiny_directory: ModelDirectory, tiny_plan: Plan) -> None:
    with pytest.raises(ConfigError, match="more tokens than a prefill chunk of 16, got 10"):
        trace_prefill(tiny_directory, tiny_plan, TOKENS[:10], prefill_chunk_tokens=16)
    with pytest.raises(CompileError, match="needs shared lists"):
        trace_prefill(tiny_directory, tiny_plan, TOKENS, prefill_chunk_tokens=16)

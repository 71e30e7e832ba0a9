"""The contenders of `bench attention`: each is checked, then ready to be timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import tvm

from .document import AttentionContender
from .inputs import SlotCall
from .kernels import BudgetedKernel, static_int8_kernel
from .reference import Expected, require_close
from .timing import Contender, use_threads
from .workload import Workload


@dataclass(frozen=True)
class Entry:
    """A contender with what its row says of it.

    Attributes
    ----------
    workers, past_fraction : as in the row.
    has_budget : whether it computes what the plan keeps.
    """

    name: AttentionContender
    workers: int
    has_budget: bool
    past_fraction: float
    contender: Contender


def budgeted_entry(each: BudgetedKernel, workload: Workload) -> Entry:
    """A kernel that reads the plan, on every layer of it; checked on the sparsest."""
    label = f"{each.name} with {each.workers} workers"
    threads = 1 + each.workers
    use_threads(threads)
    call = workload.calls[workload.sparsest]
    call(each.kernel, 0.0)
    require_close(label, call.output(), workload.budgeted(each.name))
    run = partial(_run_all, workload.calls, each.kernel, 0.0)
    return Entry(
        name=each.name,
        workers=each.workers,
        has_budget=True,
        past_fraction=float(np.mean(workload.kept)),
        contender=Contender(label, run, len(workload.calls), threads),
    )


def dense_entry(
    name: AttentionContender,
    kernel: tvm.runtime.Function,
    workload: Workload,
    scale: float = 0.0,
    num_layers: int | None = None,
) -> Entry:
    """A kernel that attends exactly to everything, in at most `num_layers` calls. `scale`: as of
    `SlotCall`."""
    calls = workload.few_calls[:num_layers]
    return _whole_entry(name, kernel, scale, calls, workload.dense)


def static_int8_entry(workload: Workload) -> Entry:
    """NPU-Full, on a core that stands in for the NPU; with scales of its own inputs."""
    kernel = static_int8_kernel(workload.static_int8_spec)
    return _whole_entry("npu_full", kernel, 0.0, workload.few_calls, workload.static_int8)


def _whole_entry(
    name: AttentionContender,
    kernel: tvm.runtime.Function,
    scale: float,
    calls: Sequence[SlotCall],
    wanted: Expected,
) -> Entry:
    use_threads(1)
    calls[0](kernel, scale)
    require_close(name, calls[0].output(), wanted)
    run = partial(_run_all, calls, kernel, scale)
    return Entry(name, 0, False, 1.0, Contender(name, run, len(calls), 1))


def torch_entry(workload: Workload) -> Entry:
    """torch's attention; grouped heads, no mask."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    scale = workload.spec.attention.sm_scale

    def heads_first(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(x).transpose(0, 1).contiguous()[None]

    inputs = [call.inputs for call in workload.few_calls]
    layers = [tuple(map(heads_first, (each.q, each.k, each.v))) for each in inputs]

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=True)

    def run() -> None:
        for q, k, v in layers:
            attend(q, k, v)

    torch.set_num_threads(1)
    output = attend(*layers[0])[0].transpose(0, 1).numpy()
    require_close("torch_sdpa", output, workload.dense)
    return Entry("torch_sdpa", 0, False, 1.0, Contender("torch_sdpa", run, len(layers), 1))


def _run_all(calls: Sequence[SlotCall], kernel: tvm.runtime.Function, scale: float) -> None:
    for call in calls:
        call(kernel, scale)

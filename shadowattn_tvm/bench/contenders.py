"""The contenders of `bench attention`: each is checked, then ready to be timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from .document import AttentionContender
from .inputs import SlotCall
from .kernels import BudgetedKernel, static_int8_kernel
from .reference import Expected, require_close
from .rig import Kernel
from .timing import Contender, clocked_ms
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
    workload.rig.use_threads(threads)
    call = workload.calls[workload.sparsest]
    call(each.kernel, 0.0)
    require_close(label, call.output(), workload.budgeted(each.name))
    elapsed_ms = partial(_elapsed_ms, workload, workload.calls, each.kernel, 0.0)
    return Entry(
        name=each.name,
        workers=each.workers,
        has_budget=True,
        past_fraction=float(np.mean(workload.kept)),
        contender=Contender(label, elapsed_ms, len(workload.calls), threads),
    )


def dense_entry(
    name: AttentionContender,
    kernel: Kernel,
    workload: Workload,
    scale: float = 0.0,
    num_layers: int | None = None,
) -> Entry:
    """A kernel that attends exactly to everything, in at most `num_layers` calls. `scale`: as of
    `SlotCall`."""
    calls = workload.few_calls[:num_layers]
    return _whole_entry(name, kernel, scale, workload, calls, workload.dense)


def static_int8_entry(workload: Workload) -> Entry:
    """NPU-Full, on a core that stands in for the NPU; with scales of its own inputs."""
    kernel = static_int8_kernel(workload.rig, workload.static_int8_spec)
    wanted = workload.static_int8
    return _whole_entry("npu_full", kernel, 0.0, workload, workload.few_calls, wanted)


def _whole_entry(
    name: AttentionContender,
    kernel: Kernel,
    scale: float,
    workload: Workload,
    calls: Sequence[SlotCall],
    wanted: Expected,
) -> Entry:
    workload.rig.use_threads(1)
    calls[0](kernel, scale)
    require_close(name, calls[0].output(), wanted)
    elapsed_ms = partial(_elapsed_ms, workload, calls, kernel, scale)
    return Entry(name, 0, False, 1.0, Contender(name, elapsed_ms, len(calls), 1))


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
    contender = Contender("torch_sdpa", partial(clocked_ms, run), len(layers), 1)
    return Entry("torch_sdpa", 0, False, 1.0, contender)


def _elapsed_ms(
    workload: Workload, calls: Sequence[SlotCall], kernel: Kernel, scale: float
) -> float:
    def run(called: Kernel) -> None:
        for call in calls:
            call(called, scale)

    return workload.rig.elapsed_ms(run, kernel)

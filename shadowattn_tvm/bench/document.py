"""What a benchmark's file says."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field, PositiveFloat, PositiveInt

from ..config.json_layout import write_document
from ..evaluate.document import Count, FiniteFloat, TaskResult
from ..evaluate.results import Machine, Versions

BudgetedContender = Literal["shadow", "cg_sparse", "cg_block_sparse"]
"""Those that compute what a plan keeps."""

AttentionContender = BudgetedContender | Literal["cg_full", "npu_full", "torch_sdpa", "mlc_tir"]
Inputs = Literal["random", "captured"]


class AttentionRow(TaskResult):
    """One contender on the attention of a prefill chunk to everything older, all heads of a layer.

    `workers`: CPU workers beside the NPU's stand-in; 0 = one core does everything. `plan`: whose
    budget and sharing, where there is one; `past_fraction` is what that computes exactly, on
    average over the layers timed. `median_ms` and `spread_ms` (distance of the quartiles) are of
    one layer. `checked`: its results were compared with the reference before it was timed.
    """

    contender: AttentionContender
    context: PositiveInt
    chunk: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    workers: Count
    inputs: Inputs
    plan: str | None
    past_fraction: PositiveFloat
    median_ms: PositiveFloat
    spread_ms: FiniteFloat
    rounds: PositiveInt
    checked: bool


class SkippedAttention(TaskResult):
    """A contender that wasn't timed, and why."""

    contender: AttentionContender
    reason: str


class PipelineRow(TaskResult):
    """One layer's pipeline of two machines, the NPU's stand-in and a worker, on average over the
    layers that have sparse heads.

    All times are from the first pilot's beginning to the last item's end. `makespan_ms`: all items
    in one launch. `lower_bound_ms`: what no order of a launch's items can beat, by Johnson's rule
    on the stage times measured in that very launch. `per_launch_ms`: a launch for every item.
    `sequential_ms`: one core does one stage after the other. Medians over `rounds`;
    `spread_ms` is the distance of the makespan's quartiles. `checked`: as in `AttentionRow`.
    """

    context: PositiveInt
    chunk: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    inputs: Inputs
    plan: str
    items: PositiveInt
    pilot_ms: PositiveFloat
    attend_ms: PositiveFloat
    makespan_ms: PositiveFloat
    spread_ms: FiniteFloat
    lower_bound_ms: PositiveFloat
    per_launch_ms: PositiveFloat
    sequential_ms: PositiveFloat
    rounds: PositiveInt
    checked: bool


class DecodeRow(TaskResult):
    """One contender on the attention of one new token, all heads of a layer, on one core.

    `context`: keys, the newest included. `plan`: whose budget, where there is one;
    `attended_fraction` of the keys is computed exactly, on average over layers and heads.
    `median_ms` and `spread_ms` (distance of the quartiles) are of one layer. `checked`: as in
    `AttentionRow`.
    """

    contender: Literal["dense_decode", "sparse_decode"]
    context: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    inputs: Inputs
    plan: str | None
    attended_fraction: PositiveFloat
    median_ms: PositiveFloat
    spread_ms: FiniteFloat
    rounds: PositiveInt
    checked: bool


Row = TypeVar("Row", bound=TaskResult)


class Bench(TaskResult, Generic[Row]):
    """A bench file: what made it, on what, and its rows."""

    schema_version: Literal[1] = 1
    created: Annotated[datetime, Field(strict=False)]
    command: Annotated[tuple[str, ...], Field(strict=False)]
    versions: Versions
    machine: Machine
    rows: Annotated[tuple[Row, ...], Field(strict=False)]


class PipelineBench(Bench[PipelineRow]):
    """`shadowattn bench pipeline --json`."""


class AttentionBench(Bench[AttentionRow]):
    """`shadowattn bench attention --json`."""

    skipped: Annotated[tuple[SkippedAttention, ...], Field(strict=False)] = ()


class DecodeBench(Bench[DecodeRow]):
    """`shadowattn bench decode-attention --json`."""


def save_bench(bench: Bench[Any], path: Path) -> None:
    """Write a bench file atomically. Raises `OutputError`."""
    write_document(path, bench)

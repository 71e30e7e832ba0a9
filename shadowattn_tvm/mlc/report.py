"""What was done to a library: as data, for people, and on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tvm
from pydantic import BaseModel, ConfigDict

from ..config.atomic import write_text_atomically


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SwappedKernel(_Document):
    """One slot of the KV cache: the kernel MLC put there, and the one that is there now."""

    slot: str
    before: str
    after: str


class CompileReport(_Document):
    """One compiled library.

    Attributes
    ----------
    output : the library.
    target : TVM's description of what it is for.
    quantization : MLC's name.
    plan_hash : of the plan that was compiled in; None for dense attention.
    weights_checked : the plan was compared with the model's weights, not with its shape alone.
    num_layers, num_q_heads, num_kv_heads, head_dim, kv_dtype : the model's attention.
    swapped : slots whose kernels changed.
    added : names of all functions we brought.
    """

    output: str
    target: str
    quantization: str
    plan_name: str | None
    plan_hash: str | None
    weights_checked: bool
    num_layers: int
    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    kv_dtype: str
    swapped: tuple[SwappedKernel, ...]
    added: tuple[str, ...]
    tvm_version: str = tvm.__version__


class _Reports(_Document):
    libraries: tuple[CompileReport, ...]


def describe(report: CompileReport) -> str:
    """For people."""
    attention = (
        f"{report.num_layers} layers, {report.num_q_heads} query and {report.num_kv_heads} KV "
        f"heads of {report.head_dim}, {report.kv_dtype}"
    )
    plan = (
        "none: dense attention"
        if report.plan_hash is None
        else f"{report.plan_name}, {report.plan_hash[:12]}, "
        + ("made for these weights" if report.weights_checked else "weights not there to compare")
    )
    width = max((len(kernel.slot) for kernel in report.swapped), default=0)
    return "\n".join(
        [
            f"library    {report.output}",
            f"target     {report.target}",
            f"model      {report.quantization}: {attention}",
            f"plan       {plan}",
            *(
                f"  {kernel.slot:{width}}  {kernel.before} -> {kernel.after}"
                for kernel in report.swapped
            ),
            f"our functions: {', '.join(report.added) or 'none'}",
        ]
    )


def write_report(path: Path, reports: Sequence[CompileReport]) -> None:
    """As JSON: an object with a list `libraries`. Raises `OutputError`."""
    document = _Reports(libraries=tuple(reports))
    write_text_atomically(path, document.model_dump_json(indent=2) + "\n")


def read_report(path: Path) -> CompileReport:
    """The one library of a report we wrote into the cache."""
    (report,) = _Reports.model_validate_json(path.read_bytes()).libraries
    return report

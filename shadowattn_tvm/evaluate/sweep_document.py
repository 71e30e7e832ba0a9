"""What a sweep writes: every point with its budget, every window with its loss, every difference
with its interval."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from .document import Count, FiniteFloat, Fraction, Interval, TaskResult

Kind = Literal[
    "ratio",
    "buckets",
    "sigma",
    "method",
    "sharing",
    "voters",
    "rest",
    "pilot",
    "baselines",
    "ablation",
]


class Difference(TaskResult):
    """Perplexity of one point relative to another's, over the same windows.

    Attributes
    ----------
    percent : 100 * (exp(mean difference of the losses) - 1).
    ci95_percent : from a paired bootstrap over windows.
    """

    percent: FiniteFloat
    ci95_percent: Interval


class Point(TaskResult):
    """One setting.

    Attributes
    ----------
    label : for people.
    value : its place on the axis of a sweep over a number, else None.
    past_fraction, total_fraction : pairs computed exactly, counted over the windows; None where
        attention is not exact anywhere.
    plan_sha256 : of the plan, None where the point isn't one.
    nll : mean loss of each window in nats per token, in the order of `SweepDocument.windows`.
    against_dense, against_base : differences to the dense model and to the base point.
    """

    label: str
    value: FiniteFloat | None
    past_fraction: Fraction | None
    total_fraction: Fraction | None
    plan_sha256: str | None
    nll: Annotated[tuple[FiniteFloat, ...], Field(strict=False)]
    against_dense: Difference
    against_base: Difference


class SweepWindow(TaskResult):
    """A window and the dense model's mean loss on it, in nats per predicted token."""

    document: str
    document_sha256: str
    start_token: Count
    tokens: Count
    nll_dense: FiniteFloat


class SweepDocument(TaskResult):
    """One sweep.

    Attributes
    ----------
    base : label of the point that others are compared with.
    notes : what a reader must know and no number says.
    command : what was run; versions : of what it ran on.
    """

    schema_version: Literal[1] = 1
    kind: Kind
    model: str
    model_fingerprint: str
    quantization: str
    plan_sha256: str
    plan_method: str
    context_tokens: Count
    prefill_chunk_tokens: Count
    base: str
    notes: Annotated[tuple[str, ...], Field(strict=False)]
    windows: Annotated[tuple[SweepWindow, ...], Field(strict=False)]
    points: Annotated[tuple[Point, ...], Field(strict=False)]
    command: str
    versions: dict[str, str]
    created: Annotated[datetime, Field(strict=False)]

"""Run a sweep: measure its points on held-out windows and compare them, window by window."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version

from ..compiler.kernel_parameters import shadow_spec
from ..plan import plan_hash
from .statistics import relative_interval, relative_percent
from .sweep_context import SweepContext
from .sweep_document import Difference, Kind, Point, SweepDocument, SweepWindow
from .sweep_kinds import KINDS, Comparison
from .sweep_points import Measured, dense_point, measure_points


def run_sweep(kind: Kind, context: SweepContext, *, command: str) -> SweepDocument:
    """Every point of `kind` on `context.windows`, each against the dense model and against the
    base point. `command` is recorded as what to run to get the same.

    Raises `ConfigError` for texts too short to calibrate variants on, `LibraryError` for models
    that yield no finite loss.
    """
    spec = shadow_spec(context.plan, context.directory.architecture)
    comparison = KINDS[kind](context)
    dense, *measured = measure_points(
        context.model,
        context.windows,
        (dense_point(spec), *comparison.points),
        context.cache,
        kind,
        context.progress,
    )
    return _document(kind, context, comparison, dense, measured, command)


def _document(
    kind: Kind,
    context: SweepContext,
    comparison: Comparison,
    dense: Measured,
    measured: list[Measured],
    command: str,
) -> SweepDocument:
    base = next(m for m in measured if m.point.label == comparison.base)
    directory, plan = context.directory, context.plan
    return SweepDocument(
        kind=kind,
        model=plan.model.name,
        model_fingerprint=plan.model.fingerprint,
        quantization=directory.quantization,
        plan_sha256=plan_hash(plan),
        plan_method=plan.provenance.method,
        context_tokens=max(len(window.token_ids) for window in context.windows),
        prefill_chunk_tokens=context.model.session.prefill_chunk_tokens,
        base=comparison.base,
        notes=comparison.notes,
        windows=tuple(
            SweepWindow(
                document=window.document,
                document_sha256=window.document_sha256,
                start_token=window.start_token,
                tokens=len(window.token_ids),
                nll_dense=nll,
            )
            for window, nll in zip(context.windows, dense.nll, strict=True)
        ),
        points=tuple(
            Point(
                label=m.point.label,
                value=m.point.value,
                past_fraction=None if m.budget is None else m.budget.past_fraction,
                total_fraction=None if m.budget is None else m.budget.total_fraction,
                plan_sha256=m.point.plan_sha256,
                nll=m.nll,
                against_dense=_difference(m, dense),
                against_base=_difference(m, base),
            )
            for m in measured
        ),
        command=command,
        versions={
            "shadowattn-tvm": version("shadowattn-tvm"),
            "apache-tvm": version("apache-tvm"),
            "torch": version("torch"),
            "numpy": version("numpy"),
            "python": platform.python_version(),
        },
        created=datetime.now(UTC).replace(microsecond=0),
    )


def _difference(point: Measured, reference: Measured) -> Difference:
    """Window by window: all windows are equally long."""
    nats = [own - other for own, other in zip(point.nll, reference.nll, strict=True)]
    return Difference(percent=relative_percent(nats), ci95_percent=relative_interval(nats))

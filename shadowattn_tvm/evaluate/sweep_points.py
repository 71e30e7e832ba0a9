"""Points of a sweep: what attends, under which name, and its loss on every window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tir_kernels.spec import ShadowSpec

from ..compiler.cache import source_hash
from ..compiler.kernel_parameters import shadow_spec
from ..config.architecture import LlamaConfig
from ..config.chat_config import ModelDtype
from ..corpora import Window
from ..plan import Plan, plan_hash
from .attention import AttentionImplementation
from .baselines import with_uniform_ratio
from .budget import Budget, prefill_budget
from .context import Progress
from .open_model import OpenModel, compile_shadow_kernel
from .slot_adapter import SlotFunction
from .sweep_cache import SweepCache, digest_of
from .tasks.ppl import window_nll

Install = Callable[[OpenModel], None]
"""Makes a model attend in some way from now on."""


@dataclass(frozen=True)
class SweepPoint:
    """One setting to measure.

    Attributes
    ----------
    label, value : as in `sweep_document.Point`.
    key : identifies what attends; equal keys give equal losses.
    prepare : compiles what attends and returns how to make a model use it.
    budget_of : whose keep ratios say what it computes exactly; None where nothing is exact.
    plan_sha256 : of its plan, if it is one.
    """

    label: str
    key: str
    prepare: Callable[[], Install]
    budget_of: ShadowSpec | None
    value: float | None = None
    plan_sha256: str | None = None


@dataclass(frozen=True)
class Measured:
    """A point's mean losses, in nats per predicted token, and what it computes exactly."""

    point: SweepPoint
    nll: tuple[float, ...]
    budget: Budget | None


def dense_point(spec: ShadowSpec, label: str = "dense") -> SweepPoint:
    """The lossless reference: the library's own dense kernels. `spec` gives the geometry."""
    return SweepPoint(label, "dense", lambda: _use_dense, with_uniform_ratio(spec, 1.0))


def plan_point(
    label: str,
    plan: Plan,
    architecture: LlamaConfig,
    value: float | None = None,
    dtype: ModelDtype = "float32",
) -> SweepPoint:
    """A plan, attended with its compiled kernel, for a KV cache of `dtype`. Raises `PlanError` for
    one of another model."""
    spec = shadow_spec(plan, architecture, dtype)
    return SweepPoint(
        label,
        digest_of("plan", spec),
        lambda: _use_kernel(compile_shadow_kernel(spec)),
        spec,
        value,
        plan_hash(plan),
    )


def implementation_point(
    label: str, key: str, implementation: AttentionImplementation, budget_of: ShadowSpec | None
) -> SweepPoint:
    """A baseline."""
    return SweepPoint(label, key, lambda: lambda model: model.use(implementation), budget_of)


def _use_dense(model: OpenModel) -> None:
    model.use_kernels()


def _use_kernel(kernel: SlotFunction) -> Install:
    return lambda model: model.use_kernels(paged=kernel)


def measure_points(
    model: OpenModel,
    windows: Sequence[Window],
    points: Sequence[SweepPoint],
    cache: SweepCache,
    what: str,
    progress: Progress,
) -> list[Measured]:
    """The loss of every point on every window, window by window, so that an interruption leaves
    all points equally far. What `cache` has is not measured again.

    `what` is told to `progress` along with the count. Raises like `score_tokens`.
    """
    losses: list[list[float]] = [[] for _ in points]
    total = len(points) * len(windows)
    runner = _Runner(model)
    for number, window in enumerate(windows):
        for index, point in enumerate(points):
            progress(f"{what}: {point.label}", number * len(points) + index, total)
            key = digest_of(point.key, runner.identity, window_identity(window))
            stored = cache.get(key)
            if stored is None:
                stored = [runner.mean_nll(point, window)]
                cache.put(key, stored)
            losses[index].append(stored[0])
    progress(what, total, total)
    return [
        Measured(point, tuple(nll), _budget(point, windows, model))
        for point, nll in zip(points, losses, strict=True)
    ]


def window_identity(window: Window) -> tuple[str, int, int]:
    """What tells one window from another."""
    return window.document_sha256, window.start_token, len(window.token_ids)


class _Runner:
    """A model, and every attention it was told to use: each is compiled once."""

    def __init__(self, model: OpenModel) -> None:
        self._model = model
        self._prepared: dict[str, Install] = {}
        metadata = model.session.metadata
        self.identity = (
            source_hash(),
            metadata.model_dump_json(),
            model.session.prefill_chunk_tokens,
        )

    def mean_nll(self, point: SweepPoint, window: Window) -> float:
        if point.key not in self._prepared:
            self._prepared[point.key] = point.prepare()
        self._prepared[point.key](self._model)
        return window_nll(self._model.session, window)


def _budget(point: SweepPoint, windows: Sequence[Window], model: OpenModel) -> Budget | None:
    if point.budget_of is None:
        return None
    tokens = max(len(window.token_ids) for window in windows)
    return prefill_budget(point.budget_of, tokens, model.session.prefill_chunk_tokens)

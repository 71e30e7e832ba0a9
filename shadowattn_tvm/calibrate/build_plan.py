"""From measurements to a plan, the same for every method: only the keep ratios differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from tir_kernels.constants import RATIO_ONE
from tir_kernels.spec import ShadowSpec

from ..compiler.kernel_parameters import shadow_spec
from ..corpora import Document, Window
from ..plan import CorpusDocument, Plan, PlannedModel, Provenance
from ..weights import ModelDirectory, model_fingerprint
from .allocation import Ratios, Strides, sparse_pairs
from .budget import PairBudget
from .draft import draft_layers
from .progress import StageProgress, silent
from .resume import PartialResults, fingerprint_of
from .scales import measure_scales
from .settings import CalibrationSettings
from .subject import Subject, prepare_subject

MethodName = Literal["uniform", "paper", "ae", "fisher", "ratios"]

_MEASUREMENTS_VERSION = 2
"""Counts up when a stage measures something else, so that older partial results are not used."""


@dataclass(frozen=True)
class MethodContext:
    """What a method may use to choose keep ratios.

    Attributes
    ----------
    subject : the model and the windows.
    settings : what the user chose.
    budget : counts pairs of one head over one window.
    spec : the pilot and the sharing as the plan will have them; every keep ratio is 1.
    partial : remembers results a window at a time; use a stage name of your own.
    progress : to be told after each window of a stage.
    """

    subject: Subject
    settings: CalibrationSettings
    budget: PairBudget
    spec: ShadowSpec
    partial: PartialResults
    progress: StageProgress


Method = Callable[[MethodContext], Ratios]
"""Keep ratios of all heads, `[layers, query heads]` int64 in units of 1/65536, with 65536 in
`settings.dense_layers`, that together meet `settings.ratio` (`scale_to_budget` does that for any
weights). With `sharing.gqa_group` the heads of a KV head have one ratio."""

StrideChoice = Callable[[MethodContext, Ratios], Strides]
"""Who votes on the lists of heads that keep these ratios: strides `[layers, query heads]` int64,
each of `settings.candidate_strides`, 1 in heads that run dense; with `sharing.gqa_group` the heads
of a KV head have one."""


def calibrate(
    directory: ModelDirectory,
    documents: Sequence[Document],
    method_name: MethodName,
    method: Method,
    settings: CalibrationSettings,
    *,
    choose_strides: StrideChoice | None = None,
    partial_path: Path | None = None,
    progress: StageProgress = silent,
) -> Plan:
    """Calibrate a model directory.

    Parameters
    ----------
    documents : the corpus.
    method_name, method : how keep ratios are chosen, and the name the plan gives it.
    choose_strides : who votes on shared lists, given the keep ratios; None: all queries.
    partial_path : where measurements are kept until the plan is built, to go on from after an
        interruption; None keeps them in memory. The caller removes it once the plan is saved.
    progress : called after each window of each stage.

    Raises `ConfigError` for settings that can't be and a corpus too short for one window (both
    before the model runs), `WeightsError` for weights that can't be read or yield no sane scales.
    """
    subject = prepare_subject(directory, documents, settings)
    architecture = directory.architecture
    budget = PairBudget(subject.window_tokens, subject.prefill_chunk_tokens, settings.k_min)
    if method_name != "ratios":  # which are kept as they are
        shape = (architecture.num_hidden_layers, architecture.num_attention_heads)
        sparse_pairs(settings.ratio, shape, settings.dense_layers, budget)
    model = PlannedModel(
        name=directory.path.name,
        fingerprint=model_fingerprint(directory),
        num_layers=architecture.num_hidden_layers,
        num_q_heads=architecture.num_attention_heads,
        num_kv_heads=architecture.num_key_value_heads,
        head_dim=architecture.head_dim,
    )
    partial = PartialResults(partial_path, _fingerprint(model, subject, settings))
    scales = measure_scales(subject, settings.pilot, partial, progress)
    draft = Plan(
        model=model,
        buckets=settings.buckets,
        k_min=settings.k_min,
        sharing=settings.sharing,
        pilot=settings.pilot,
        rest=settings.rest,
        layers=draft_layers(subject, settings, scales, partial, progress),
        provenance=Provenance(
            method=method_name,
            ratio=settings.ratio,
            corpus=documents_read(subject.windows),
            window_tokens=subject.window_tokens,
            num_windows=len(subject.windows),
            prefill_chunk_tokens=subject.prefill_chunk_tokens,
            created=datetime.now(UTC).replace(microsecond=0),
            tool_version=version("shadowattn-tvm"),
        ),
    )
    spec = shadow_spec(draft, architecture)
    context = MethodContext(subject, settings, budget, spec, partial, progress)
    ratios = method(context)
    planned = with_ratios(draft, ratios, settings.dense_layers)
    if choose_strides is None:
        return planned
    return with_strides(planned, choose_strides(context, ratios))


def with_ratios(plan: Plan, ratios: Ratios, dense_layers: Sequence[int]) -> Plan:
    """The plan with other keep ratios, `[layers, heads]` in units of 1/65536."""
    layers = tuple(
        layer.model_copy(
            update={
                "dense": index in dense_layers,
                "heads": tuple(
                    head.model_copy(update={"keep_ratio": int(ratio) / RATIO_ONE})
                    for head, ratio in zip(layer.heads, row, strict=True)
                ),
            }
        )
        for index, (layer, row) in enumerate(zip(plan.layers, ratios, strict=True))
    )
    return Plan.model_validate({**dict(plan), "layers": layers})


def with_strides(plan: Plan, strides: Strides) -> Plan:
    """The plan with other strides, `[layers, heads]`."""
    layers = tuple(
        layer.model_copy(
            update={
                "heads": tuple(
                    head.model_copy(update={"query_stride": int(stride)})
                    for head, stride in zip(layer.heads, row, strict=True)
                )
            }
        )
        for layer, row in zip(plan.layers, strides, strict=True)
    )
    return Plan.model_validate({**dict(plan), "layers": layers})


def documents_read(windows: Sequence[Window]) -> tuple[CorpusDocument, ...]:
    """The documents that windows were taken from, each once, for a plan's provenance."""
    by_hash = {window.document_sha256: window.document for window in windows}
    return tuple(CorpusDocument(name=name, sha256=sha256) for sha256, name in by_hash.items())


def _fingerprint(model: PlannedModel, subject: Subject, settings: CalibrationSettings) -> str:
    """Of everything that measurements of a window depend on. The ratio and the dense layers are
    left out: they are spent on measurements already made."""
    return fingerprint_of(
        {
            "version": _MEASUREMENTS_VERSION,
            "model": model.model_dump(mode="json"),
            # Quantizations of one checkpoint share a fingerprint, but not their activations.
            "quantization": subject.directory.chat_config.quantization,
            "windows": [[w.document_sha256, w.start_token] for w in subject.windows],
            "window_tokens": subject.window_tokens,
            "prefill_chunk_tokens": subject.prefill_chunk_tokens,
            "k_min": settings.k_min,
            "buckets": settings.buckets.model_dump(mode="json"),
            "pilot": settings.pilot.model_dump(mode="json"),
            "sharing": settings.sharing.model_dump(mode="json"),
            "rest": settings.rest,
            "strides": settings.measured_strides,
            "requant": [settings.requant_percentile, settings.requant_margin],
        }
    )

"""The layers of a plan but for their keep ratios: scales, key means, requantization tables."""

from __future__ import annotations

from collections.abc import Sequence

from tir_kernels.constants import RATIO_ONE
from tir_kernels.spec import HeadParameters, PilotSpec, ShadowSpec

from ..compiler.kernel_parameters import attention_spec
from ..plan import HeadPlan, LayerPlan
from .progress import StageProgress
from .requantization import Table, observe_scores, requant_table
from .resume import PartialResults
from .scales import PilotScales
from .settings import CalibrationSettings
from .subject import Subject

_SCALE_DIGITS = 6
"""Significant digits of a scale in a plan: finer than INT8 can tell apart, coarse enough that
machines that round their float32 sums differently write the same plan."""


def draft_layers(
    subject: Subject,
    settings: CalibrationSettings,
    scales: PilotScales,
    partial: PartialResults,
    progress: StageProgress,
) -> tuple[LayerPlan, ...]:
    """Everything of the layers but their keep ratios, which are 1."""
    layers = tuple(_scaled_layer(scales, layer) for layer in range(len(scales.q)))
    if settings.pilot.score_bits == 32:
        return layers
    tables = _requant_tables(subject, settings, layers, partial, progress)
    return tuple(
        layer.model_copy(
            update={
                "heads": tuple(
                    head.model_copy(update={"requant": table})
                    for head, table in zip(layer.heads, row, strict=True)
                )
            }
        )
        for layer, row in zip(layers, tables, strict=True)
    )


def _scaled_layer(scales: PilotScales, layer: int) -> LayerPlan:
    q_scales, k_scales = scales.q[layer], scales.k[layer]
    group = len(q_scales) // len(k_scales)
    means = None if scales.key_means is None else scales.key_means[layer]
    return LayerPlan(
        dense=False,
        heads=tuple(
            HeadPlan(
                q_scale=_rounded(float(q_scale)),
                k_scale=_rounded(float(k_scales[head // group])),
                keep_ratio=1.0,
            )
            for head, q_scale in enumerate(q_scales)
        ),
        key_means=None
        if means is None
        else tuple(tuple(_rounded(float(x)) for x in head) for head in means),
    )


def _requant_tables(
    subject: Subject,
    settings: CalibrationSettings,
    layers: Sequence[LayerPlan],
    partial: PartialResults,
    progress: StageProgress,
) -> list[list[Table]]:
    """`[layer][query head]`."""
    spec = _exact_score_spec(subject, settings, layers)
    observed = observe_scores(subject, spec, partial, progress)
    return [
        [
            tuple(
                tuple(_rounded(factor) for factor in row)
                for row in requant_table(
                    parameters,
                    observed[layer, :, head],
                    sigma=settings.buckets.sigma,
                    per_axis=settings.buckets.per_axis,
                    score_max=PilotSpec(score_bits=settings.pilot.score_bits).score_max,
                    percentile=settings.requant_percentile,
                    margin=settings.requant_margin,
                )
            )
            for head, parameters in enumerate(heads)
        ]
        for layer, heads in enumerate(spec.heads)
    ]


def _exact_score_spec(
    subject: Subject, settings: CalibrationSettings, layers: Sequence[LayerPlan]
) -> ShadowSpec:
    """The pilot before it requantizes: INT32 scores, no sharing."""
    means = tuple(layer.key_means for layer in layers if layer.key_means is not None)
    return ShadowSpec(
        attention=attention_spec(subject.directory.architecture),
        heads=tuple(
            tuple(HeadParameters(head.q_scale, head.k_scale, RATIO_ONE) for head in layer.heads)
            for layer in layers
        ),
        bucket_sigma=settings.buckets.sigma,
        k_min=settings.k_min,
        buckets_per_axis=settings.buckets.per_axis,
        pilot=PilotSpec(
            bits=settings.pilot.bits, hadamard_rotation=settings.pilot.hadamard_rotation
        ),
        key_means=means or None,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{_SCALE_DIGITS}g}")

"""A plan's budget on attention of another shape: for timing shapes that we have no model of.

The keep ratios of each layer, and who votes at them, are dealt out to the heads of the shape, in
turn; scales are those of the inputs, as a calibration on them would find. What it selects means
nothing, how long it takes does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tir_kernels.pilot.quantize import bucket_scales
from tir_kernels.reference.pilot import hadamard, quantize
from tir_kernels.spec import AttentionSpec, HeadParameters, ShadowSpec

from .inputs import LayerInputs


def on_shape(spec: ShadowSpec, geometry: AttentionSpec, inputs: LayerInputs) -> ShadowSpec:
    """The plan's parameters `spec` for heads of `geometry`, with the scales of `inputs`."""
    own = spec.attention.group_size if spec.pilot.share_group else 1
    new = geometry.group_size if spec.pilot.share_group else 1
    scales = _scales(spec, geometry, inputs)
    layers = []
    for heads in spec.heads:
        owners = heads[::own]
        dealt = [owners[index // new % len(owners)] for index in range(len(scales))]
        layers.append(
            tuple(
                replace(head, keep_ratio_q16=of.keep_ratio_q16, query_stride=of.query_stride)
                for head, of in zip(scales, dealt, strict=True)
            )
        )
    return ShadowSpec(
        geometry,
        tuple(layers),
        bucket_sigma=spec.bucket_sigma,
        k_min=spec.k_min,
        buckets_per_axis=spec.buckets_per_axis,
        pilot=spec.pilot,
        rest=spec.rest,
    )


def _scales(spec: ShadowSpec, geometry: AttentionSpec, inputs: LayerInputs) -> list[HeadParameters]:
    """Of every head, measured."""
    q, k = (
        hadamard(rows) if spec.pilot.hadamard_rotation else rows for rows in (inputs.q, inputs.k)
    )
    heads = []
    for head in range(geometry.num_q_heads):
        queries, keys = q[:, head], k[:, head // geometry.group_size]
        most = spec.pilot.quant_max
        q_scale, k_scale = (float(np.abs(rows).max()) / most for rows in (queries, keys))
        requant = None
        if spec.pilot.requantize:
            q8, k8 = (
                quantize(rows, np.float32(scale), most).astype(np.int32)
                for rows, scale in ((queries, q_scale), (keys, k_scale))
            )
            largest = int(np.abs(q8 @ k8.T).max())
            requant = _table(spec, q_scale, k_scale, spec.pilot.score_max / largest)
        heads.append(HeadParameters(q_scale, k_scale, 0, requant))
    return heads


def _table(
    spec: ShadowSpec, q_scale: float, k_scale: float, factor: float
) -> tuple[tuple[float, ...], ...]:
    """One output scale for all pairs of buckets: that of the middle ones at `factor`."""
    q_axis, k_axis = (
        bucket_scales(scale, spec.bucket_sigma, spec.buckets_per_axis)
        for scale in (q_scale, k_scale)
    )
    return tuple(
        tuple(min(factor * (q * k) / (q_scale * k_scale), 1.0) for k in k_axis) for q in q_axis
    )

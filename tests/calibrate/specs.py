"""Specs of every kind of pilot and sharing, with random parameters."""

from __future__ import annotations

import numpy as np

from tir_kernels.constants import RATIO_ONE
from tir_kernels.spec import AttentionSpec, HeadParameters, PilotSpec, ShadowSpec

NUM_LAYERS = 2

PILOTS = {
    "per query": PilotSpec(),
    "4 bits, rotated": PilotSpec(bits=4, hadamard_rotation=True),
    "per query, INT8 scores": PilotSpec(score_bits=8),
    "blocks of 8": PilotSpec(score_bits=8, query_block=8),
    "groups": PilotSpec(score_bits=8, share_group=True),
    "groups in blocks of 16": PilotSpec(score_bits=8, share_group=True, query_block=16),
}


def make_spec(pilot: PilotSpec, *, centered: bool = False, per_axis: int = 3) -> ShadowSpec:
    """Two layers, six query heads over two KV heads of 16 dims; scales such that all buckets are
    used by rows of different size."""
    rng = np.random.default_rng(5)
    geometry = AttentionSpec(num_q_heads=6, num_kv_heads=2, head_dim=16, sm_scale=0.25)

    # Four times what unit rows measure after rotation, 127 / 7 times with 4 bits.
    unit = (4.0 if pilot.hadamard_rotation else 1.0) * 127 / pilot.quant_max

    def head(index: int, ratio: int, k_scale: float) -> HeadParameters:
        factors = rng.uniform(0.002, 0.02, (per_axis, per_axis))
        table = tuple(tuple(float(f) for f in row) for row in factors)
        return HeadParameters(
            q_scale=unit * (0.02 + 0.005 * index),
            k_scale=k_scale,
            keep_ratio_q16=ratio,
            requant=table if pilot.requantize else None,
        )

    layers = []
    for _ in range(NUM_LAYERS):
        ratios = rng.integers(0, RATIO_ONE // 2, 6)
        if pilot.share_group:
            ratios = np.repeat(ratios[::3], 3)
        k_scales = unit * np.repeat(rng.uniform(0.02, 0.04, 2), 3)
        layers.append(tuple(head(i, int(ratios[i]), float(k_scales[i])) for i in range(6)))
    means = rng.standard_normal((NUM_LAYERS, 2, 16))
    return ShadowSpec(
        attention=geometry,
        heads=tuple(layers),
        bucket_sigma=0.5,
        k_min=4,
        buckets_per_axis=per_axis,
        pilot=pilot,
        key_means=tuple(tuple(tuple(map(float, h)) for h in m) for m in means)
        if centered
        else None,
    )

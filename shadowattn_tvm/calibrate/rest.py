"""The rest of the past by its mean, in torch: what the kernels add for keys that are on no list."""

from __future__ import annotations

from torch import Tensor

from tir_kernels.rest_sample import rest_positions
from tir_kernels.spec import ShadowSpec


def rest_mean(spec: ShadowSpec, past: Tensor) -> Tensor | None:
    """The mean key, or value, of `past` `[heads, n, head_dim]`: `[heads, 1, head_dim]`; None where
    the plan drops the rest, or the past is too short for a sample."""
    if spec.rest == "dropped" or len(rest_positions(past.shape[1])) == 0:
        return None
    sampled = rest_positions(past.shape[1])
    return past[:, sampled.start : sampled.stop : sampled.step].mean(1, keepdim=True)

"""The rest of the past by its mean, in torch: what the kernels add for keys that are on no list."""

from __future__ import annotations

from torch import Tensor

from tir_kernels.rest_sample import rest_positions
from tir_kernels.spec import ShadowSpec


def rest_means(spec: ShadowSpec, k_past: Tensor, v_past: Tensor) -> tuple[Tensor, Tensor] | None:
    """The mean key and the mean value of a past, both `[heads, n, head_dim]`:
    `[heads, 1, head_dim]` each; None where the plan drops the rest, or n is too few."""
    sampled = rest_positions(k_past.shape[1])
    if spec.rest == "dropped" or len(sampled) == 0:
        return None
    every = slice(sampled.start, sampled.stop, sampled.step)
    return k_past[:, every].mean(1, keepdim=True), v_past[:, every].mean(1, keepdim=True)

"""Kernels for Adreno GPUs, through OpenCL: TensorIR with work-groups and local memory of its own.

`slots` is what a compiler flow needs: the kernels of the paged KV cache's attention slots.
"""

from __future__ import annotations

from tvm import tirx

from ..spec import AttentionSpec, ShadowSpec
from .dense_paged_decode import dense_paged_decode
from .dense_paged_prefill import dense_paged_prefill
from .dense_ragged_prefill import dense_ragged_prefill
from .merge_states import merge_states
from .shadow_prefill import shadow_paged_prefill
from .sparse_attention import sparse_attention

__all__ = [
    "dense_paged_decode",
    "dense_paged_prefill",
    "dense_ragged_prefill",
    "merge_states",
    "shadow_paged_prefill",
    "slots",
    "sparse_attention",
]


def slots(attention: AttentionSpec, shadow: ShadowSpec | None = None) -> dict[str, tirx.PrimFunc]:
    """The kernels of the paged KV cache's attention slots, by slot: `ragged_prefill`,
    `paged_prefill` (shadowAttn's if there is a plan), `decode` (dense) and `merge_states`.

    Compile them with `build.pass_context`. As on CPUs, the call's `sm_scale` must carry
    layer_id + scale, and rotation must be done before. Raises `SpecError` for a geometry that
    doesn't fit an Adreno's work-groups.
    """
    return {
        "ragged_prefill": dense_ragged_prefill(attention),
        "paged_prefill": dense_paged_prefill(attention)
        if shadow is None
        else shadow_paged_prefill(shadow),
        "decode": dense_paged_decode(attention),
        "merge_states": merge_states(attention),
    }

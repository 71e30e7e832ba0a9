"""Attention implementations in the form of the KV cache's prefill slots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tir_kernels.reference.attention import sequence_pages
from tir_kernels.spec import AttentionSpec

from .attention import AttentionState, Floats

Attend = Callable[[int, Floats, Floats, Floats], AttentionState]
"""`AttentionImplementation.paged` or `.ragged`."""


Observer = Callable[[int, Floats, Floats, Floats], None]
"""Called with layer, `q` (m, Hq, D) and the past's `k`, `v` (n, Hkv, D): views, not to be kept."""

SlotFunction = Callable[..., Any]
"""What a prefill slot holds: the parameters of `tir_kernels.attention.dense_paged_prefill` or
`dense_ragged_prefill`, `sm_scale` carrying the layer id."""


def paged_slot(attend: Attend, attention: AttentionSpec) -> SlotFunction:
    """`attend` as a paged prefill kernel: the sequence's keys and values out of its pages."""

    def call(
        q: Any,  # (m, Hq, D)
        q_indptr: Any,
        pages: Any,  # (num_pages, 2, Hkv, page_size, D)
        page_indptr: Any,
        page_values: Any,
        length_info: Any,
        _k_rope_pos_offset: Any,
        _q_rope_position: Any,
        output: Any,
        lse: Any,
        causal: int,
        _rotary_mode: int,
        _rope_scale: float,
        _rope_theta: float,
        sm_scale: float,
    ) -> None:
        assert causal == 0, "the runtime asks for every older key"
        chunk = _chunk(attention, q, q_indptr, pages, page_indptr, page_values, length_info)
        _store(attend(int(sm_scale), *chunk), output, lse)

    return call


def observed_paged_slot(
    kernel: SlotFunction, observe: Observer, attention: AttentionSpec
) -> SlotFunction:
    """`kernel`, a paged prefill, with `observe` called before it."""

    def call(*arguments: Any) -> None:
        observe(int(arguments[-1]), *_chunk(attention, *arguments[:_NUM_CHUNK_ARGUMENTS]))
        kernel(*arguments)

    return call


def ragged_slot(attend: Attend) -> SlotFunction:
    """`attend` as a ragged prefill kernel."""

    def call(
        q: Any,  # (m, Hq, D)
        q_indptr: Any,
        k: Any,  # (m, Hkv, D)
        v: Any,  # (m, Hkv, D)
        kv_indptr: Any,
        _q_rope_position: Any,
        _k_rope_pos_offset: Any,
        output: Any,
        lse: Any,
        causal: int,
        _rotary_mode: int,
        _rope_scale: float,
        _rope_theta: float,
        sm_scale: float,
    ) -> None:
        assert causal == 1, "a chunk sees itself causally"
        queries, keys = _one_sequence(q, q_indptr), _one_sequence(k, kv_indptr)
        _store(attend(int(sm_scale), queries, keys, _float32(_view(v))), output, lse)

    return call


_NUM_CHUNK_ARGUMENTS = 6


def _chunk(
    attention: AttentionSpec,
    q: Any,
    q_indptr: Any,
    pages: Any,
    page_indptr: Any,
    page_values: Any,
    length_info: Any,
) -> tuple[Floats, Floats, Floats]:
    """Queries (m, Hq, D), and keys and values (n, Hkv, D) of the one sequence's past."""
    queries = _one_sequence(q, q_indptr)
    first, end = _view(page_indptr)
    k, v = sequence_pages(
        attention, _view(pages), _view(page_values)[first:end], int(_view(length_info)[0])
    )
    return queries, _float32(k), _float32(v)


def _one_sequence(rows: Any, indptr: Any) -> Floats:
    """All `rows`, which must be of one sequence."""
    view = _float32(_view(rows))
    bounds = _view(indptr).tolist()
    assert bounds == [0, len(view)], f"expected one sequence of {len(view)} rows, got {bounds}"
    return view


def _float32(array: NDArray[Any]) -> Floats:
    """What was stored, in float32: the same memory if it is."""
    return array.astype(np.float32, copy=False)


def _view(tensor: Any) -> NDArray[Any]:
    """A tensor of the runtime as an array over the same memory."""
    return np.from_dlpack(tensor)


def _store(state: AttentionState, output: Any, lse: Any) -> None:
    """Copy an implementation's result to the runtime's tensors; refuse what doesn't fit."""
    for name, result, tensor in zip(("output", "lse"), state, (output, lse), strict=True):
        shape = tuple(int(extent) for extent in tensor.shape)
        assert result.shape == shape, f"{name}: expected {shape}, got {result.shape}"
        tensor.copyfrom(np.ascontiguousarray(result, dtype=str(tensor.dtype)))

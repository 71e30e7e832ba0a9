"""What the dense attention tests share: hostile batches, and calls of the kernels on them.

Everything a kernel must not read is NaN: unused pages, the unused slots of last pages, rows of
other memory around index tensors. Everything it must write starts as NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import tvm

from tir_kernels.attention.dense import (
    append,
    dense_paged_decode,
    dense_paged_prefill,
    dense_ragged_prefill,
    merge_states,
)
from tir_kernels.build import build_kernels
from tir_kernels.features import cpu_features
from tir_kernels.spec import AttentionSpec

Array = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int32]
Kernel = Callable[..., None]

TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}

HALF_UNIT = 2.0**-11
"""How far rounding to float16 may move a number, as a part of it. Kernels compute in float32, so
their float16 output is off by this once; the twin is given the same float16 input."""

LARGE_SPREAD = 300.0
LARGE_TOLERANCE = {"rtol": 1e-3, "atol": 1e-3}
"""Queries this much larger than usual give scores in the thousands, whose float32 rounding (1e-4)
is what their weights then are off by."""

SPECS = [
    AttentionSpec(num_q_heads=3, num_kv_heads=3, head_dim=64, sm_scale=64**-0.5),
    AttentionSpec(num_q_heads=4, num_kv_heads=2, head_dim=80, sm_scale=80**-0.5),
    AttentionSpec(num_q_heads=9, num_kv_heads=3, head_dim=64, sm_scale=0.3),
    AttentionSpec(num_q_heads=7, num_kv_heads=1, head_dim=128, sm_scale=128**-0.5),
    AttentionSpec(num_q_heads=8, num_kv_heads=1, head_dim=256, sm_scale=256**-0.5),
]
"""GQA groups 1, 2, 3, 7 and 8; head dims 64, 80, 128 and 256."""

SMOLLM2 = SPECS[2]
"""The geometry of a real model, for tests that need only one."""

ODD_DIMS = SPECS[1]
"""A head dim that is no power of two, and two heads a group."""

HALF, HALF_ODD_DIMS = (replace(spec, dtype="float16") for spec in (SMOLLM2, ODD_DIMS))
"""The same, stored in float16."""

LAYER_IN_SCALE = 17.0
"""At run time the scale argument also carries the layer id; the kernels must not read it."""


def spec_id(spec: AttentionSpec) -> str:
    half = "-half" if spec.dtype == "float16" else ""
    return f"{spec.num_q_heads}q{spec.num_kv_heads}kv-d{spec.head_dim}{half}"


def output_tolerance(
    spec: AttentionSpec, computed: Mapping[str, float] = TOLERANCE
) -> dict[str, float]:
    """What outputs may be off by, if `computed` is what they may be before they are rounded."""
    rounding = HALF_UNIT if spec.dtype == "float16" else 0.0
    return {**computed, "rtol": computed["rtol"] + rounding}


FACTORIES = {
    "append": append,
    "ragged_prefill": dense_ragged_prefill,
    "paged_prefill": dense_paged_prefill,
    "paged_decode": dense_paged_decode,
    "merge_states": merge_states,
}


@cache
def dense_module(
    name: str, spec: AttentionSpec, target: tvm.target.Target
) -> tvm.runtime.Executable:
    """One kernel of one geometry, compiled once per session."""
    return build_kernels({name: FACTORIES[name](spec, cpu_features(target))}, target)


def dense_kernel(name: str, spec: AttentionSpec, target: tvm.target.Target) -> Kernel:
    return dense_module(name, spec, target)[name]


def index_tensor(values: Sequence[int] | Indices) -> tvm.runtime.Tensor:
    """An int32 tensor that starts in the middle of other memory, as the runtime's do."""
    before, after = 3, 2
    padded = np.full(before + len(values) + after, np.iinfo(np.int32).max // 2, np.int32)
    padded[before : before + len(values)] = values
    return tvm.runtime.tensor(padded)._create_view(
        (len(values),), "int32", relative_byte_offset=before * padded.itemsize
    )


def indptr(lengths: Sequence[int]) -> Indices:
    """Where each sequence starts, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def nans(*shape: int, dtype: npt.DTypeLike = np.float32) -> tvm.runtime.Tensor:
    return tvm.runtime.tensor(np.full(shape, np.nan, dtype))


@dataclass(frozen=True)
class PagedBatch:
    """Sequences of keys in shuffled pages."""

    pages: Array
    page_indptr: Indices
    page_values: Indices
    last_page_len: Indices

    def tensors(self) -> tuple[tvm.runtime.Tensor, ...]:
        return (
            tvm.runtime.tensor(self.pages),
            index_tensor(self.page_indptr),
            index_tensor(self.page_values),
            index_tensor(self.last_page_len),
        )


def paged_batch(
    spec: AttentionSpec, kv_lengths: Sequence[int], rng: np.random.Generator
) -> PagedBatch:
    """Random K and V; NaN in every slot that holds no key."""
    size = spec.page_size
    counts = [-(-n // size) for n in kv_lengths]
    spare_pages = 2
    pages = np.full(
        (sum(counts) + spare_pages, 2, spec.stored_heads, size, spec.head_dim), np.nan, spec.dtype
    )
    page_values = rng.permutation(len(pages))[: sum(counts)].astype(np.int32)
    starts = indptr(counts)
    for b, length in enumerate(kv_lengths):
        for i, page in enumerate(page_values[starts[b] : starts[b + 1]]):
            used = min(size, length - i * size)
            pages[page, :, : spec.num_kv_heads, :used] = rng.standard_normal(
                (2, spec.num_kv_heads, used, spec.head_dim), dtype=np.float32
            )
    last = [(n - 1) % size + 1 if n else 0 for n in kv_lengths]
    return PagedBatch(pages, starts, page_values, np.array(last, np.int32))


def run_ragged_prefill(
    kernel: Kernel,
    spec: AttentionSpec,
    q: Array,
    q_indptr: Indices,
    k: Array,
    v: Array,
    kv_indptr: Indices,
    causal: bool,
) -> tuple[Array, Array]:
    output, lse = nans(*q.shape, dtype=q.dtype), nans(*q.shape[:2])
    kernel(
        tvm.runtime.tensor(q),
        index_tensor(q_indptr),
        tvm.runtime.tensor(k),
        tvm.runtime.tensor(v),
        index_tensor(kv_indptr),
        index_tensor([0] * len(q)),
        index_tensor([0] * (len(q_indptr) - 1)),
        output,
        lse,
        int(causal),
        0,
        1.0,
        10000.0,
        LAYER_IN_SCALE + spec.sm_scale,
    )
    return output.numpy(), lse.numpy()


def run_paged_prefill(
    kernel: Kernel,
    spec: AttentionSpec,
    q: Array,
    q_indptr: Indices,
    batch: PagedBatch,
    causal: bool,
    layer: float = LAYER_IN_SCALE,
) -> tuple[Array, Array]:
    """Any kernel of the paged-prefill slot, dense or shadow."""
    output, lse = nans(*q.shape, dtype=q.dtype), nans(*q.shape[:2])
    kernel(
        tvm.runtime.tensor(np.ascontiguousarray(q)),
        index_tensor(q_indptr),
        *batch.tensors(),
        index_tensor([0] * (len(q_indptr) - 1)),
        index_tensor([0] * len(q)),
        output,
        lse,
        int(causal),
        0,
        1.0,
        10000.0,
        layer + spec.sm_scale,
    )
    return output.numpy(), lse.numpy()


def run_paged_decode(
    kernel: Kernel, spec: AttentionSpec, q: Array, batch: PagedBatch
) -> tuple[Array, Array]:
    output, lse = nans(*q.shape, dtype=q.dtype), nans(*q.shape[:2])
    kernel(
        tvm.runtime.tensor(q),
        *batch.tensors(),
        index_tensor([0] * len(q)),
        index_tensor([0] * len(q)),
        output,
        lse,
        0,
        1.0,
        10000.0,
        LAYER_IN_SCALE + spec.sm_scale,
    )
    return output.numpy(), lse.numpy()

"""What the tests of sparse decode share: plans, caches with a shadow, calls of the kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm

from tir_kernels.build import build_kernels
from tir_kernels.constants import RATIO_ONE
from tir_kernels.decode.lists import sparse_decode_lists
from tir_kernels.decode.shadow_append import shadow_append
from tir_kernels.decode.sparse_paged_decode import sparse_paged_decode
from tir_kernels.pilot.shadow_rows import with_key_shadow
from tir_kernels.reference import sparse_decode as twin
from tir_kernels.spec import AttentionSpec, HeadParameters, PilotSpec, ShadowSpec

from .dense_harness import PagedBatch, index_tensor, nans, paged_batch
from .shadow_harness import features_of, filled, tensor

Array = npt.NDArray[Any]

K_MIN = 5
NUM_LAYERS = 3
SPARSE_LAYER, MIXED_LAYER, DENSE_LAYER = range(NUM_LAYERS)
MIXED_RATIOS = [0, RATIO_ONE // 8, RATIO_ONE // 2, RATIO_ONE - 1, RATIO_ONE]

FACTORIES: dict[str, Callable[..., tvm.tirx.PrimFunc]] = {
    "append": shadow_append,
    "decode": sparse_paged_decode,
    "lists": sparse_decode_lists,
}


def decode_spec(
    geometry: AttentionSpec,
    pilot: PilotSpec | None = None,
    *,
    centered: bool = False,
    k_min: int = K_MIN,
) -> ShadowSpec:
    """A sparse layer, a layer of mixed ratios and a dense one, in a cache with a shadow. Scales are
    about those of random data, so that all buckets of Q occur and some keys saturate."""
    rng = np.random.default_rng(geometry.head_dim)
    pilot = pilot or PilotSpec()
    gain = geometry.head_dim**0.5 if pilot.hadamard_rotation else 1.0
    requant = ((1e-3,) * 3,) * 3 if pilot.requantize else None
    ratios = {SPARSE_LAYER: [RATIO_ONE // 5], MIXED_LAYER: MIXED_RATIOS, DENSE_LAYER: [RATIO_ONE]}
    layers = []
    for layer in range(NUM_LAYERS):
        k_scales = rng.uniform(0.01, 0.04, geometry.num_kv_heads) * gain
        layers.append(
            tuple(
                HeadParameters(
                    q_scale=float(rng.uniform(0.01, 0.06) * gain),
                    k_scale=float(k_scales[head // geometry.group_size]),
                    keep_ratio_q16=ratios[layer][head % len(ratios[layer])],
                    requant=requant,
                )
                for head in range(geometry.num_q_heads)
            )
        )
    means = rng.standard_normal((NUM_LAYERS, geometry.num_kv_heads, geometry.head_dim)) * 0.3
    return with_key_shadow(
        ShadowSpec(
            geometry,
            tuple(layers),
            bucket_sigma=0.5,
            k_min=k_min,
            pilot=pilot,
            key_means=_tuples(means.astype(np.float32)) if centered else None,
        )
    )


def _tuples(array: Array) -> tuple[tuple[tuple[float, ...], ...], ...]:
    return tuple(tuple(tuple(map(float, row)) for row in layer) for layer in array)


@cache
def decode_module(
    name: str, spec: ShadowSpec, variant: str, target: tvm.target.Target
) -> tvm.runtime.Executable:
    """One kernel of one plan, compiled once per session."""
    return build_kernels({name: FACTORIES[name](spec, features_of(variant, target))}, target)


def decode_kernel(
    name: str, spec: ShadowSpec, target: tvm.target.Target, variant: str = "host"
) -> Callable[..., None]:
    return decode_module(name, spec, variant, target)[name]


def shadowed_batch(
    spec: ShadowSpec, layer: int, kv_lengths: Sequence[int], rng: np.random.Generator
) -> PagedBatch:
    """Random keys and values with their shadow, by the twin; everything else is NaN."""
    batch = paged_batch(spec.attention, kv_lengths, rng)
    size = spec.attention.page_size
    for b, length in enumerate(kv_lengths):
        page_ids = batch.page_values[batch.page_indptr[b] : batch.page_indptr[b + 1]]
        positions = (page_ids[:, None] * size + np.arange(size)).reshape(-1)[:length]
        shape = (length, spec.attention.num_kv_heads, spec.attention.head_dim)
        k, v = (
            rng.standard_normal(shape, dtype=np.float32).astype(spec.attention.dtype)
            for _ in range(2)
        )
        twin.append(spec, layer, batch.pages, k, v, positions)
    return batch


def run_append(
    spec: ShadowSpec,
    target: tvm.target.Target,
    layer: int,
    pages: Array,
    k: Array,
    v: Array,
    positions: Array,
    variant: str = "host",
) -> Array:
    """The pages afterwards; k, v (tokens, Hkv, D)."""
    wide = [
        np.full((len(k), spec.attention.stored_heads, spec.attention.head_dim), np.nan, k.dtype)
        for _ in range(2)
    ]
    hkv = spec.attention.num_kv_heads
    wide[0][:, :hkv], wide[1][:, :hkv] = k, v
    wide[0][:, hkv, 0] = layer
    cache_pages = tensor(pages)
    decode_kernel("append", spec, target, variant)(
        cache_pages, tensor(wide[0]), tensor(wide[1]), index_tensor(positions)
    )
    return cache_pages.numpy()


def run_sparse_decode(
    spec: ShadowSpec,
    target: tvm.target.Target,
    layer: int,
    q: Array,
    batch: PagedBatch,
    variant: str = "host",
) -> tuple[Array, Array]:
    output, lse = nans(*q.shape, dtype=q.dtype), nans(*q.shape[:2])
    decode_kernel("decode", spec, target, variant)(
        tensor(q),
        *batch.tensors(),
        index_tensor([0] * len(q)),
        index_tensor([0] * len(q)),
        output,
        lse,
        0,
        1.0,
        10000.0,
        layer + spec.attention.sm_scale,
    )
    return output.numpy(), lse.numpy()


def run_lists(
    spec: ShadowSpec,
    target: tvm.target.Target,
    layer: int,
    q: Array,
    k: Array,
    variant: str = "host",
) -> list[Array]:
    """The list of every head of `q` (Hq, D) over keys `k` (n, Hkv, D)."""
    geometry = spec.attention
    num_pages = -(-len(k) // geometry.page_size)
    shape = (num_pages, 2, geometry.stored_heads, geometry.page_size, geometry.head_dim)
    pages = np.full(shape, np.nan, geometry.dtype)
    twin.append(spec, layer, pages, k, np.zeros_like(k), np.arange(len(k)))
    lists = filled((geometry.num_q_heads, len(k)), "int32", -77)
    counts = filled((geometry.num_q_heads,), "int32", -77)
    decode_kernel("lists", spec, target, variant)(
        tensor(q[None]), tensor(pages), lists, counts, layer, len(k)
    )
    return [row[:count] for row, count in zip(lists.numpy(), counts.numpy(), strict=True)]

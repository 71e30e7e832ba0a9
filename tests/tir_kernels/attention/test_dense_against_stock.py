"""Our kernels against the ones TVM ships for the same slots, called with the same arguments.

The two differ in what they make of `sm_scale`: the stock kernels scale by it, ours must not. Stock
kernels know no empty key set, so every query here sees a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tvm
from tvm.relax.frontend.nn.llm._decode_kernels import (
    _attention_decode_cpu,
    _merge_state_inplace_cpu,
)
from tvm.relax.frontend.nn.llm._prefill_kernels import (
    _attention_prefill_cpu,
    _attention_prefill_ragged_cpu,
)

from tir_kernels.build import build_kernels

from ..dense_harness import (
    LAYER_IN_SCALE,
    SMOLLM2,
    TOLERANCE,
    Array,
    dense_kernel,
    index_tensor,
    indptr,
    nans,
    paged_batch,
)

HEADS = (SMOLLM2.num_kv_heads, SMOLLM2.num_q_heads)
NO_INLINE_ROPE = (0, 1.0, 10000.0)  # rotary_mode, rope_scale, rope_theta


def assert_equal_to_stock(
    kernel: str,
    stock: Any,
    inputs: Sequence[tvm.runtime.Tensor],
    scalars: Sequence[float],
    num_queries: int,
    target: tvm.target.Target,
) -> None:
    """Inputs, then output and lse, then scalars, of which the last is the scale."""
    results = []
    for function, scale in (
        (build_kernels({"stock": stock}, target)["stock"], SMOLLM2.sm_scale),
        (dense_kernel(kernel, SMOLLM2, target), LAYER_IN_SCALE + SMOLLM2.sm_scale),
    ):
        output = nans(num_queries, SMOLLM2.num_q_heads, SMOLLM2.head_dim)
        lse = nans(num_queries, SMOLLM2.num_q_heads)
        function(*inputs, output, lse, *scalars, scale)
        results.append((output.numpy(), lse.numpy()))
    (stock_output, stock_lse), (output, lse) = results
    assert np.isfinite(stock_output).all()
    np.testing.assert_allclose(output, stock_output, **TOLERANCE)
    np.testing.assert_allclose(lse, stock_lse, **TOLERANCE)


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("causal", [0, 1])
def test_ragged_prefill(causal: int, host_target: tvm.target.Target) -> None:
    dims = SMOLLM2.head_dim
    lengths = [21, 0, 60]
    starts, total = index_tensor(indptr(lengths)), sum(lengths)
    k, v = (tvm.runtime.tensor(random(total, HEADS[0], dims, seed=seed)) for seed in (1, 2))
    inputs = [
        tvm.runtime.tensor(random(total, HEADS[1], dims)),
        starts,
        k,
        v,
        starts,
        index_tensor(range(total)),
        index_tensor([0] * len(lengths)),
    ]
    stock = _attention_prefill_ragged_cpu(*HEADS, dims, dims, "float32", {})
    scalars = (causal, *NO_INLINE_ROPE)
    assert_equal_to_stock("ragged_prefill", stock, inputs, scalars, total, host_target)


@pytest.mark.parametrize("causal", [0, 1])
def test_paged_prefill(causal: int, host_target: tvm.target.Target) -> None:
    q_lengths, kv_lengths = [5, 0, 30], [40, 7, 33]
    total = sum(q_lengths)
    inputs = [
        tvm.runtime.tensor(random(total, HEADS[1], SMOLLM2.head_dim)),
        index_tensor(indptr(q_lengths)),
        *paged_batch(SMOLLM2, kv_lengths, np.random.default_rng(0)).tensors(),
        index_tensor([0] * len(kv_lengths)),
        index_tensor(range(total)),
    ]
    stock = _attention_prefill_cpu(*HEADS, SMOLLM2.head_dim, "float32", False, {})
    scalars = (causal, *NO_INLINE_ROPE)
    assert_equal_to_stock("paged_prefill", stock, inputs, scalars, total, host_target)


def test_paged_decode(host_target: tvm.target.Target) -> None:
    kv_lengths = [1, 300, 47]
    inputs = [
        tvm.runtime.tensor(random(len(kv_lengths), HEADS[1], SMOLLM2.head_dim)),
        *paged_batch(SMOLLM2, kv_lengths, np.random.default_rng(0)).tensors(),
        index_tensor([0] * len(kv_lengths)),
        index_tensor([0] * len(kv_lengths)),
    ]
    stock = _attention_decode_cpu(*HEADS, SMOLLM2.head_dim, "float32", False, {})
    assert_equal_to_stock(
        "paged_decode", stock, inputs, NO_INLINE_ROPE, len(kv_lengths), host_target
    )


def test_merge_states(host_target: tvm.target.Target) -> None:
    shape = (13, SMOLLM2.num_q_heads, SMOLLM2.head_dim)
    parts = [random(*part, seed=i) for i, part in enumerate(2 * [shape, shape[:2]])]
    merged = []
    for kernel in (
        build_kernels({"stock": _merge_state_inplace_cpu("float32")}, host_target)["stock"],
        dense_kernel("merge_states", SMOLLM2, host_target),
    ):
        tensors = [tvm.runtime.tensor(part) for part in parts]
        kernel(*tensors)
        merged.append([tensor.numpy() for tensor in tensors])
    for ours, stock in zip(*merged, strict=True):
        np.testing.assert_allclose(ours, stock, **TOLERANCE)

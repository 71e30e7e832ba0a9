"""New keys and values in their pages: the twin's bits, and nothing else touched."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from tir_kernels.reference import attention as twin
from tir_kernels.spec import AttentionSpec

from ..dense_harness import HALF, HALF_ODD_DIMS, SPECS, dense_kernel, index_tensor, spec_id


@pytest.mark.parametrize("spec", [*SPECS, HALF, HALF_ODD_DIMS], ids=spec_id)
def test_kernel_equals_twin(spec: AttentionSpec, host_target: tvm.target.Target) -> None:
    for num_tokens in (0, 1, 16, 17, 75):  # a few are copied by one thread
        rng = np.random.default_rng(num_tokens)
        num_pages = -(-num_tokens // spec.page_size) + 2
        shape = (num_pages, 2, spec.num_kv_heads, spec.page_size, spec.head_dim)
        pages = rng.standard_normal(shape, dtype=np.float32).astype(spec.dtype)
        positions = rng.permutation(num_pages * spec.page_size)[:num_tokens].astype(np.int32)
        positions[1::4] = -1
        kv_shape = (2, num_tokens, spec.num_kv_heads, spec.head_dim)
        k, v = rng.standard_normal(kv_shape, dtype=np.float32).astype(spec.dtype)
        got = tvm.runtime.tensor(pages)
        dense_kernel("append", spec, host_target)(
            got, tvm.runtime.tensor(k), tvm.runtime.tensor(v), index_tensor(positions)
        )
        twin.append(spec, pages, k, v, positions)
        np.testing.assert_array_equal(got.numpy(), pages)

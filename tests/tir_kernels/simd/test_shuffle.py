"""Lane permutations and horizontal sums, on every vector width."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling

from tir_kernels.build import build_kernels
from tir_kernels.simd.shuffle import transpose
from tir_kernels.simd.vector import sum_lanes


def _store_columns(source: Any, target: Any, lanes: int) -> None:
    rows = [source[row, T.ramp(0, 1, lanes)] for row in range(lanes)]
    for column, values in enumerate(transpose(rows, lanes)):
        T.buffer_store(target, values, [column, T.ramp(0, 1, lanes)])


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_transpose_a_square(lanes: int, host_target: tvm.target.Target) -> None:
    @T.prim_func(s_tir=True)
    def square(source: T.handle, target: T.handle) -> None:
        rows = T.match_buffer(source, (lanes, lanes), "float32")
        columns = T.match_buffer(target, (lanes, lanes), "float32")
        _store_columns(rows, columns, lanes)

    kernel = build_kernels({"square": square}, host_target)["square"]
    values = np.arange(lanes * lanes, dtype=np.float32).reshape(lanes, lanes)
    result = tvm.runtime.tensor(np.full_like(values, np.nan))
    kernel(tvm.runtime.tensor(values), result)
    np.testing.assert_array_equal(result.numpy(), values.T)


@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16])
def test_sum_lanes_adds_halves_to_halves(lanes: int, host_target: tvm.target.Target) -> None:
    @T.prim_func(s_tir=True)
    def total(source: T.handle, target: T.handle) -> None:
        x = T.match_buffer(source, (lanes,), "float32")
        y = T.match_buffer(target, (1,), "float32")
        y[0] = sum_lanes(x[T.ramp(0, 1, lanes) if lanes > 1 else 0], lanes)

    kernel = build_kernels({"total": total}, host_target)["total"]
    values = np.random.default_rng(lanes).standard_normal(lanes).astype(np.float32)
    result = tvm.runtime.tensor(np.full(1, np.nan, np.float32))
    kernel(tvm.runtime.tensor(values), result)
    expected = values
    while len(expected) > 1:
        half = len(expected) // 2
        expected = expected[:half] + expected[half:]
    assert result.numpy()[0] == expected[0]

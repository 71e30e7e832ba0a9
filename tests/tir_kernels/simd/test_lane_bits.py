"""Masks as integers, and back."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling

from tir_kernels.build import build_kernels
from tir_kernels.simd.lane_bits import bit_lanes, bits_dtype, lane_bits


@pytest.mark.parametrize("lanes", [8, 16, 32, 64])
def test_masks_become_bits_and_come_back(lanes: int, host_target: tvm.target.Target) -> None:
    @T.prim_func(s_tir=True)
    def turn(source: T.handle, bits: T.handle, back: T.handle) -> None:
        rows = T.int32()
        x = T.match_buffer(source, (rows, lanes), "int8")
        masks = T.match_buffer(bits, (rows,), bits_dtype(lanes))
        y = T.match_buffer(back, (rows, lanes), "int8")
        for i in range(rows):
            masks[i] = lane_bits(x[i, T.ramp(0, 1, lanes)] > T.broadcast(T.int8(0), lanes), lanes)
            y[i, T.ramp(0, 1, lanes)] = T.Cast(f"int8x{lanes}", bit_lanes(masks[i], lanes))

    values = np.random.default_rng(lanes).integers(-1, 2, (50, lanes)).astype(np.int8)
    values[0], values[1] = 1, -1
    masks = tvm.runtime.tensor(np.full(50, 77, bits_dtype(lanes)))
    back = tvm.runtime.tensor(np.full((50, lanes), 77, np.int8))
    build_kernels({"turn": turn}, host_target)["turn"](tvm.runtime.tensor(values), masks, back)
    expected = [sum(1 << lane for lane in range(lanes) if row[lane] > 0) for row in values]
    assert masks.numpy().tolist() == expected
    np.testing.assert_array_equal(back.numpy(), values > 0)

"""Floats as integers of the same order."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling

from tir_kernels.build import build_kernels
from tir_kernels.constants import MASKED_SCORE
from tir_kernels.simd.vector import ordered_bits


@pytest.mark.parametrize("lanes", [4, 8])
def test_ordered_bits_are_ordered_as_the_floats(lanes: int, host_target: tvm.target.Target) -> None:
    @T.prim_func(s_tir=True)
    def order(source: T.handle, target: T.handle) -> None:
        count = T.int32()
        floats = T.match_buffer(source, (count,), "float32")
        integers = T.match_buffer(target, (count,), "int32")
        for i in range(count // lanes):
            integers[T.ramp(i * lanes, 1, lanes)] = ordered_bits(
                floats[T.ramp(i * lanes, 1, lanes)], lanes
            )

    values = np.random.default_rng(0).standard_normal(400).astype(np.float32)
    values *= np.float32(10.0) ** np.arange(-45, 35, 0.2, dtype=np.float32)
    special = [np.inf, -np.inf, 0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, 1.0]
    floats = np.unique(np.concatenate([values, np.array(special, np.float32)]) + np.float32(0))
    floats = floats[: len(floats) // lanes * lanes]
    integers = tvm.runtime.tensor(np.zeros(len(floats), np.int32))
    build_kernels({"order": order}, host_target)["order"](tvm.runtime.tensor(floats), integers)
    assert (np.diff(integers.numpy().astype(np.int64)) > 0).all()
    assert integers.numpy()[0] > MASKED_SCORE

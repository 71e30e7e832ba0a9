"""Activations without calls of the C library: which expressions change, and that numbers don't."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling

from shadowattn_tvm.transform.polynomial_exponentials import PolynomialExponentials
from tir_kernels.build import build_kernels
from tir_kernels.constants import LOG2_E
from tir_kernels.simd.vector import exp2

COLUMNS = 64


def activation(function: object, dtype: str = "float32") -> tirx.PrimFunc:
    """y = function(x), elementwise, as `LegalizeOps` leaves it."""

    @T.prim_func(s_tir=True)
    def main(var_x: T.handle, var_y: T.handle) -> None:
        rows = T.int64()
        x = T.match_buffer(var_x, (rows, COLUMNS), dtype)
        y = T.match_buffer(var_y, (rows, COLUMNS), dtype)
        for i, j in T.grid(rows, COLUMNS):
            with T.sblock("y"):
                vi, vj = T.axis.remap("SS", [i, j])
                y[vi, vj] = function(x[vi, vj])

    return main


def polynomial(x: tirx.PrimExpr) -> tirx.PrimExpr:
    octaves = tirx.Var("octaves", "float32")
    return tirx.Let(octaves, x * T.float32(LOG2_E), exp2(octaves, 1))


def silu(x: tirx.PrimExpr) -> tirx.PrimExpr:
    return x * T.sigmoid(x)


BEFORE_AND_AFTER = {
    "exp": (T.exp, polynomial),
    "silu": (silu, lambda x: x * (T.float32(1) / (T.float32(1) + polynomial(-x)))),
    "softplus": (
        lambda x: T.log(T.exp(x) + T.float32(1)),
        lambda x: T.log(polynomial(x) + T.float32(1)),
    ),
}


@pytest.mark.parametrize("name", BEFORE_AND_AFTER)
def test_exponentials_become_polynomials(name: str) -> None:
    before, after = (tvm.IRModule({"main": activation(f)}) for f in BEFORE_AND_AFTER[name])
    got = PolynomialExponentials()(before)
    tvm.ir.assert_structural_equal(got, after, map_free_vars=True)
    assert tvm.tirx.analysis.verify_well_formed(got)


@pytest.mark.parametrize(
    "kernel",
    [
        activation(T.exp, "float64"),
        activation(T.exp).with_attr("tirx.is_scheduled", True),
        activation(T.sqrt),
    ],
    ids=["float64", "scheduled", "no exponential"],
)
def test_the_rest_stays(kernel: tirx.PrimFunc) -> None:
    before = tvm.IRModule({"main": kernel})
    tvm.ir.assert_structural_equal(PolynomialExponentials()(before), before)


def test_numbers_stay_and_no_library_is_called(host_target: tvm.target.Target) -> None:
    module = PolynomialExponentials()(tvm.IRModule({"main": activation(silu)}))
    built = build_kernels({"silu": module["main"]}, host_target)
    x = np.concatenate(
        [np.linspace(-30, 30, 990, dtype=np.float32), [0.0, -0.0, 1e4, -1e4, 1e30, -1e30]]
    )
    x = np.resize(x.astype(np.float32), (16, COLUMNS))
    y = tvm.runtime.tensor(np.full_like(x, np.nan))
    built["silu"](tvm.runtime.tensor(x), y)
    with np.errstate(over="ignore"):
        expected = x.astype("d") / (1 + np.exp(-x.astype("d")))
    # -x of 87 and more: the exponential stops growing, and x times 1e-38 is left
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-6, atol=2e-8)
    assert not re.search(r"\bexpf?\b", built.mod.inspect_source("asm"))

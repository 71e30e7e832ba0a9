"""The dense kernels compile for targets other than the host's, to that target's vectors."""

from __future__ import annotations

import pytest
import tvm

from ..dense_harness import SMOLLM2, dense_module

TARGETS = {
    "znver4": ({"mtriple": "x86_64-linux-gnu", "mcpu": "znver4"}, "vfmadd231ps", "zmm"),
    "x86-64": ({"mtriple": "x86_64-linux-gnu", "mcpu": "x86-64"}, "mulps", "xmm"),
    "cortex-a76": ({"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76"}, "fmla", ".4s"),
}
"""Options, and the multiply-add and the register that the inner loops must be made of."""


@pytest.mark.parametrize("kernel", ["paged_prefill", "paged_decode", "merge_states"])
@pytest.mark.parametrize("name", TARGETS)
def test_compiles_to_full_vectors(name: str, kernel: str) -> None:
    options, multiply_add, register = TARGETS[name]
    module = dense_module(kernel, SMOLLM2, tvm.target.Target({"kind": "llvm", **options}))
    lines = module.mod.inspect_source("asm").splitlines()
    assert any(multiply_add in line and register in line for line in lines)

"""Fixtures every suite shares."""

from __future__ import annotations

import pytest
import tvm
from tvm.target.codegen import llvm_get_system_cpu, llvm_get_system_triple


@pytest.fixture(scope="session")
def host_target() -> tvm.target.Target:
    """The machine the tests run on, with every instruction it has."""
    return tvm.target.Target(
        {"kind": "llvm", "mcpu": llvm_get_system_cpu(), "mtriple": llvm_get_system_triple()}
    )

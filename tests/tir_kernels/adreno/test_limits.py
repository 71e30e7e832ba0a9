"""What an Adreno allows is checked when a kernel is made; needs no device."""

from __future__ import annotations

import re

import pytest

from shadowattn_tvm.device.opencl.program import compile_opencl
from tir_kernels.adreno import slots
from tir_kernels.adreno.block_group import block_sizes
from tir_kernels.adreno.limits import LOCAL_MEMORY_BYTES, MAX_WORK_GROUP, check_limits
from tir_kernels.spec import AttentionSpec, SpecError

from ..shadow.test_prefill import SHARING, shadow_spec

LARGEST = AttentionSpec(num_q_heads=8, num_kv_heads=1, head_dim=256, sm_scale=0.06)
ELEMENT_BYTES = {"float": 4, "int": 4, "long": 8, "half": 2, "char": 1}


def test_more_than_a_device_has_is_refused() -> None:
    check_limits("fits", MAX_WORK_GROUP, LOCAL_MEMORY_BYTES)
    with pytest.raises(SpecError, match=f"at most {MAX_WORK_GROUP} work-items in a group, got 513"):
        check_limits("wide", MAX_WORK_GROUP + 1, 0)
    with pytest.raises(SpecError, match="bytes of local memory, got 32769"):
        check_limits("large", 1, LOCAL_MEMORY_BYTES + 1)


def test_a_geometry_that_fits_no_work_group_is_refused() -> None:
    huge = AttentionSpec(num_q_heads=1, num_kv_heads=1, head_dim=1024, sm_scale=0.03)
    with pytest.raises(SpecError, match="local memory"):
        slots(huge)


@pytest.mark.parametrize("head_dim", [16, 48, 64, 80, 96, 112, 128, 160, 256])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_usual_head_dim_has_a_tile(head_dim: int, dtype: str) -> None:
    spec = AttentionSpec(4, 2, head_dim, 0.1, dtype=dtype)
    sizes = block_sizes(spec)
    assert sizes.rows >= 8
    assert head_dim // 4 % sizes.columns == 0
    assert sizes.items <= MAX_WORK_GROUP


@pytest.mark.parametrize("slot", ["ragged_prefill", "paged_prefill", "decode", "merge_states"])
def test_generated_kernels_keep_to_the_limits(slot: str) -> None:
    """As the source says, not as we think."""
    spec = shadow_spec(LARGEST, SHARING["group-block-32"])
    program = compile_opencl(slots(LARGEST, spec)[slot], slot)
    kernels = re.split(r"^// Function: ", program.source, flags=re.MULTILINE)[1:]
    assert len(kernels) == len(program.kernel_parameters)
    for kernel in kernels:
        local = re.findall(r"__local (\w+) \w+\[(\d+)\]", kernel)
        used = sum(ELEMENT_BYTES[dtype] * int(count) for dtype, count in local)
        assert used <= LOCAL_MEMORY_BYTES, kernel.splitlines()[0]

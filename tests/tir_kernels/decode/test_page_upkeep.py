"""Moving slots, and the projection with a tag: every head row goes along, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from tir_kernels.build import build_kernels
from tir_kernels.decode.page_upkeep import compact_pages, copy_page, read_pages
from tir_kernels.decode.widen_qkv import widen_qkv
from tir_kernels.features import cpu_features
from tir_kernels.pilot.shadow_rows import with_key_shadow
from tir_kernels.reference import rotary as rotary_twin
from tir_kernels.rotary import rotary_frequencies, split_rotary
from tir_kernels.spec import AttentionSpec

from ..decode_harness import decode_spec
from ..dense_harness import HALF, HALF_UNIT, SPECS, index_tensor, spec_id
from ..shadow_harness import tensor

GEOMETRIES = [with_key_shadow(decode_spec(spec)).attention for spec in (*SPECS[1:3], HALF)]
NUM_PAGES = 5

every_geometry = pytest.mark.parametrize("spec", GEOMETRIES, ids=spec_id)


def random_pages(spec: AttentionSpec) -> np.ndarray:
    """Any bytes at all, among them those of NaNs: a shadow's are no numbers."""
    row_bytes = spec.element_bytes * spec.head_dim
    shape = (NUM_PAGES, 2, spec.stored_heads, spec.page_size, row_bytes)
    return np.random.default_rng(4).integers(0, 256, shape, np.uint8).view(spec.dtype)


def assert_same_bytes(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_array_equal(got.view(np.uint8), want.view(np.uint8))


@every_geometry
@pytest.mark.parametrize("length", [0, 1, 15, 16])
def test_copying_a_page(spec: AttentionSpec, length: int, host_target: tvm.target.Target) -> None:
    kernel = build_kernels({"k": copy_page(spec, cpu_features(host_target))}, host_target)["k"]
    pages = random_pages(spec)
    moved = tensor(pages)
    kernel(moved, 3, 1, length)
    pages[1, :, :, :length] = pages[3, :, :, :length]
    assert_same_bytes(moved.numpy(), pages)


@every_geometry
def test_compacting_moves_in_order(spec: AttentionSpec, host_target: tvm.target.Target) -> None:
    kernel = build_kernels({"k": compact_pages(spec, cpu_features(host_target))}, host_target)["k"]
    pages = random_pages(spec)
    moved = tensor(pages)
    # the third move takes what the second brought; the middle sequence moves nothing
    source, target = [17, 40, 41, 70], [16, 41, 33, 71]
    moves = np.array([source, target], np.int32)
    kernel(moved, index_tensor([0, 3, 3, 4]), tensor(moves), 3)
    size = spec.page_size
    for a, b in zip(source, target, strict=True):
        pages[b // size, :, :, b % size] = pages[a // size, :, :, a % size]
    assert_same_bytes(moved.numpy(), pages)


@every_geometry
def test_reading_pages(spec: AttentionSpec, host_target: tvm.target.Target) -> None:
    num_layers = 3
    kernel = build_kernels(
        {"k": read_pages(spec, cpu_features(host_target), num_layers)}, host_target
    )["k"]
    pages = random_pages(spec)
    positions = np.array([79, 0, 33], np.int32)
    shape = (num_layers, len(positions), spec.stored_heads, spec.head_dim)
    planes = [np.zeros(shape, spec.dtype) for _ in range(2)]
    outputs = [tensor(plane) for plane in planes]
    kernel(tensor(pages), index_tensor(positions), *outputs, 1)
    for index, plane in enumerate(planes):
        plane[1] = pages[positions // spec.page_size, index, :, positions % spec.page_size]
        assert_same_bytes(outputs[index].numpy(), plane)


@every_geometry
@pytest.mark.parametrize("num_tokens", [0, 1, 9])
def test_a_widened_projection_is_split_as_before(
    spec: AttentionSpec, num_tokens: int, host_target: tvm.target.Target
) -> None:
    """q, k and v arrive where they would without a shadow, and the layer beside k."""
    hq, hkv, dim = spec.num_q_heads, spec.num_kv_heads, spec.head_dim
    module = build_kernels(
        {
            "widen": widen_qkv(spec, cpu_features(host_target)),
            "split": split_rotary(spec, 10000.0, None),
        },
        host_target,
    )
    rng = np.random.default_rng(num_tokens)
    shape = (num_tokens, hq + 2 * hkv, dim)
    qkv = rng.standard_normal(shape, dtype=np.float32).astype(spec.dtype)
    positions = rng.integers(0, 4096, num_tokens).astype(np.int32)
    shapes = [
        (num_tokens, heads, dim)
        for heads in (hq + 2 * spec.stored_heads, hq, spec.stored_heads, spec.stored_heads)
    ]
    wide, q, k, v = (tensor(np.full(shape, np.nan, spec.dtype)) for shape in shapes)
    module["widen"](tensor(qkv), 7, wide)
    module["split"](wide, index_tensor(positions), q, k, v, 1)
    frequencies = rotary_frequencies(dim, 10000.0, None)
    expected = rotary_twin.split_rotary(qkv, positions, hkv, frequencies)
    for got, want in zip((q, k, v), expected, strict=True):
        rtol = HALF_UNIT if spec.dtype == "float16" else 0.0
        np.testing.assert_allclose(got.numpy()[:, : want.shape[1]], want, rtol=rtol, atol=2e-6)
    np.testing.assert_array_equal(k.numpy()[:, hkv, 0], 7.0)

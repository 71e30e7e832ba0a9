"""Tensors as a kernel's host code describes them to functions of the runtime: DLPack's, on the
stack."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import DataType
from tvm.script import tirx as T

from .simd.vector import Expr

CPU, OPENCL = 1, 4
"""kDLCPU, kDLOpenCL."""

# Fields of DLTensor, by TVM's numbers (builtin::TVMStructFieldKind).
_ADDRESS, _DATA, _SHAPE, _STRIDES, _NDIM = range(5)
_TYPE_CODE, _TYPE_BITS, _TYPE_LANES, _BYTE_OFFSET, _DEVICE_ID, _DEVICE_TYPE = range(5, 11)


@T.meta_class
class DLTensors:
    """Up to `count` tensors of at most `max_ndim` dimensions; plain Python, run while the kernel is
    parsed."""

    def __init__(self, count: int, max_ndim: int) -> None:
        self.tensors = T.bind(T.tvm_stack_alloca("array", count))
        self.shapes = T.alloc_buffer((count, 2, max_ndim), "int64")
        self.next = 0

    def add(
        self,
        data: Expr,
        dtype: str,
        shape: Sequence[Expr],
        *,
        device_type: int = CPU,
        byte_offset: Expr | int = 0,
    ) -> Expr:
        """The address of one that is contiguous, `byte_offset` behind `data`: an address in the
        CPU's memory, or what the device's runtime takes for one."""
        index, self.next = self.next, self.next + 1
        stride = T.int64(1)
        for axis, size in reversed(list(enumerate(shape))):
            T.buffer_store(self.shapes, T.Cast("int64", size), [index, 0, axis])
            T.buffer_store(self.shapes, stride, [index, 1, axis])
            stride = stride * T.Cast("int64", size)
        element = DataType(dtype)
        fields = {
            _DATA: data,
            _SHAPE: T.address_of(self.shapes[index, 0, 0]),
            _STRIDES: T.address_of(self.shapes[index, 1, 0]),
            _NDIM: T.int32(len(shape)),
            _TYPE_CODE: T.uint8(element.type_code),
            _TYPE_BITS: T.uint8(element.bits),
            _TYPE_LANES: T.uint16(1),
            _BYTE_OFFSET: T.Cast("uint64", byte_offset),
            _DEVICE_ID: T.int32(0),
            _DEVICE_TYPE: T.int32(device_type),
        }
        for field, value in fields.items():
            T.evaluate(T.tvm_struct_set(self.tensors, index, field, value))
        return T.tvm_struct_get(self.tensors, index, _ADDRESS, "handle")

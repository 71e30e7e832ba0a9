"""Copies between the CPU's memory and the GPU's, by host code of a kernel.

TVM's OpenCL runtime waits for the queue in each: what was enqueued before is done when the copy is.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..dl_tensors import CPU, OPENCL, DLTensors
from .vector import Expr

COPY = "runtime.TVMTensorCopyFromTo"
"""TVM's own, in its registry: (from, to)."""


def download(device: T.Buffer, host: T.Buffer, count: Expr) -> None:
    """The first `count` elements of a device's buffer to the CPU's memory; plain Python, run while
    the kernel is parsed."""
    _copy(device, host, count, OPENCL, CPU)


def upload(host: T.Buffer, device: T.Buffer, count: Expr) -> None:
    """The first `count` elements of a buffer in the CPU's memory to the device; plain Python."""
    _copy(host, device, count, CPU, OPENCL)


def _copy(source: T.Buffer, target: T.Buffer, count: Expr, *device_types: int) -> None:
    tensors = DLTensors(2, max_ndim=1)
    ends = [
        tensors.add(
            buffer.data,
            str(buffer.dtype),
            (count,),
            device_type=device_type,
            byte_offset=buffer.elem_offset * (buffer.dtype.bits // 8),
        )
        for buffer, device_type in zip((source, target), device_types, strict=True)
    ]
    T.evaluate(T.call_packed(COPY, *ends))

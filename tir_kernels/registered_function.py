"""A function that the process may have registered with TVM's runtime, called from a kernel.

TIR's own call of a packed function raises where there is none, and keeps what it found until the
library is gone: a Python function would outlive the interpreter. So the runtime's C interface is
called instead, which every library of TVM's needs anyway: the function is looked up anew each
time, and let go.

Source: apache-tvm-ffi, `tvm/ffi/c_api.h`, and DLPack; little-endian, 64-bit pointers.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm.script import tirx as T

from .dl_tensors import DLTensors
from .simd.vector import Expr

_INT_ARGUMENT, _TENSOR_ARGUMENT = 1, 7
"""kTVMFFIInt, kTVMFFIDLTensorPtr."""

_FIRST_OBJECT = 64
"""kTVMFFIStaticObjectBegin: results of this type and beyond are owned by who receives them."""

# Fields of TVMFFIAny, by TVM's numbers (builtin::TVMStructFieldKind).
_TYPE_INDEX, _PADDING, _VALUE = 13, 14, 15


def _pointer(words: T.Buffer) -> Expr:
    """What the second word points to."""
    return T.tvm_struct_get(words.data, 0, _VALUE, "handle")


def _release(words: T.Buffer) -> None:
    """Let go of the object that the second word points to."""
    T.evaluate(T.call_extern("int32", "TVMFFIObjectDecRef", _pointer(words)))


@T.meta_class
class Arguments:
    """Arguments of one call, in order; plain Python, run while the kernel is parsed.

    Parameters
    ----------
    count, tensors : how many there are, and how many of them are tensors.
    max_ndim : dimensions of the largest.
    """

    def __init__(self, count: int, tensors: int, max_ndim: int) -> None:
        self.count = count
        self.values = T.bind(T.tvm_stack_alloca("tvm_ffi_any", count))
        self.tensors = DLTensors(tensors, max_ndim)
        self.next_value = 0

    def add_integer(self, value: Expr) -> None:
        """The next argument is an int32 scalar."""
        self._add(_INT_ARGUMENT, T.Cast("int64", value))

    def add_tensor(self, address: Expr, dtype: str, shape: Sequence[Expr]) -> None:
        """The next argument is a contiguous tensor in the CPU's memory, from `address` on."""
        self._add(_TENSOR_ARGUMENT, self.tensors.add(address, dtype, shape))

    def _add(self, type_index: int, value: Expr) -> None:
        index, self.next_value = self.next_value, self.next_value + 1
        fields = {_TYPE_INDEX: T.int32(type_index), _PADDING: T.int32(0), _VALUE: value}
        for field, content in fields.items():
            T.evaluate(T.tvm_struct_set(self.values, index, field, content))


@T.meta_class
class RegisteredFunction:
    """Made inside the PrimFunc, outside parallel loops: `find`, any number of calls, `close`.

    What the function raises is kept until `close` raises it: whoever waits for what it should have
    done must be let go first. Once it `has_failed` it is not to be called again.
    """

    def __init__(self, name: str) -> None:
        self.letters = name.encode()
        self.text = T.alloc_buffer((len(self.letters),), "uint8")
        # The second word of each is a pointer, as in a TVMFFIAny: only there TIR can store one
        self.name = T.alloc_buffer((3,), "uint64")  # from it on, a TVMFFIByteArray
        self.function = T.alloc_buffer((2,), "uint64")
        self.error = T.alloc_buffer((2,), "uint64")
        self.result = T.alloc_buffer((2,), "uint64")  # a TVMFFIAny

    def find(self) -> None:
        """Look it up; plain Python."""
        for index, letter in enumerate(self.letters):
            T.buffer_store(self.text, T.uint8(letter), [index])
        T.evaluate(T.tvm_struct_set(self.name.data, 0, _VALUE, self.text.data))
        T.buffer_store(self.name, T.uint64(len(self.letters)), [2])
        T.buffer_store(self.function, T.uint64(0), [1])
        T.buffer_store(self.error, T.uint64(0), [1])
        T.evaluate(
            T.call_extern(
                "int32",
                "TVMFFIFunctionGetGlobal",
                T.address_of(self.name[1]),
                T.address_of(self.function[1]),
            )
        )

    def is_found(self) -> Expr:
        return self.function[1] != T.uint64(0)

    def has_failed(self) -> Expr:
        return self.error[1] != T.uint64(0)

    @T.inline
    def call(self, arguments: Arguments) -> None:
        """Call it; its result is dropped."""
        self.result[0] = T.uint64(0)
        self.result[1] = T.uint64(0)
        failed = T.bind(
            T.call_extern(
                "int32",
                "TVMFFIFunctionCall",
                _pointer(self.function),
                arguments.values,
                arguments.count,
                self.result.data,
            )
        )
        if failed != 0:
            T.evaluate(
                T.call_extern("void", "TVMFFIErrorMoveFromRaised", T.address_of(self.error[1]))
            )
        else:
            if T.Cast("int32", self.result[0]) >= _FIRST_OBJECT:
                _release(self.result)

    @T.inline
    def close(self) -> None:
        """Let it go, and raise what it raised."""
        if self.is_found():
            _release(self.function)
        if self.has_failed():
            T.evaluate(T.call_extern("void", "TVMFFIErrorSetRaised", _pointer(self.error)))
            _release(self.error)
            T.evaluate(T.tvm_throw_last_error())

"""A GGUF file, parsed with every length checked against the file's size.

The `gguf` package's own reader trusts the lengths it finds (a damaged file sends it into endless
loops) and needs five seconds for a vocabulary of 49k tokens; its dequantization we use as it is.
The format: little-endian header, key/value metadata, tensor descriptions, then the aligned data.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from ..errors import WeightsError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)  # version 1 had 32-bit lengths; nobody publishes it any more
_DEFAULT_ALIGNMENT_BYTES = 32
_MAX_DIMENSIONS = 4
_MAX_NAME_BYTES = 1 << 16

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""Metadata value types and their `struct` codes."""

_STRUCTS = {code: struct.Struct("<" + code) for code in _SCALARS.values()}

_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: shape row-major (the file stores it reversed), element type, rows of bytes.

    `data` is a read-only view of the mapped file, (rows, bytes a row) uint8; a vector is one row.
    """

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    data: NDArray[np.uint8]

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows `start` to `stop` (of the first dimension; elements of a vector) as float32.
        Raises `WeightsError` for an element type that can't be dequantized."""
        try:
            if len(self.shape) == 1:
                part = dequantize(self.data, self.type).reshape(-1)[start:stop]
            else:
                part = dequantize(self.data[start:stop], self.type)
        except NotImplementedError:
            raise WeightsError(
                f"tensor {self.name}: element type {self.type.name} can't be dequantized; "
                "use a file of F32, F16, BF16, Q8_0, Q4_0, Q4_1 or K-quants"
            ) from None
        return np.asarray(part, dtype=np.float32)


@dataclass(frozen=True)
class GgufFile:
    """A parsed file: its metadata, with arrays as lists, and its tensors by name."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]


def open_gguf(path: Path) -> GgufFile:
    """Parse a GGUF file; the tensors' data stays on disk, mapped.

    Raises `WeightsError` if it is no GGUF file, truncated, or says impossible things.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file can't be mapped
        raise WeightsError(f"can't read {path}: {error}") from None
    return _Parser(path, mapped).parse()


class _Parser:
    """A cursor over the mapped file that can't leave it."""

    def __init__(self, path: Path, mapped: mmap.mmap) -> None:
        self._path = path
        self._mapped = mapped
        self._size_bytes = len(mapped)
        self._at = 0

    def parse(self) -> GgufFile:
        if self._take(len(_MAGIC)) != _MAGIC:
            raise self._error("expected a GGUF file, got other contents")
        version = self._scalar("I")
        if version not in _VERSIONS:
            raise self._error(f"expected little-endian GGUF version 2 or 3, got {version}")
        num_tensors, num_keys = self._scalar("Q"), self._scalar("Q")
        self._plausible(num_tensors + num_keys, "metadata keys and tensors")
        metadata: dict[str, Any] = {}
        for _ in range(num_keys):
            key = self._string(_MAX_NAME_BYTES)
            if key in metadata:
                raise self._error(f"expected every metadata key once, got {key!r} twice")
            metadata[key] = self._value(self._scalar("I"), key)
        described = [self._describe_tensor() for _ in range(num_tensors)]
        alignment_bytes = metadata.get("general.alignment", _DEFAULT_ALIGNMENT_BYTES)
        if not isinstance(alignment_bytes, int) or alignment_bytes.bit_count() != 1:
            raise self._error(
                f"expected an alignment that is a power of two, got {alignment_bytes}"
            )
        data_start = -(-self._at // alignment_bytes) * alignment_bytes
        tensors: dict[str, GgufTensor] = {}
        for name, shape, tensor_type, offset in described:
            if name in tensors:
                raise self._error(f"expected every tensor once, got {name!r} twice")
            tensors[name] = self._tensor(name, shape, tensor_type, data_start + offset)
        return GgufFile(self._path, metadata, tensors)

    def _describe_tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string(_MAX_NAME_BYTES)
        num_dimensions = self._scalar("I")
        if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
            raise self._error(
                f"tensor {name}: expected 1 to {_MAX_DIMENSIONS} dimensions, got {num_dimensions}"
            )
        shape = tuple(self._scalar("Q") for _ in range(num_dimensions))[::-1]
        return name, shape, self._scalar("I"), self._scalar("Q")

    def _tensor(self, name: str, shape: tuple[int, ...], type_id: int, start: int) -> GgufTensor:
        try:
            tensor_type = GGMLQuantizationType(type_id)
        except ValueError:
            raise self._error(f"tensor {name}: unknown element type {type_id}") from None
        block, block_bytes = GGML_QUANT_SIZES[tensor_type]
        if min(shape) < 1 or shape[-1] % block != 0:
            raise self._error(
                f"tensor {name}: expected positive sizes and rows of a multiple of {block} "
                f"{tensor_type.name} elements, got shape {shape}"
            )
        row_bytes = shape[-1] // block * block_bytes
        num_rows = prod(shape[:-1])
        end = start + num_rows * row_bytes
        if end > self._size_bytes:
            raise self._error(
                f"tensor {name} of shape {shape}: expected {end} bytes of file, got "
                f"{self._size_bytes}; the file is truncated or damaged"
            )
        flat = np.frombuffer(self._mapped, np.uint8, count=num_rows * row_bytes, offset=start)
        return GgufTensor(name, shape, tensor_type, flat.reshape(num_rows, row_bytes))

    def _value(self, type_id: int, key: str) -> Any:
        if type_id in _SCALARS:
            return self._scalar(_SCALARS[type_id])
        if type_id == _STRING:
            return self._string(self._size_bytes)
        if type_id != _ARRAY:
            raise self._error(f"metadata {key!r}: unknown value type {type_id}")
        item_type, count = self._scalar("I"), self._scalar("Q")
        self._plausible(count, f"items in {key!r}")
        if item_type == _STRING:
            return [self._string(self._size_bytes) for _ in range(count)]
        if item_type not in _SCALARS:
            raise self._error(f"metadata {key!r}: unknown array item type {item_type}")
        item = _STRUCTS[_SCALARS[item_type]]
        return [value for (value,) in item.iter_unpack(self._take(count * item.size))]

    def _scalar(self, code: str) -> Any:
        item = _STRUCTS[code]
        return item.unpack(self._take(item.size))[0]

    def _string(self, max_bytes: int) -> str:
        num_bytes = self._scalar("Q")
        if num_bytes > max_bytes:
            raise self._error(f"expected a string of at most {max_bytes} bytes, got {num_bytes}")
        try:
            return self._take(num_bytes).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._error(f"expected UTF-8 text at byte {self._at}, got {error}") from None

    def _take(self, num_bytes: int) -> bytes:
        end = self._at + num_bytes
        if end > self._size_bytes:
            raise self._error(
                f"expected {num_bytes} more bytes at byte {self._at}, got the end of the file at "
                f"{self._size_bytes}; the file is truncated or damaged"
            )
        taken = self._mapped[self._at : end]
        self._at = end
        return taken

    def _plausible(self, count: int, what: str) -> None:
        """Everything counted takes a byte at least: a loop is never longer than the file."""
        if count > self._size_bytes - self._at:
            raise self._error(f"got a count of {count} {what}, more than the file can hold")

    def _error(self, message: str) -> WeightsError:
        return WeightsError(f"{self._path}: {message}")

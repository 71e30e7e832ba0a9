"""`tensor-cache.json` and its shards: TVM's format for parameters on disk, read and checked.

The format is that of tvm.contrib.tvmjs: an index of shards, each a file of tensors back to back.
Names, sizes and offsets come from outside, so each is checked before it is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..config.chat_config import is_plain_file_name
from ..config.documents import read_json_object, validated
from ..errors import WeightsError
from .layout import ITEM_BYTES, StoredDtype

TENSOR_CACHE_FILE = "tensor-cache.json"
"""The index's name in a model directory."""

Size = Annotated[int, Field(ge=0, le=1 << 62)]

_BF16_BYTES = 2
_READ_BYTES = 1 << 20


class TensorRecord(BaseModel):
    """One tensor in a shard. MLC-LLM stores float32 as "f32-to-bf16" (the upper halves, lossy);
    what we write is "raw"."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    name: str
    shape: Annotated[tuple[Size, ...], Field(strict=False)]
    dtype: StoredDtype
    format: Literal["raw", "f32-to-bf16"]
    nbytes: Size
    byte_offset: Size = Field(alias="byteOffset")

    @model_validator(mode="after")
    def _size_fits_shape(self) -> Self:
        item_bytes = _BF16_BYTES if self.is_bf16 else ITEM_BYTES[self.dtype]
        expected = prod(self.shape) * item_bytes
        if self.nbytes != expected:
            raise ValueError(f"{self.name}: expected {expected} bytes, got {self.nbytes}")
        return self

    @property
    def is_bf16(self) -> bool:
        """Stored as bfloat16, to be widened on loading."""
        return self.format == "f32-to-bf16" and self.dtype == "float32"


class ShardRecord(BaseModel):
    """One shard file and its tensors."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    data_path: str = Field(alias="dataPath")
    format: Literal["raw-shard"]
    nbytes: Size
    records: Annotated[tuple[TensorRecord, ...], Field(strict=False)]
    md5sum: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]

    @field_validator("data_path")
    @classmethod
    def _stays_in_the_folder(cls, value: str) -> str:
        if not is_plain_file_name(value):
            raise ValueError(f"expected the name of a file in the folder, got {value!r}")
        return value

    @model_validator(mode="after")
    def _tensors_fit(self) -> Self:
        for record in self.records:
            if record.byte_offset + record.nbytes > self.nbytes:
                raise ValueError(
                    f"{record.name}: expected to end within the shard's {self.nbytes} bytes, got "
                    f"byte {record.byte_offset + record.nbytes}"
                )
        return self


class _Index(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    metadata: dict[str, Any]
    records: Annotated[tuple[ShardRecord, ...], Field(strict=False)]


@dataclass(frozen=True)
class TensorCache:
    """A checked index.

    Attributes
    ----------
    folder : where the shards are.
    shards : every shard, in order.
    content_hash : SHA-256 (hex) of the index's records; they hold the shards' MD5 sums, so it
        names the weights' content.
    """

    folder: Path
    shards: tuple[ShardRecord, ...]
    content_hash: str

    def tensors(self) -> dict[str, TensorRecord]:
        """Every tensor by name."""
        return {record.name: record for shard in self.shards for record in shard.records}

    def file_names(self) -> tuple[str, ...]:
        """Everything in the folder that belongs to it."""
        return (TENSOR_CACHE_FILE, *(shard.data_path for shard in self.shards))


def open_tensor_cache(folder: Path) -> TensorCache:
    """Read and check the index in `folder` and the presence and size of every shard.

    Raises `WeightsError` if the index is malformed, or a shard is missing or of another size.
    """
    path = folder / TENSOR_CACHE_FILE
    raw = read_json_object(path, WeightsError)
    index = validated(_Index, raw, str(path), WeightsError)
    names = [record.name for shard in index.records for record in shard.records]
    if len(set(names)) != len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        raise WeightsError(f"{path}: expected every tensor once, got twice: {', '.join(twice)}")
    for shard in index.records:
        _check_size(folder / shard.data_path, shard.nbytes)
    canonical = json.dumps(raw["records"], sort_keys=True, separators=(",", ":"))
    return TensorCache(folder, index.records, hashlib.sha256(canonical.encode()).hexdigest())


def read_tensors(cache: TensorCache, *, verify: bool = False) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield every tensor, by name, shard by shard. Raw tensors are read-only views of the mapped
    file; bfloat16 ones are widened copies (float32).

    With `verify`, each shard's MD5 sum is checked before its first tensor is yielded.
    Raises `WeightsError`.
    """
    for shard in cache.shards:
        path = cache.folder / shard.data_path
        if verify:
            _check_md5(path, shard.md5sum)
        try:
            mapped = np.memmap(path, dtype=np.uint8, mode="r") if shard.nbytes else b""
        except (OSError, ValueError) as error:
            raise WeightsError(f"can't read {path}: {error}") from None
        for record in shard.records:
            yield record.name, _view(mapped, record)


def _view(mapped: Any, record: TensorRecord) -> NDArray[Any]:
    dtype = np.dtype(np.uint16 if record.is_bf16 else record.dtype).newbyteorder("<")
    flat = np.frombuffer(mapped, dtype, count=prod(record.shape), offset=record.byte_offset)
    if record.is_bf16:  # bfloat16 is the upper half of a float32
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.reshape(record.shape)


def _check_size(path: Path, expected_bytes: int) -> None:
    try:
        got_bytes = path.stat().st_size
    except OSError as error:
        raise WeightsError(f"can't read the shard {path}: {error.strerror}") from None
    if got_bytes != expected_bytes:
        raise WeightsError(
            f"{path}: expected {expected_bytes} bytes, got {got_bytes}; the file is truncated or "
            "of another conversion: convert the weights again"
        )


def _check_md5(path: Path, expected: str) -> None:
    digest = hashlib.md5(usedforsecurity=False)  # the format's checksum, against accidents only
    try:
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    except OSError as error:
        raise WeightsError(f"can't read the shard {path}: {error.strerror}") from None
    if digest.hexdigest() != expected:
        raise WeightsError(
            f"{path}: expected MD5 {expected}, got {digest.hexdigest()}; the file is damaged: "
            "convert the weights again"
        )

"""Writes `tensor-cache.json` and its shards, tensor by tensor, block by block.

The format is that of tvm.contrib.tvmjs, whose own writer is not used: it holds whole tensors in
memory several times over, and by default stores float32 as bfloat16. Here everything is "raw".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from .layout import ParameterInfo
from .tensor_cache import TENSOR_CACHE_FILE

SHARD_BYTES = 32 << 20
"""MLC's shard size; a larger tensor gets a shard of its own."""


class ShardWriter:
    """Use as a context manager; `finish` writes the index. Not atomic by itself: write into a
    temporary directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shards: list[dict[str, Any]] = []
        self._file: BinaryIO | None = None
        self._digest = hashlib.md5(usedforsecurity=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, name: str, info: ParameterInfo, blocks: Iterable[NDArray[Any]]) -> None:
        """Append a parameter, given as blocks of its rows in order."""
        file, shard = self._open_shard(info.num_bytes)
        offset = shard["nbytes"]
        dtype = np.dtype(info.dtype).newbyteorder("<")
        for block in blocks:
            data = np.ascontiguousarray(block, dtype=dtype).data.cast("B")
            file.write(data)
            self._digest.update(data)
            shard["nbytes"] += len(data)
        assert shard["nbytes"] - offset == info.num_bytes, f"{name}: blocks don't fill {info}"
        shard["records"].append(
            {
                "name": name,
                "shape": list(info.shape),
                "dtype": info.dtype,
                "format": "raw",
                "nbytes": info.num_bytes,
                "byteOffset": offset,
            }
        )

    def finish(self, num_float_parameters: int) -> None:
        """Close the last shard and write the index; `num_float_parameters` counts the model's
        weights before quantization, for MLC's bits-per-weight figure."""
        self._close_shard()
        records = [record for shard in self._shards for record in shard["records"]]
        num_bytes = sum(record["nbytes"] for record in records)
        metadata = {
            "ParamSize": len(records),
            "ParamBytes": num_bytes,
            "BitsPerParam": num_bytes * 8 / num_float_parameters,
        }
        index = json.dumps({"metadata": metadata, "records": self._shards}, indent=4)
        (self._folder / TENSOR_CACHE_FILE).write_text(index, encoding="utf-8")

    def _open_shard(self, num_bytes: int) -> tuple[BinaryIO, dict[str, Any]]:
        """The shard for a tensor of that size: the current one if it still fits."""
        if self._file is not None and self._shards[-1]["nbytes"] + num_bytes > SHARD_BYTES:
            self._close_shard()
        if self._file is None:
            name = f"params_shard_{len(self._shards)}.bin"
            self._file = (self._folder / name).open("wb")
            self._digest = hashlib.md5(usedforsecurity=False)
            self._shards.append(
                {"dataPath": name, "format": "raw-shard", "nbytes": 0, "records": []}
            )
        return self._file, self._shards[-1]

    def _close_shard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._shards[-1]["md5sum"] = self._digest.hexdigest()


def count_elements(shapes: Iterable[tuple[int, ...]]) -> int:
    """How many weights tensors of these shapes hold."""
    return sum(prod(shape) for shape in shapes)

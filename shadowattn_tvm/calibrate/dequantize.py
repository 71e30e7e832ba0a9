"""MLC's q4f32_1 back to float32: torch multiplies plain matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tir_kernels.constants import QUANT_GROUP, QUANT_PER_WORD, QUANT_ZERO_POINT

_BITS = 32 // QUANT_PER_WORD
_NIBBLE_MASK = (1 << _BITS) - 1


def plain_parameters(
    parameters: Mapping[str, NDArray[Any]],
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield (name, float32 array), one at a time, with every pair `X.q_weight`, `X.q_scale` turned
    into one `X.weight`."""
    for name, array in parameters.items():
        stem, _, kind = name.rpartition(".")
        if kind == "q_weight":
            yield f"{stem}.weight", dequantize(array, parameters[f"{stem}.q_scale"])
        elif kind != "q_scale":
            yield name, np.asarray(array, np.float32)


def dequantize(q_weight: NDArray[np.uint32], q_scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """q_weight `[rows, columns / 8]`, q_scale `[rows, columns / 32]` -> `[rows, columns]`."""
    shifts = np.arange(QUANT_PER_WORD, dtype=np.uint32) * np.uint32(_BITS)
    nibbles = q_weight[:, :, None] >> shifts & np.uint32(_NIBBLE_MASK)
    rows = len(q_weight)
    centred = nibbles.reshape(rows, -1, QUANT_GROUP).astype(np.float32) - QUANT_ZERO_POINT
    return (centred * q_scale[:, :, None]).reshape(rows, -1)

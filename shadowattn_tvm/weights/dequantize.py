"""MLC's 4-bit weights back to float32, for those who multiply plain matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tir_kernels.reference.linear import dequantize_q4


def plain_parameters(
    parameters: Mapping[str, NDArray[Any]],
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield (name, float32 array), one at a time, with every pair `X.q_weight`, `X.q_scale` turned
    into one `X.weight`."""
    for name, array in parameters.items():
        stem, _, kind = name.rpartition(".")
        if kind == "q_weight":
            yield f"{stem}.weight", dequantize_q4(array, parameters[f"{stem}.q_scale"])
        elif kind != "q_scale":
            yield name, np.asarray(array, np.float32)

"""Static per-tensor scales for NPU-Full, measured on calibration text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tir_kernels.constants import INT8_QMAX
from tir_kernels.spec import AttentionSpec

from ...errors import ConfigError
from ..attention import AttentionState, Floats
from .full import Full


@dataclass(frozen=True)
class StaticScales:
    """One scale a layer for each tensor: the largest magnitude seen, divided by 127.

    Attributes
    ----------
    q, k, v : `[layer]`, real units per unit of INT8.
    """

    q: tuple[float, ...]
    k: tuple[float, ...]
    v: tuple[float, ...]


class ScaleObserver:
    """An `AttentionImplementation` that attends in full and notes what it sees.

    Run it over calibration windows, then take `scales`.
    """

    def __init__(self, geometry: AttentionSpec, num_layers: int) -> None:
        self._full = Full(geometry)
        self._largest = np.zeros((num_layers, 3), np.float32)  # q, k, v

    def paged(self, layer: int, q: Floats, k_past: Floats, v_past: Floats) -> AttentionState:
        """Nothing new to see: the past was once a chunk."""
        return self._full.paged(layer, q, k_past, v_past)

    def ragged(self, layer: int, q: Floats, k: Floats, v: Floats) -> AttentionState:
        """Note the largest magnitudes of the chunk's queries, keys and values."""
        seen = [np.abs(tensor).max(initial=np.float32(0)) for tensor in (q, k, v)]
        self._largest[layer] = np.maximum(self._largest[layer], seen)
        return self._full.ragged(layer, q, k, v)

    def scales(self) -> StaticScales:
        """What was seen. Raises `ConfigError` where a layer saw nothing but zeros or no finite
        number."""
        if not (np.isfinite(self._largest).all() and (self._largest > 0).all()):
            raise ConfigError(
                "expected finite activations that aren't all zero in every layer to take static "
                "scales from; run calibration windows first, or check the weights"
            )
        q, k, v = (self._largest.T / np.float32(INT8_QMAX)).tolist()
        return StaticScales(q=tuple(q), k=tuple(k), v=tuple(v))

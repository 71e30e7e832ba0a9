"""The pilot's lists, from the plan's own kernels: quantize, score, pool and select, natively."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray

from tir_kernels.build import build_kernels
from tir_kernels.features import cpu_features
from tir_kernels.shadow.lists import shadow_lists
from tir_kernels.spec import ShadowSpec

from ..compiler import resolve_target
from .attention import Floats


class KernelLists:
    """The lists kernel of a plan, compiled for this machine."""

    def __init__(self, spec: ShadowSpec) -> None:
        target = resolve_target("host")
        self._spec = spec
        self._function = build_kernels({"lists": shadow_lists(spec, cpu_features(target))}, target)[
            "lists"
        ]

    def __call__(self, layer: int, q: Floats, k: Floats) -> NDArray[np.int32]:
        """(m, Hq, n) int32: of each row of `q` (m, Hq, D), the keys among `k` (n, Hkv, D) it would
        attend to come first, ascending, as many as its head keeps; what follows is undefined."""
        num_keys, rows = len(k), q.shape[:2]
        lists = tvm.runtime.empty((*rows, num_keys), "int32")
        counts = tvm.runtime.empty(rows, "int32")
        self._function(
            tvm.runtime.tensor(np.ascontiguousarray(q)),
            tvm.runtime.tensor(self._pages(k)),
            lists,
            counts,
            layer,
            num_keys,
        )
        view: NDArray[Any] = np.from_dlpack(lists)  # tens of megabytes: no copy
        return view

    def _pages(self, k: Floats) -> Floats:
        """Keys in pages, in order; the kernel reads no values."""
        size = self._spec.attention.page_size
        num_pages = -(-len(k) // size)
        padded = np.zeros((num_pages * size, *k.shape[1:]), np.float32)
        padded[: len(k)] = k
        pages = np.zeros((num_pages, 2, k.shape[1], size, k.shape[2]), np.float32)
        pages[:, 0] = padded.reshape(num_pages, size, *k.shape[1:]).transpose(0, 2, 1, 3)
        return pages

"""What attention is timed on: random numbers, or queries, keys and values of the model itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import tvm
from numpy.typing import NDArray

from tir_kernels.attention.page_table import KV_PLANES
from tir_kernels.spec import AttentionSpec

from ..calibrate.reference_model import ReferenceModel, dense_attention
from ..corpora import Document, sample_windows
from ..runtime.tokenizer import ModelTokenizer
from ..weights import ModelDirectory
from .rig import Kernel

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LayerInputs:
    """One layer's last chunk: `q` (m, Hq, D), and the older `k`, `v` (n, Hkv, D); rotated."""

    q: Floats
    k: Floats
    v: Floats

    def pages(self, spec: AttentionSpec) -> Floats:
        """(n / page size, 2, Hkv, page size, D), in order."""
        size = spec.page_size
        num_pages = -(-len(self.k) // size)
        planes = np.zeros((KV_PLANES, num_pages * size, *self.k.shape[1:]), np.float32)
        planes[0, : len(self.k)], planes[1, : len(self.v)] = self.k, self.v
        shape = (KV_PLANES, num_pages, size, *self.k.shape[1:])
        return np.ascontiguousarray(planes.reshape(shape).transpose(1, 0, 3, 2, 4))


class SlotCall:
    """The arguments of the paged-prefill slot for one layer, and a place for its results; on
    `device`."""

    def __init__(
        self,
        spec: AttentionSpec,
        inputs: LayerInputs,
        layer: int,
        device: tvm.runtime.Device,
    ) -> None:
        num_queries, num_keys = len(inputs.q), len(inputs.k)
        num_pages = -(-num_keys // spec.page_size)
        last = num_keys - (num_pages - 1) * spec.page_size
        ints = partial(int32_tensor, device=device)
        self.inputs = inputs
        self._arguments = (
            tvm.runtime.tensor(inputs.q, device),
            ints([0, num_queries]),
            tvm.runtime.tensor(inputs.pages(spec), device),
            *map(ints, ([0, num_pages], range(num_pages), [last], [0], [0] * num_queries)),
        )
        self._output = tvm.runtime.empty(inputs.q.shape, "float32", device)
        self._lse = tvm.runtime.empty(inputs.q.shape[:2], "float32", device)
        self._layer = layer

    def __call__(self, kernel: Kernel, scale: float) -> None:
        """Call a kernel. `scale`: the softmax scale, or nothing where the kernel has its own."""
        no_mask, no_rotary = 0, (0, 1.0, 10000.0)
        kernel(*self._arguments, self._output, self._lse, no_mask, *no_rotary, self._layer + scale)

    def output(self) -> Floats:
        """(m, Hq, D), of the last call."""
        return np.array(self._output.numpy())


def random_inputs(spec: AttentionSpec, num_queries: int, num_keys: int, seed: int) -> LayerInputs:
    """Standard normal numbers."""
    rng = np.random.default_rng(seed)
    q = rng.standard_normal((num_queries, spec.num_q_heads, spec.head_dim), np.float32)
    k, v = rng.standard_normal((2, num_keys, spec.num_kv_heads, spec.head_dim), np.float32)
    return LayerInputs(q, k, v)


def captured_inputs(
    directory: ModelDirectory,
    documents: Sequence[Document],
    num_queries: int,
    num_keys: int,
) -> list[LayerInputs]:
    """Of every layer, the last chunk of the first window of so much text.

    Raises `ConfigError` if no document is long enough.
    """
    import torch

    (window,) = sample_windows(
        documents,
        ModelTokenizer.from_directory(directory.path),
        window_tokens=num_queries + num_keys,
        max_windows=1,
        prefix_ids=directory.chat_config.conv_template.system_prefix_token_ids or (),
    )
    layers: list[LayerInputs] = []

    def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if k.shape[1] == num_queries + num_keys:
            chunk = q[:, -num_queries:].transpose(0, 1)
            past = (x[:, :num_keys].transpose(0, 1) for x in (k, v))
            layers.append(LayerInputs(*(np.ascontiguousarray(x.numpy()) for x in (chunk, *past))))
        return dense_attention(layer, q, k, v)

    with torch.inference_mode():
        ReferenceModel.load(directory).prefill(
            window.token_ids, chunk_tokens=num_queries, attend=attend
        )
    return layers


def int32_tensor(values: Iterable[float], device: tvm.runtime.Device) -> tvm.runtime.Tensor:
    """Whole numbers, as tables of pages and lengths hold them."""
    return tvm.runtime.tensor(np.array(list(values), np.int32), device)

"""Per-head scales of Q and K: the centres of the bucket grid (paper, offline stage).

Measured exactly as the prefill kernel measures them at run time: once for every chunk that has a
past, over the chunk's rows for Q and over all positions before the chunk for K. lambda is the mean
of absmax / 127 over all those chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tir_kernels.constants import INT8_QMAX

from ..corpora import Window
from ..errors import ConfigError, WeightsError
from .reference_model import ReferenceModel, dense_attention

ProgressCallback = Callable[[int, int], None]
"""Called with (windows done, windows in all) after each window."""


@dataclass(frozen=True)
class Spread:
    """How one kind of scale varies over the corpus; each array `[layers, heads]` float64."""

    mean: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]


@dataclass(frozen=True)
class HeadScales:
    """Observed scales (absmax / 127) of the model's rotated queries and keys.

    Attributes
    ----------
    q : per query head, over chunks of queries.
    k : per KV head, over pasts.
    """

    q: Spread
    k: Spread


def measure_scales(
    model: ReferenceModel,
    windows: Sequence[Window],
    *,
    prefill_chunk_tokens: int,
    on_progress: ProgressCallback | None = None,
) -> HeadScales:
    """Run the model over every window in chunks of `prefill_chunk_tokens` and collect scales.

    Raises `ConfigError` when no chunk has a past (windows no longer than a chunk) and
    `WeightsError` when the model yields scales that aren't positive numbers.
    """
    window_tokens = min(len(window.token_ids) for window in windows)
    if not 0 < prefill_chunk_tokens < window_tokens:
        raise ConfigError(
            f"expected windows longer than a prefill chunk of {prefill_chunk_tokens} tokens, so "
            f"that chunks have a past to attend to, got windows of {window_tokens} tokens"
        )
    observer = _ScaleObserver(model.config.num_hidden_layers)
    with torch.inference_mode():
        for done, window in enumerate(windows, start=1):
            model.prefill(window.token_ids, chunk_tokens=prefill_chunk_tokens, attend=observer)
            if on_progress is not None:
                on_progress(done, len(windows))
    scales = HeadScales(_spread(observer.q_absmax), _spread(observer.k_absmax))
    _require_positive("query", scales.q)
    _require_positive("KV", scales.k)
    return scales


class _ScaleObserver:
    """An attention function that notes absmax values of what passes through it.

    `q_absmax[layer]` and `k_absmax[layer]` are lists with one `[heads]` tensor for each chunk.
    """

    def __init__(self, num_layers: int) -> None:
        self.q_absmax: list[list[Tensor]] = [[] for _ in range(num_layers)]
        self.k_absmax: list[list[Tensor]] = [[] for _ in range(num_layers)]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        num_past = k.shape[1] - q.shape[1]
        if num_past > 0:
            self.q_absmax[layer].append(q.abs().amax(dim=(1, 2)))
            self.k_absmax[layer].append(k[:, :num_past].abs().amax(dim=(1, 2)))
        return dense_attention(layer, q, k, v)


def _spread(absmax: list[list[Tensor]]) -> Spread:
    """`absmax[layer][chunk]` of `[heads]` -> mean and extremes over chunks."""
    scales = torch.stack([torch.stack(chunks) for chunks in absmax]).double() / INT8_QMAX
    return Spread(scales.mean(1).numpy(), scales.amin(1).numpy(), scales.amax(1).numpy())


def _require_positive(kind: str, spread: Spread) -> None:
    for layer, head in np.argwhere(~(np.isfinite(spread.highest) & (spread.mean > 0))):
        raise WeightsError(
            f"layer {layer}, {kind} head {head}: expected finite activations that aren't all "
            f"zero, got a mean scale of {spread.mean[layer, head]}; the weights look corrupt"
        )

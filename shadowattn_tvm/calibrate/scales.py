"""Per-head scales of Q and K: the centres of the bucket grid (paper, offline stage).

Measured exactly as the prefill kernel measures them at run time: once for every chunk that has a
past, over the chunk's rows for Q and over all positions before the chunk for K, and on what the
pilot quantizes: keys centred, both rotated, if the plan says so. lambda is the mean of absmax /
quantization maximum over all those chunks.

The mean of the keys is known only after the last window. So for every chunk the extremes of each
(rotated) dimension are kept, from which the absmax after any shift follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import WeightsError
from ..plan import Pilot
from .pilot_chunk import hadamard
from .progress import StageProgress
from .reference_model import dense_attention
from .resume import PartialResults
from .subject import Subject

Doubles = NDArray[np.float64]

STAGE = "scales"


@dataclass(frozen=True)
class PilotScales:
    """What the corpus says of the pilot's operands.

    Attributes
    ----------
    q : `[layers, query heads]` mean scale of queries.
    k : `[layers, KV heads]` mean scale of keys.
    key_means : `[layers, KV heads, head_dim]` mean rotary-rotated key, or None if keys are not
        centred.
    """

    q: Doubles
    k: Doubles
    key_means: Doubles | None


def measure_scales(
    subject: Subject, pilot: Pilot, partial: PartialResults, progress: StageProgress
) -> PilotScales:
    """Run the model over `subject.windows_for_scales` and collect scales.

    Raises `WeightsError` when the model yields scales that aren't positive numbers.
    """
    observed = []
    windows = subject.windows_for_scales
    for index, window in enumerate(windows):
        result = partial.get(STAGE, index)
        if result is None:
            observer = _Observer(subject.model.config.num_hidden_layers, pilot.hadamard_rotation)
            with torch.inference_mode():
                subject.model.prefill(
                    window.token_ids, chunk_tokens=subject.prefill_chunk_tokens, attend=observer
                )
            result = observer.result()
            partial.put(STAGE, index, result)
        observed.append(result)
        progress(STAGE, index + 1, len(windows))
    return _combine(observed, pilot)


class _Observer:
    """An attention function that notes extremes of what passes through it, a row a chunk."""

    def __init__(self, num_layers: int, rotate: bool) -> None:
        self._rotate = rotate
        self._q_absmax: list[list[Tensor]] = [[] for _ in range(num_layers)]
        self._k_low: list[list[Tensor]] = [[] for _ in range(num_layers)]
        self._k_high: list[list[Tensor]] = [[] for _ in range(num_layers)]
        self._k_mean: list[Tensor | None] = [None] * num_layers

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        num_past = k.shape[1] - q.shape[1]
        if num_past > 0:
            queries, keys = (hadamard(q), hadamard(k)) if self._rotate else (q, k)
            self._q_absmax[layer].append(queries.abs().amax(dim=(1, 2)))
            self._k_low[layer].append(keys[:, :num_past].amin(dim=1))
            self._k_high[layer].append(keys[:, :num_past].amax(dim=1))
            self._k_mean[layer] = k.double().mean(dim=1)  # the last chunk's stays: of all tokens
        return dense_attention(layer, q, k, v)

    def result(self) -> dict[str, NDArray[np.generic]]:
        """`q_absmax` [layers, chunks, heads], `k_low` and `k_high` [layers, chunks, KV heads,
        head_dim], `k_mean` [layers, KV heads, head_dim]."""

        def stacked(rows: list[list[Tensor]]) -> NDArray[np.generic]:
            array: NDArray[np.generic] = torch.stack(
                [torch.stack(chunks) for chunks in rows]
            ).numpy()
            return array

        means = [mean for mean in self._k_mean if mean is not None]
        return {
            "q_absmax": stacked(self._q_absmax),
            "k_low": stacked(self._k_low),
            "k_high": stacked(self._k_high),
            "k_mean": torch.stack(means).numpy(),
        }


def _combine(observed: list[dict[str, NDArray[np.generic]]], pilot: Pilot) -> PilotScales:
    quant_max = (1 << (pilot.bits - 1)) - 1
    q_absmax, low, high, k_mean = (
        np.stack([result[name] for result in observed]).astype(np.float64)
        for name in ("q_absmax", "k_low", "k_high", "k_mean")
    )  # [windows, layers, chunks, ...]; k_mean without chunks
    means = k_mean.mean(axis=0) if pilot.center_keys else None
    if means is not None:
        shift = _rotated(means) if pilot.hadamard_rotation else means
        low, high = low - shift[None, :, None], high - shift[None, :, None]
    k_absmax = np.maximum(np.abs(low), np.abs(high)).max(axis=-1)
    q_scales, k_scales = (a.mean(axis=(0, 2)) / quant_max for a in (q_absmax, k_absmax))
    _require_positive("query", q_scales)
    _require_positive("KV", k_scales)
    return PilotScales(q_scales, k_scales, means)


def _rotated(means: Doubles) -> Doubles:
    rotated: Doubles = hadamard(torch.from_numpy(means)).numpy()
    return rotated


def _require_positive(kind: str, scales: Doubles) -> None:
    for layer, head in np.argwhere(~(np.isfinite(scales) & (scales > 0))):
        raise WeightsError(
            f"layer {layer}, {kind} head {head}: expected finite activations that aren't all "
            f"zero, got a mean scale of {scales[layer, head]}; the weights look corrupt"
        )

"""Static output scales of the pilot: from the factors a corpus would want to one table a head.

A chunk and head would like the factor 127 / max|acc|, which just fits its largest INT32 score into
INT8, or 255 / max|acc| with 9 score bits. The static factor of a bucket pair is a low percentile of
what was observed with that pair, less a margin: almost nothing is clamped, and nothing is lost
where it is. (The percentile is the "target requant" of the public shadowAttn implementation.)
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tir_kernels.pilot.quantize import bucket_scales
from tir_kernels.spec import HeadParameters, ShadowSpec

from .pilot_chunk import PilotChunk
from .progress import StageProgress
from .reference_model import dense_attention
from .resume import Arrays, PartialResults
from .subject import Subject

STAGE = "scores"

_ROWS_AT_ONCE = 256

Table = tuple[tuple[float, ...], ...]
"""`[query bucket][key bucket]`, units of score per unit of INT32 score."""


def observe_scores(
    subject: Subject, spec: ShadowSpec, partial: PartialResults, progress: StageProgress
) -> NDArray[np.int64]:
    """Bucket choices and largest scores of every chunk with a past.

    Returns `[layers, observations, query heads, 3]`: query bucket, key bucket, max|acc|.
    """
    observed: list[NDArray[np.int64]] = []
    windows = subject.windows_for_scales
    for index, window in enumerate(windows):
        result = partial.get(STAGE, index)
        if result is None:
            observer = _Observer(spec)
            with torch.inference_mode():
                subject.model.prefill(
                    window.token_ids, chunk_tokens=subject.prefill_chunk_tokens, attend=observer
                )
            result = observer.result()
            partial.put(STAGE, index, result)
        observed.append(result["scores"].astype(np.int64))
        progress(STAGE, index + 1, len(windows))
    return np.concatenate(observed, axis=1)


class _Observer:
    """An attention function that notes the pilot's buckets and largest scores of each chunk."""

    def __init__(self, spec: ShadowSpec) -> None:
        self._spec = spec
        self._rows: list[list[list[list[int]]]] = [[] for _ in range(spec.num_layers)]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        num_past = k.shape[1] - q.shape[1]
        if num_past > 0:
            pilot = PilotChunk(self._spec, layer, q, k[:, :num_past])
            largest = torch.zeros(q.shape[0], dtype=torch.int32)
            for rows in torch.split(torch.arange(q.shape[1]), _ROWS_AT_ONCE):
                largest = torch.maximum(largest, pilot.sums(rows).abs().amax(dim=(1, 2)))
            heads = zip(pilot.q_buckets, pilot.k_buckets, largest.tolist(), strict=True)
            self._rows[layer].append([list(head) for head in heads])
        return dense_attention(layer, q, k, v)

    def result(self) -> Arrays:
        return {"scores": np.array(self._rows, np.int64)}


def requant_table(
    head: HeadParameters,
    observed: NDArray[np.int64],
    *,
    sigma: float,
    per_axis: int,
    score_max: int,
    percentile: float,
    margin: float,
) -> Table:
    """The static factors of one head.

    Parameters
    ----------
    head : its scales.
    observed : `[observations, 3]`: query bucket, key bucket, max|acc|.
    sigma, per_axis : the bucket grid.
    score_max : the largest requantized score.
    percentile, margin : the factor of a pair is this percentile of the factors observed with it,
        less this part of it.

    A pair that was never observed gets the real-valued output scale s_o = s_q * s_k / f of the
    head's observed pairs, the largest of them: real scores don't depend on the bucket, so it clamps
    no more than they do.
    """
    q_scales = bucket_scales(head.q_scale, sigma, per_axis)
    k_scales = bucket_scales(head.k_scale, sigma, per_axis)
    factors: dict[tuple[int, int], float] = {}
    for q_bucket, k_bucket in {(int(row[0]), int(row[1])) for row in observed}:
        with_pair = (observed[:, 0] == q_bucket) & (observed[:, 1] == k_bucket)
        # Scores that fit as they are stay as they are, all zeros too.
        wanted = score_max / np.maximum(observed[with_pair, 2], score_max)
        factors[q_bucket, k_bucket] = float(np.percentile(wanted, percentile)) * (1.0 - margin)
    output_scale = max(q_scales[q] * k_scales[k] / factor for (q, k), factor in factors.items())
    return tuple(
        tuple(
            factors.get((q, k), min(q_scale * k_scale / output_scale, 1.0))
            for k, k_scale in enumerate(k_scales)
        )
        for q, q_scale in enumerate(q_scales)
    )

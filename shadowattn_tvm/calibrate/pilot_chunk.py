"""The pilot of one layer over one chunk, in torch: the same integers as the kernels and their NumPy
twins, fast enough to run over a corpus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tir_kernels.pilot.pooling import DISTANCES, INVERSE_BITS, ROW_BITS, pooling_step
from tir_kernels.pilot.quantize import bucket_scales
from tir_kernels.pilot.requantize import INT16_MAX, MULTIPLY_SHIFT, requantizer
from tir_kernels.reference.pooling import exp_table
from tir_kernels.spec import ShadowSpec

_INDEX_BITS = 32
"""Scores and positions share an int64 while they are sorted."""


class PilotChunk:
    """Quantized queries and keys of one layer and chunk.

    Parameters
    ----------
    spec : the plan's parameters.
    layer : its index.
    q : rotated queries of the whole chunk, `[num_q_heads, m, head_dim]` float32.
    k_past : rotated keys older than the chunk, `[num_kv_heads, n, head_dim]` float32, n > 0.

    Attributes
    ----------
    q_buckets, k_buckets : the scales chosen for each query head, `[num_q_heads]`, as indices.
    """

    def __init__(self, spec: ShadowSpec, layer: int, q: Tensor, k_past: Tensor) -> None:
        self._spec = spec
        self._heads = spec.heads[layer]
        geometry, pilot = spec.attention, spec.pilot
        group = geometry.group_size
        q, k = pilot_rows(spec, layer, q, k_past)
        q_scales = [self._scales(head.q_scale) for head in self._heads]
        k_scales = [self._scales(head.k_scale) for head in self._heads]
        self.q_buckets = [
            nearest_bucket(rows, scales, pilot.quant_max)
            for rows, scales in zip(q, q_scales, strict=True)
        ]
        kv_buckets = [
            nearest_bucket(rows, k_scales[kv * group], pilot.quant_max) for kv, rows in enumerate(k)
        ]
        self.k_buckets = [kv_buckets[head // group] for head in range(len(self._heads))]
        self._q_scale = [s[b] for s, b in zip(q_scales, self.q_buckets, strict=True)]
        self._k_scale = [s[b] for s, b in zip(k_scales, self.k_buckets, strict=True)]
        self._q8 = quantize(q, self._q_scale, pilot.quant_max)
        self._k8 = quantize(k, self._k_scale[::group], pilot.quant_max)

    @property
    def num_rows(self) -> int:
        return int(self._q8.shape[1])

    @property
    def num_past(self) -> int:
        return int(self._k8.shape[1])

    def sums(self, rows: Tensor) -> Tensor:
        """INT32 scores of the chunk's queries `rows` (R,) int64: `[num_q_heads, R, n]` int32."""
        queries = self._q8[:, rows].reshape(len(self._k8), -1, self._q8.shape[2])
        # Exact in float32: a sum of head_dim products of INT8 stays below 2^24.
        sums = queries @ self._k8.transpose(1, 2)
        return sums.reshape(len(self._q8), len(rows), -1).int()

    def scores(self, rows: Tensor) -> Tensor:
        """What rows are ranked or pooled by: `sums`, requantized where the plan says so."""
        sums = self.sums(rows)
        if not self._spec.pilot.requantize:
            return sums
        return torch.stack([self._requantize(head, sums[head]) for head in range(len(sums))])

    def list_scores(self, rows: Tensor) -> Tensor:
        """What lists are chosen by, `[list heads, lists, n]` int32.

        `rows` (R,) int64 are the queries of whole blocks in ascending order. Heads that share
        their lists count as one list head; lists are those of the blocks of `rows`, in order.
        """
        if not self._spec.pilot.pooled:
            return self.scores(rows)
        return self.pooled(self.votes(rows), rows, [head.query_stride for head in self._heads])

    def votes(self, rows: Tensor) -> Tensor:
        """What every row would add to the importance of keys if it votes: `[num_q_heads, R, n]`."""
        scores = self.scores(rows)
        return torch.stack(
            [row_probabilities(scores[head], self._step(head)) for head in range(len(scores))]
        )

    def pooled(self, votes: Tensor, rows: Tensor, query_strides: Sequence[int]) -> Tensor:
        """`list_scores` from the `votes` of `rows` where heads have these strides."""
        pilot = self._spec.pilot
        may_vote = torch.stack([rows % stride == 0 for stride in query_strides])
        votes = votes * may_vote[:, :, None]
        if pilot.share_group:
            group = self._spec.attention.group_size
            votes = votes.reshape(-1, group, *votes.shape[1:]).sum(1)
        blocks = rows // pilot.query_block
        _, sizes = torch.unique_consecutive(blocks, return_counts=True)
        pooled = [block.sum(1) for block in torch.split(votes, sizes.tolist(), dim=1)]
        return torch.stack(pooled, dim=1).int()

    def _scales(self, center: float) -> tuple[float, ...]:
        return bucket_scales(center, self._spec.bucket_sigma, self._spec.buckets_per_axis)

    def _factor(self, head: int) -> float:
        requant = self._heads[head].requant
        assert requant is not None, "the spec requantizes"
        return requant[self.q_buckets[head]][self.k_buckets[head]]

    def _requantize(self, head: int, sums: Tensor) -> Tensor:
        by = requantizer(self._factor(head))
        t = ((sums + (1 << by.shift >> 1)) >> by.shift).clamp_(-INT16_MAX - 1, INT16_MAX)
        scaled = (t * by.multiplier + (1 << (MULTIPLY_SHIFT - 1))) >> MULTIPLY_SHIFT
        most = self._spec.pilot.score_max
        return scaled.clamp_(-most, most)

    def _step(self, head: int) -> int:
        return pooling_step(
            self._spec.pilot_sm_scale,
            self._q_scale[head],
            self._k_scale[head],
            self._factor(head),
        )


def pilot_rows(spec: ShadowSpec, layer: int, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys as the pilot quantizes them: keys centred, both rotated, as planned."""
    if spec.key_means is not None:
        k = k - torch.tensor(spec.key_means[layer], dtype=torch.float32)[:, None]
    if spec.pilot.hadamard_rotation:
        q, k = hadamard(q), hadamard(k)
    return q, k


def hadamard(x: Tensor) -> Tensor:
    """The unnormalized Walsh-Hadamard transform of the last axis, in float32 and in the order of
    stages of `tir_kernels.reference.pilot.hadamard`."""
    dim = x.shape[-1]
    block, distance = dim & -dim, 1
    while distance < block:
        first, second = x.reshape(*x.shape[:-1], -1, 2, distance).unbind(-2)
        x = torch.stack([first + second, first - second], dim=-2).flatten(-3)
        distance *= 2
    return x


def nearest_bucket(rows: Tensor, scales: tuple[float, ...], quant_max: int) -> int:
    """Index of the scale nearest to absmax / quant_max of `rows`, ties to the smaller scale."""
    measured = rows.abs().max() / np.float32(quant_max).item()
    distances = (measured - torch.tensor(scales, dtype=torch.float32)).abs().numpy()
    return int(np.argmin(distances))  # the first of equals


def quantize(x: Tensor, scales: list[float], quant_max: int) -> Tensor:
    """`[heads, rows, head_dim]` float32 -> the same shape, integers as float32; a scale a head."""
    divided = x / torch.tensor(scales, dtype=torch.float32)[:, None, None]
    return divided.clamp_(-quant_max, quant_max).round_()  # half to even


def row_probabilities(scores: Tensor, step: int) -> Tensor:
    """Small scores `[R, n]` -> int32, rows of about 2^19 in sum: `tir_kernels.pilot.pooling`."""
    table = torch.from_numpy(exp_table(step))
    distances = (scores.amax(1, keepdim=True) - scores).clamp_(max=DISTANCES - 1)
    weights = table[distances.long()]
    totals = weights.sum(1, keepdim=True, dtype=torch.int64)
    bits = torch.frexp(totals.double()).exponent.long()
    numerator = torch.bitwise_left_shift(torch.ones_like(totals), bits + INVERSE_BITS) - 1
    shift = (bits + INVERSE_BITS - ROW_BITS).int()
    return torch.bitwise_right_shift(weights * (numerator // totals).int(), shift)


def descending_order(scores: Tensor) -> Tensor:
    """Positions of `scores` `[..., n]` int32 from the largest to the smallest, ties to the lower
    index: int64, the same shape."""
    values: NDArray[np.int64] = -scores.numpy().astype(np.int64)
    keys = (values << _INDEX_BITS) | np.arange(scores.shape[-1])
    keys.sort(axis=-1)
    return torch.from_numpy(keys & ((1 << _INDEX_BITS) - 1))

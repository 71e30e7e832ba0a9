"""What every selector does: given the k-th largest score, the list of a row's selection.

Ties go to the lower index, so the list takes them until they run out; that is a change of the
threshold once a row, and in the vector where it happens a mended mask. No score is looked at alone.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from ..features import CpuFeatures
from ..simd.lane_bits import bits_dtype, lane_bits
from ..simd.left_pack import left_pack, pack_lanes
from ..simd.vector import Expr, splat

_NO_LIMIT = 2**31 - 1


@T.meta_class
class Selector:
    """Selects the k largest scores of a row. Make one per task; `start` it before the first row,
    unless it was made `like` one that was started.

    `scores` (any, n) of `dtype` has rows padded with `masked` to `num_vectors` vectors of
    `vector_scores`; `indices` (any, k + index_slack) int32. A subclass has `search`.

    Attributes
    ----------
    low, tied : (1,) of `dtype`; above : (1,) int32. What `search` finds: scores above `low` and
        not above `tied` equal `tied`, and `above` lie above that.
    """

    def __init__(
        self,
        features: CpuFeatures,
        dtype: str,
        masked: int,
        vector_scores: int,
        like: Selector | None = None,
    ) -> None:
        self.dtype = dtype
        self.masked = masked
        self.vector_scores = vector_scores
        self.pack_lanes = pack_lanes(features)
        self.mask_scores = max(vector_scores, self.pack_lanes)
        self.pack: Any = left_pack(features, None if like is None else like.pack)
        self.low = T.alloc_buffer((1,), dtype)
        self.tied = T.alloc_buffer((1,), dtype)
        self.above = T.alloc_buffer((1,), "int32")

    @T.inline
    def start(self) -> None:
        self.pack.start()

    def search(self, scores: T.Buffer, row: Expr, num_vectors: Expr, wanted: Expr) -> None:
        """Find the `wanted`-th largest of a row with more visible scores: count(> low) >= wanted
        >= count(> tied) = above. An inline."""
        raise NotImplementedError

    def mask_vector(self, index: Expr) -> Expr:
        """The positions that the `index`-th mask stands for."""
        return T.ramp(index * self.mask_scores, 1, self.mask_scores)

    def part(self, bits: Expr, index: int) -> Expr:
        """The `index`-th `pack_lanes` of a mask's bits; uint32."""
        shift = T.Cast(bits_dtype(self.mask_scores), index * self.pack_lanes)
        return T.Cast("uint32", T.shift_right(bits, shift)) & T.uint32((1 << self.pack_lanes) - 1)

    @T.inline
    def write(
        self,
        scores: T.Buffer,
        row: Expr,
        num_masks: Expr,
        ties: Expr,
        indices: T.Buffer,
        out_row: Expr,
    ) -> None:
        """The list: all scores above `low`, but of those equal to `tied` the first `ties`."""
        low = T.alloc_buffer((self.mask_scores,), self.dtype)
        ties_left = T.alloc_buffer((1,), "int32")
        chosen = T.alloc_buffer((1,), bits_dtype(self.mask_scores))
        surplus = T.alloc_buffer((1,), bits_dtype(self.mask_scores))
        one = T.meta_var(T.Cast(bits_dtype(self.mask_scores), 1))
        low[self.mask_vector(0)] = splat(self.low[0], self.mask_scores)
        ties_left[0] = ties
        self.pack.count[0] = 0
        for m in range(num_masks):
            tied = T.bind(
                lane_bits(
                    scores[row, self.mask_vector(m)] == splat(self.tied[0], self.mask_scores),
                    self.mask_scores,
                )
            )
            num_tied = T.bind(T.Cast("int32", T.popcount(tied)))
            chosen[0] = lane_bits(
                scores[row, self.mask_vector(m)] > low[self.mask_vector(0)], self.mask_scores
            )
            if num_tied > ties_left[0]:  # at most once a row: from here on no more ties
                surplus[0] = tied
                for _ in range(ties_left[0]):
                    surplus[0] = surplus[0] & (surplus[0] - one)
                chosen[0] = chosen[0] & ~surplus[0]
                low[self.mask_vector(0)] = splat(self.tied[0], self.mask_scores)
                ties_left[0] = T.int32(_NO_LIMIT)
            ties_left[0] = ties_left[0] - num_tied
            for part in T.unroll(self.mask_scores // self.pack_lanes):
                self.pack.append(
                    T.bind(self.part(chosen[0], part)),
                    m * self.mask_scores + part * self.pack_lanes,
                    indices,
                    out_row,
                )

    @T.inline
    def select(
        self,
        scores: T.Buffer,
        row: Expr,
        num_vectors: Expr,
        visible: Expr,
        k: Expr,
        indices: T.Buffer,
        out_row: Expr,
        counts: T.Buffer,
    ) -> None:
        """`indices[out_row, : counts[out_row]]` = the selection of `scores[row]`, of which
        `visible` positions aren't masked; counts = min(k, visible)."""
        wanted = T.bind(T.min(k, visible))
        counts[out_row] = wanted
        if wanted > 0:
            self.low[0] = T.Cast(self.dtype, T.int32(self.masked))
            self.tied[0] = T.Cast(self.dtype, T.int32(self.masked))
            self.above[0] = wanted
            if wanted < visible:
                self.search(scores, row, num_vectors, wanted)
            self.write(
                scores,
                row,
                num_vectors * self.vector_scores // self.mask_scores,
                wanted - self.above[0],
                indices,
                out_row,
            )

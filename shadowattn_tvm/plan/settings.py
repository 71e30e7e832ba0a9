"""What the heads of a plan have in common: scales on offer, who shares lists, how to estimate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class StrictDocument(BaseModel):
    """A part of a plan: no unknown fields, no coercion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class BucketGrid(StrictDocument):
    """Static scales on offer at run time, `per_axis` of them for Q and as many for K: {lambda *
    sigma ** i} for i around 0. Three give the paper's nine buckets a head, one gives none."""

    sigma: Annotated[float, Field(gt=0.0, lt=1.0)]
    per_axis: Literal[1, 3, 5] = 3


class Sharing(StrictDocument):
    """Who shares one list of selected positions. The paper's setting is a list per query and head.

    Attributes
    ----------
    gqa_group : the query heads of a KV head share; they then have one keep ratio.
    query_block : consecutive queries of a chunk, counted from its first, that share.
    """

    gqa_group: bool = False
    query_block: Literal[1, 8, 16, 32, 64, 128] = 1

    @property
    def pooled(self) -> bool:
        """Whether scores of several rows are pooled into one list."""
        return self.gqa_group or self.query_block > 1


class Pilot(StrictDocument):
    """How the estimate is computed.

    Attributes
    ----------
    bits : of the quantized queries and keys; 4 is an experiment.
    center_keys : subtract a static mean from keys first; it moves all scores of a row alike.
    hadamard_rotation : rotate queries and keys first, which spreads outlier dimensions. Rotary
        embedding lies between the weights and the scores, so it is applied before quantizing.
    score_bits : 32 ranks exact sums; 8 requantizes them with a static scale, as an NPU does, and 9
        keeps them twice as fine, in 16-bit lanes. Pooling needs 8 or 9.
    """

    bits: Literal[4, 6, 7, 8] = 8
    center_keys: bool = False
    hadamard_rotation: bool = False
    score_bits: Literal[8, 9, 32] = 32

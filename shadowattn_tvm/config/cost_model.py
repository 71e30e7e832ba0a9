"""What the stages of a head cost on a device: the figures, and the times they stand for.

Tables of real SoCs (`configs/devices`) and what `calibrate --stage-costs` fits to a machine are
written in the same terms. Pure arithmetic; the shapes are the caller's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]

_MS_PER_NS = 1e-6


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FusedLaunch(_Document):
    """A launch of so many heads, and its duration at the shape of its table."""

    heads: PositiveInt
    ms: PositiveFloat


class PilotCost(_Document):
    """Launches of the pilot.

    Attributes
    ----------
    covers : what one launch estimates of each of its heads: all queries of a "chunk", or those of
        one "list" (a block of queries).
    queries, keys, head_dim : the shape of a head that `launches` are for; queries are those that
        the pilot scores, where not all of them vote on a list.
    launches : by number of fused heads, ascending, the first of one head.
    fixed_ms : the part of every launch that other shapes leave as it is; the rest grows in
        proportion to queries, keys and head_dim.
    """

    covers: Literal["chunk", "list"]
    queries: PositiveInt
    keys: PositiveInt
    head_dim: PositiveInt
    launches: Annotated[tuple[FusedLaunch, ...], Field(strict=False, min_length=1)]
    fixed_ms: NonNegativeFloat

    @model_validator(mode="after")
    def _is_a_table(self) -> Self:
        sizes = [launch.heads for launch in self.launches]
        if sizes[0] != 1 or any(b <= a for a, b in pairwise(sizes)):
            raise ValueError(f"launches: expected 1, then more and more heads, got {sizes}")
        if any(b.ms < a.ms for a, b in pairwise(self.launches)):
            raise ValueError("launches: expected more heads to take no less time")
        if self.fixed_ms > self.launches[0].ms:
            raise ValueError(
                f"fixed_ms: expected at most the {self.launches[0].ms} ms of a launch of one head, "
                f"got {self.fixed_ms}"
            )
        return self

    @property
    def max_heads(self) -> int:
        """The most heads of one launch."""
        return self.launches[-1].heads

    def launch_ms(self, heads: int, *, queries: int, keys: int, head_dim: int) -> float:
        """The duration of a launch of `heads` heads of a shape, in ms. A size that the table lacks
        takes the next larger graph (3 heads pay for 4); more than the largest are several
        launches in a row."""
        whole, rest = divmod(heads, self.max_heads)
        growth = queries * keys * head_dim / (self.queries * self.keys * self.head_dim)
        total = 0.0
        for size, times in ((self.max_heads, whole), (rest, 1 if rest else 0)):
            if times:
                table_ms = next(launch.ms for launch in self.launches if launch.heads >= size)
                total += times * (self.fixed_ms + (table_ms - self.fixed_ms) * growth)
        return total


class SelectCost(_Document):
    """Selection: nanoseconds of a list, and of each key it is selected from."""

    ns_per_list: NonNegativeFloat
    ns_per_list_and_key: NonNegativeFloat

    def ms(self, *, lists: int, keys: int) -> float:
        """Of `lists` lists over `keys` keys."""
        return _MS_PER_NS * lists * (self.ns_per_list + self.ns_per_list_and_key * keys)


class AttendCost(_Document):
    """Exact attention: nanoseconds of a query and a kept key of one head of `head_dim`, in
    proportion to which it grows."""

    ns_per_query_and_kept_key: NonNegativeFloat
    head_dim: PositiveInt

    def ms(self, *, queries: int, kept_keys: int, head_dim: int) -> float:
        """Of `queries` queries of one head to `kept_keys` keys each."""
        pairs = queries * kept_keys * head_dim / self.head_dim
        return _MS_PER_NS * pairs * self.ns_per_query_and_kept_key


class CostModel(_Document):
    """What every stage costs.

    Attributes
    ----------
    shared_cpu : one machine selects and attends.
    blocking : where two do, the one that selects waits with its lists until the other is free.
    """

    shared_cpu: bool
    blocking: bool = False
    pilot: PilotCost
    select: SelectCost
    attend: AttendCost
